"""Names of environments: the link `NAME` beside the versioned prefixes, moved by one rename."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from typing import TYPE_CHECKING

from labsync import atomic
from labsync.env.stamp import DIGITS
from labsync.errors import RefusedError
from labsync.events import Note
from labsync.manifest.schema import RESERVED_ENVIRONMENTS
from labsync.names import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from labsync.events import Observer


def check_name(name: str) -> None:
    """Raise RefusedError (12) for a name that is not labsync's to use."""
    if RESERVED_ENVIRONMENTS.fullmatch(name):
        raise RefusedError(
            f"the environment's name `{name}` belongs to the machine",
            hint="choose another `name` under `environment:` in the manifest",
        )
    if not NAME.fullmatch(name):
        raise RefusedError(
            f"`{name}` is not a name for an environment",
            hint="use lower-case letters, digits, `.`, `_` and `-`",
        )


def current(envs: Path, name: str) -> Path | None:
    """Return the prefix that the name stands for, None where there is none.

    Raises RefusedError (12) when something stands there that labsync did not make.
    """
    link = envs / name
    try:
        target = os.readlink(link)
    except FileNotFoundError:
        return None
    except OSError as error:  # EINVAL: not a link
        raise _foreign(link, "is not a link that labsync made") from error
    if not re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{{DIGITS}}}", target):
        raise _foreign(link, f"is a link to `{target}`, which labsync did not make")
    return envs / target


def switch(envs: Path, name: str, prefix: Path) -> None:
    """Make the name stand for `prefix`, at once; a kernel that runs on the old one keeps its files."""
    if current(envs, name) == prefix:
        return
    staged = envs / f".{name}{atomic.NEW}"  # one name, for the lock is held: a killed switch leaves no more
    with atomic.disk_errors(staged):
        staged.unlink(missing_ok=True)
        staged.symlink_to(prefix.name)
        atomic.rename(staged, envs / name)


def check_shown(shown: Path, link: Path) -> None:
    """Raise RefusedError (12) when something stands at `shown` that is not our link to `link`."""
    try:
        target = os.readlink(shown)
    except FileNotFoundError:
        return
    except OSError as error:  # EINVAL: not a link
        raise _foreign(shown, "is an environment that labsync did not make") from error
    if target != str(link):
        raise _foreign(shown, f"is a link to `{target}`, which labsync did not make")


def show(shown: Path, link: Path) -> None:
    """Let conda find the environment by its name: by a link to our link, which is made only once."""
    check_shown(shown, link)
    with atomic.disk_errors(shown):
        atomic.make_dirs(shown.parent)
        with contextlib.suppress(FileExistsError):
            shown.symlink_to(link)


@contextlib.contextmanager
def build_lock(envs: Path, name: str, observer: Observer) -> Iterator[int]:
    """Let one labsync at a time build environments of this name; others wait for it.

    The descriptor that is given holds the lock: a program that inherits it holds it on when we are killed.
    """
    path = envs / f".{name}.lock"
    with atomic.disk_errors(path):
        atomic.make_dirs(envs)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            observer(Note(f"another labsync builds the environment `{name}`; waiting for it"))
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _foreign(link: Path, what: str) -> RefusedError:
    return RefusedError(
        f"`{link}` {what}",
        path=str(link),
        hint=f"move it away (`mv {link} {link}.old`), or choose another `name` under `environment:`",
    )
