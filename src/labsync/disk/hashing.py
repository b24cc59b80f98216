"""Digests of files on the disk: from memory while their stat is unchanged, else by reading them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from labsync.atomic import disk_errors
from labsync.digest import BLOCK, sha256_stream
from labsync.errors import DiskError, LockedError
from labsync.state import Observed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labsync.state import Seen, State

ATTEMPTS = 3
THREADS = 4
BIG = 1 << 20  # bytes; below, a thread costs more than it gives


class Looked(NamedTuple):
    """A regular file as a walk found it: where, under which key of the state, with which stat."""

    path: str
    key: str
    stat: os.stat_result


class Digested(NamedTuple):
    """A file's SHA-256 and the stat it was computed under."""

    sha256: str
    stat: os.stat_result


def digests(files: Mapping[str, Looked], seen: Mapping[str, Seen], state: State) -> dict[str, Digested]:
    """Return the digests of the files by the mapping's own keys; a file that vanished is left out.

    What had to be read is remembered, unless its stat proves nothing. Raises DiskError for a file
    that cannot be read: it is never taken for an absent one.
    """
    found: dict[str, Digested] = {}
    to_read: list[tuple[str, Looked]] = []
    for name, looked in files.items():
        known = seen.get(looked.key)
        if known is not None and known.matches(looked.stat):
            found[name] = Digested(known.sha256, looked.stat)
        else:
            to_read.append((name, looked))
    observed = [(name, item) for name, item in _read_all(to_read) if item is not None]
    found.update({name: Digested(item.sha256, item.stat) for name, item in observed})
    # A full disk, or another process that holds the memory, must not stop anyone from looking.
    with contextlib.suppress(DiskError, LockedError):
        state.remember_all(item for _, item in observed)
    return found


def _read_all(files: list[tuple[str, Looked]]) -> list[tuple[str, Observed | None]]:
    small = [item for item in files if item[1].stat.st_size < BIG]
    big = [item for item in files if item[1].stat.st_size >= BIG]
    done = [(name, hash_file(looked.path, looked.key)) for name, looked in small]
    if not big:
        return done
    with ThreadPoolExecutor(min(THREADS, len(big))) as pool:
        hashed = pool.map(lambda item: hash_file(item[1].path, item[1].key), big)
        return done + [(name, item) for (name, _), item in zip(big, hashed, strict=True)]


def hash_file(path: str, key: str) -> Observed | None:
    """Return the digest of a file with the stat that held while it was read, None when it is gone.

    A file that keeps changing is reported as last read, in a form that is never remembered. Links are
    not followed, and a pipe that took the file's place does not hang.
    """
    item: Observed | None = None
    for attempt in range(ATTEMPTS):
        try:
            item, is_stable = _hash_once(path, key)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.EIO and attempt + 1 < ATTEMPTS:
                continue
            with disk_errors(Path(path)):
                raise
        if is_stable:
            break
    return item


def _hash_once(path: str, key: str) -> tuple[Observed, bool]:
    since = time.time_ns()
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb", buffering=0) as file:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise FileNotFoundError(errno.ENOENT, "it is not a regular file any more", path)
        sha256, size = sha256_stream(iter(lambda: file.read(BLOCK), b""))
        after = os.fstat(fd)
    is_stable = size == after.st_size and (before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_mtime_ns,
        after.st_ctime_ns,
    )
    return Observed(key, after, sha256, since if is_stable else 0), is_stable


def remember_placed(state: State, placed: Looked, sha256: str, since: int) -> None:
    """Remember verified bytes that a rename just made visible; `placed.stat` is the staged file's.

    A writer may have been quick: then the stat is another one, and the next inventory reads the file.
    """
    with contextlib.suppress(OSError, DiskError, LockedError):
        after = os.lstat(placed.path)
        if (after.st_ino, after.st_mtime_ns) == (placed.stat.st_ino, placed.stat.st_mtime_ns):
            state.remember_all([Observed(placed.key, after, sha256, since)])
