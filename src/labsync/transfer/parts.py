"""Part files: where bytes lie until they are proven, and who may write them.

```
<stage>/<sha256>.part             being written by whoever holds its flock
<stage>/<sha256>.<8 hex>.part     the same content, wanted a second time at once
```
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import threading
from typing import TYPE_CHECKING

from labsync.atomic import disk_errors, make_dirs
from labsync.errors import DiskError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PART = re.compile(r"[0-9a-f]{64}(\.[0-9a-f]{8})?\.part")


class Part:
    """A file under a stage folder that its holder alone writes; `arrived` bytes of it are good."""

    def __init__(self, path: Path, inode: int) -> None:
        self.path = path
        self.arrived = 0
        self._inode = inode

    def remove(self) -> None:
        """Remove the part, unless it was published or the name is somebody else's by now."""
        with contextlib.suppress(FileNotFoundError):
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()


@contextlib.contextmanager
def claim(folder: Path, sha256: str, *, alone: bool = False) -> Iterator[Part]:
    """Give a part file of a content to this caller, and remove what is left of it afterwards.

    It is `<sha256>.part`, begun anew where a killed run left one behind; while somebody else, here
    or in another process, works on that one, a name of its own. With `alone` it is a name of its
    own from the start, and no descriptor stays open for it. Call `Stages.enter` first.
    """
    path = folder / f"{sha256}.part"
    with disk_errors(folder):
        fd = None if alone else _lock(path)
        if fd is None:
            path = folder / f"{sha256}.{secrets.token_hex(4)}.part"
            fd = _lock(path)
    if fd is None:
        raise DiskError(f"`{path}` is locked by another process", path=str(path))
    part = Part(path, os.fstat(fd).st_ino)
    if alone:
        os.close(fd)
    try:
        yield part
    finally:
        try:
            with disk_errors(path):
                part.remove()
        finally:
            if not alone:
                os.close(fd)


def _lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock of the file at `path`, None when another holds it."""
    while True:
        fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its holder may have renamed or removed the file between our open and our lock.
            if path.stat().st_ino == os.fstat(fd).st_ino:
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


class Stages:
    """The stage folders in use; the first to use one removes what killed runs left in it.

    A shared lock on the folder itself says that it is in use. Safe for threads; `close` at the end.
    """

    def __init__(self) -> None:
        self._held: dict[Path, tuple[int, int]] = {}
        self._mutex = threading.Lock()

    def enter(self, folder: Path) -> int:
        """Make the folder, take part in its use, and return the number of its device."""
        with self._mutex, disk_errors(folder):
            if folder not in self._held:
                make_dirs(folder)
                fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._held[folder] = (fd, os.fstat(fd).st_dev)
                _take_part(folder, fd)
            return self._held[folder][1]

    def close(self) -> None:
        """Let go of every folder."""
        with self._mutex:
            for fd, _ in self._held.values():
                os.close(fd)
            self._held.clear()


def _take_part(folder: Path, fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # in use, or a file system that does not lock folders: then nothing is swept
        pass
    else:
        _sweep(folder)
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_SH)


def _sweep(folder: Path) -> None:
    with os.scandir(folder) as found:
        for item in found:
            if _PART.fullmatch(item.name) and item.is_file(follow_symlinks=False):
                os.unlink(item.path)
