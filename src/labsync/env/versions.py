"""The versions of an environment: which came before, which are in use, which may go.

`<envs>/.NAME.versions` lists the prefixes that were current, the newest first, one a line. It is written
before the link is moved, so it may name one that never became current; the link alone decides.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from labsync import atomic
from labsync.env.conda_meta import META
from labsync.env.stamp import DIGITS, STAMP, is_built
from labsync.env.switch import build_lock, check_name, current, switch
from labsync.errors import NotFoundError
from labsync.events import Note
from labsync.report import Built

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from labsync.events import Observer

_PROCESSES = Path("/proc")


def make_current(envs: Path, name: str, prefix: Path) -> None:
    """Let the name stand for `prefix`, and remember what it stood for before."""
    now = current(envs, name)
    if now == prefix:
        return
    before = [path for path in (now, *_listed(envs, name)) if path is not None and path != prefix]
    lines = dict.fromkeys(path.name for path in (prefix, *before))
    atomic.write_bytes(_record(envs, name), "".join(f"{line}\n" for line in lines).encode())
    switch(envs, name, prefix)


def previous(envs: Path, name: str) -> Path | None:
    """Return the version that was current before this one and is still whole; None where there is none."""
    now = current(envs, name)
    return next((path for path in _listed(envs, name) if path != now and is_built(path)), None)


def roll_back(envs: Path, name: str, observer: Observer) -> Built:
    """Make the previous version current again, at once; NotFoundError (6) where there is none.

    A second time goes forward again: each is the other's previous one.
    """
    check_name(name)
    with build_lock(envs, name, observer):
        target = previous(envs, name)
        if target is None:
            raise NotFoundError(
                f"the environment `{name}` has no previous version here",
                hint="check out the older lock from git and `labsync env build`",
            )
        make_current(envs, name, target)
    return Built(name, str(target), "rolled back", "`labsync env build` goes forward to the lock again")


def collect(envs: Path, name: str, spared: Collection[Path], observer: Observer) -> Sequence[Path]:
    """Remove the versions that nobody needs and return them; the caller holds the build lock.

    The current and the previous one stay, those of `spared`, and those that a running process has
    anything of.
    """
    kept = {current(envs, name), previous(envs, name), *spared}
    old = [path for path in _versions(envs, name) if path not in kept]
    gone = [path for path in old if path not in in_use(old)] if old else []
    for path in gone:
        observer(Note(f"removing the environment's old version `{path.name}`"))
        with atomic.disk_errors(path):
            (path / STAMP).unlink(missing_ok=True)  # a killed removal leaves it unfinished, not broken
            shutil.rmtree(path)
    return gone


def prune_cache(caches: Path, envs: Path) -> None:
    """Remove the unpacked packages of conda that no environment has; not while another build uses them."""
    cache = caches / "conda"
    if not cache.is_dir():
        return
    with contextlib.ExitStack() as stack:
        descriptor = os.open(cache / ".labsync.lock", os.O_RDWR | os.O_CREAT, 0o644)
        stack.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        needed = {path.stem for path in envs.glob(f"*/{META}/*.json")}
        for path in cache.iterdir():
            if path.is_dir() and not path.name.startswith(".") and path.name not in needed:
                shutil.rmtree(path, ignore_errors=True)
                path.with_name(f"{path.name}.lock").unlink(missing_ok=True)


def in_use(prefixes: Iterable[Path]) -> set[Path]:
    """Return the prefixes that a running process names as its program, folder, argument or library."""
    asked = {path: f"{path}/".encode() for path in prefixes}
    found: set[Path] = set()
    for process in _PROCESSES.glob("[0-9]*"):
        seen = _traces(process)
        found |= {path for path, text in asked.items() if text in seen}
    return found


def _traces(process: Path) -> bytes:
    """Return all text of a process that may name a prefix; nothing of one that is gone or another user's."""
    parts = []
    for link in ("exe", "cwd"):
        with contextlib.suppress(OSError):
            parts.append(os.fsencode(os.readlink(process / link)) + b"/")
    for file in ("cmdline", "environ", "maps"):
        with contextlib.suppress(OSError):
            parts.append((process / file).read_bytes())
    return b"\0".join(parts)


def _versions(envs: Path, name: str) -> Iterable[Path]:
    pattern = re.compile(rf"{re.escape(name)}-[0-9a-f]{{{DIGITS}}}")
    return sorted(path for path in envs.iterdir() if pattern.fullmatch(path.name) and not path.is_symlink())


def _listed(envs: Path, name: str) -> Sequence[Path]:
    try:
        lines = _record(envs, name).read_text("utf-8").splitlines()
    except OSError:
        return ()
    pattern = re.compile(rf"{re.escape(name)}-[0-9a-f]{{{DIGITS}}}")
    return [envs / line for line in lines if pattern.fullmatch(line)]


def _record(envs: Path, name: str) -> Path:
    return envs / f".{name}.versions"
