"""Git, hardened: no configuration but ours, no hooks, no prompts, one protocol, options ended by `--`.

What a repository or a server says can name files and objects; it can never choose what is executed.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from labsync.errors import (
    DiskError,
    IntegrityError,
    LabsyncError,
    NotAllowedError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from labsync.origins.http_errors import bare
from labsync.process import Servant, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SHORT = 60.0  # seconds for what moves no content
LONG = 3600.0  # seconds for a fetch; a stall ends it earlier
_SCHEMES = ("https", "http", "ssh", "file")
# Variables with which the user says how to reach a server; every other GIT_* is dropped.
_KEPT = {"GIT_ASKPASS", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH"}
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.symlinks=false",
    "core.askPass=",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.allow=never",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=30",
)
_USER = re.compile(r"(?<=//)[^/@\s']+@")
_ABSENT = re.compile(r"repository (?:'[^']*' )?not found|does not appear to be a git|could not be found")
_DENIED = (
    "could not read username", "could not read password", "authentication failed", "permission denied",
    "terminal prompts disabled", "returned error: 403", "returned error: 401", "access denied",
    "host key verification failed", "dubious ownership",
)  # fmt: skip
_DAMAGED = (
    "not a tree object",
    "hash mismatch",
    "is corrupt",
    "bad object",
    "unable to read",
    "invalid object",
)
_NOT_THERE = (
    "not our ref",
    "unadvertised object",
    "couldn't find remote ref",
    "no such remote ref",
    "does not exist in",
)


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository's address as git takes it, and the one protocol it may use."""

    url: str
    scheme: str

    @classmethod
    def of(cls, origin: str) -> Remote:
        """Return the remote of a `git+…` origin; raises RefusedError (12) for what could be an option.

        `git+file:` takes an absolute path as it is, not percent-encoded.
        """
        rest = origin.removeprefix("git+")
        scheme, _, tail = rest.partition(":")
        if scheme not in _SCHEMES:
            raise RefusedError(
                f"`{bare(origin)}` is not a git address that labsync uses",
                hint="write `git+https://`, `git+ssh://` or `git+file:/absolute/path`",
            )
        if scheme == "file":
            path = "/" + tail.lstrip("/")
            return cls(f"file://{quote(path)}", scheme)
        host = urlsplit(rest).netloc.rpartition("@")[2]
        if not tail.startswith("//") or not host or host.startswith("-") or tail.startswith("//-"):
            raise RefusedError(f"`{bare(rest)}` names no host that git could take for nothing but a host")
        return cls(rest, scheme)

    @property
    def shown(self) -> str:
        """The address without secrets."""
        return bare(self.url)


def environment(scheme: str) -> Mapping[str, str]:
    """Return the environment of every git child: ours without git's own variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT}
    if "GIT_SSH" not in kept:
        kept.setdefault("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=10")
    return kept | {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": scheme,
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "LC_ALL": "C",
    }


def git(
    *arguments: str,
    remote: Remote,
    repository: Path | None = None,
    variables: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout: float = SHORT,
) -> bytes:
    """Run git and return its output; raises the LabsyncError that its failure means.

    `MissingError` says that the server answered and does not have what was asked for.
    """
    done = run(
        [*_argv(remote, repository), *arguments],
        env={**environment(remote.scheme), **(variables or {})},
        stdin=stdin,
        timeout=timeout,
    )
    if done.timed_out:
        raise UnavailableError(f"git did not end in {timeout:.0f} s with `{remote.shown}`")
    if done.returncode != 0:
        raise failure(remote, done.error_text)
    return done.stdout


def git_servant(*arguments: str, remote: Remote, repository: Path) -> Servant:
    """Start a git that stays and answers."""
    argv = [*_argv(remote, repository), *arguments]
    return Servant(argv, env=environment(remote.scheme), patience=SHORT)


def _argv(remote: Remote, repository: Path | None) -> list[str]:
    settings = (*_SETTINGS, f"protocol.{remote.scheme}.allow=always")
    argv = ["git", *(word for setting in settings for word in ("-c", setting))]
    return [*argv, "--git-dir", str(repository)] if repository else argv


class MissingError(NotFoundError):
    """The server answered, and the commit, ref or object is not there."""


def damaged(remote: Remote, why: str) -> IntegrityError:
    """Return the error for a scratch whose objects are not what their names say."""
    return IntegrityError(
        f"what was fetched from `{remote.shown}` is damaged: {why}",
        hint="delete the scratch, `.labsync/git`, and try again",
    )


def failure(remote: Remote, text: str) -> LabsyncError:
    """Return the error that git's own words mean."""
    lowered = text.lower()
    said = _USER.sub("", text.splitlines()[-1] if text else "it said nothing")
    if "no space left on device" in lowered:
        return DiskError("no space left for git's scratch", hint="free some space: `labsync du`")
    if any(words in lowered for words in _DAMAGED):
        return damaged(remote, said)
    if any(words in lowered for words in _NOT_THERE):
        return MissingError(f"`{remote.shown}` does not have it: {said}")
    if any(words in lowered for words in _DENIED):
        return NotAllowedError(
            f"`{remote.shown}` does not let us in, or does not exist: {said}",
            hint="check the address; credentials come from `~/.netrc`, `GIT_ASKPASS` or the ssh agent",
        )
    if _ABSENT.search(lowered):
        return NotFoundError(
            f"there is no git repository at `{remote.shown}`, or it is private", hint="check the address"
        )
    return UnavailableError(f"git failed with `{remote.shown}`: {said}", hint="check the network")
