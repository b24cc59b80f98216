"""Digests of files on the disk: from memory while their stat is unchanged, else by reading them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from labsync.atomic import disk_errors
from labsync.digest import BLOCK, sha256_stream
from labsync.errors import DiskError, LockedError
from labsync.state import Observed, Stat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labsync.state import State

ATTEMPTS = 3
THREADS = 4
BIG = 1 << 20  # bytes; below, a thread costs more than it gives
AT_ONCE = 4096  # files; what was read is remembered after so many


class Looked(NamedTuple):
    """A regular file as a walk found it: where, under which key of the state, with which stat."""

    path: str
    key: str
    stat: Stat


class Digested(NamedTuple):
    """A file's SHA-256 and the stat it was computed under."""

    sha256: str
    stat: Stat


def hash_all(files: Sequence[Looked], state: State) -> list[Digested | None]:
    """Read the files and return their digests in order, None for one that vanished.

    What was read is remembered, unless its stat proves nothing. Raises DiskError for a file that
    cannot be read: it is never taken for an absent one.
    """
    found: list[Digested | None] = []
    for start in range(0, len(files), AT_ONCE):
        observed = _read_all(files[start : start + AT_ONCE])
        found += [item and Digested(item.sha256, item.stat) for item in observed]
        # A full disk, or another process that holds the memory, must not stop anyone from looking.
        with contextlib.suppress(DiskError, LockedError):
            state.remember_all(item for item in observed if item is not None)
    return found


def _read_all(files: Sequence[Looked]) -> list[Observed | None]:
    distinct = {looked.key: looked.path for looked in files}
    big = {looked.key: looked.path for looked in files if looked.stat.size >= BIG}
    done = {key: hash_file(path, key) for key, path in distinct.items() if key not in big}
    if big:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(THREADS, len(big))) as pool:
            done |= zip(big, pool.map(hash_file, big.values(), big), strict=True)
    return [done[looked.key] for looked in files]


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
    return Observed(key, Stat.of(after), sha256, since if is_stable else 0), is_stable
