"""Part files: where bytes lie until they are proven, and who may write them.

```
<stage>/<sha256>.part             being written by whoever holds its flock; of its final size from the start
<stage>/<sha256>.blocks           which of its bytes have arrived (`journal.py`): the next run continues
<stage>/<sha256>.<8 hex>.part     small, or wanted a second time at once: no run continues it
```

A content of up to `WORTH` bytes has no journal: to fetch it again costs less than to keep one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import threading
import time
from typing import TYPE_CHECKING

from labsync.atomic import disk_errors, make_dirs
from labsync.errors import DiskError
from labsync.transfer import journal
from labsync.transfer.journal import Journal
from labsync.transfer.ranges import total

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from labsync.transfer.journal import Record
    from labsync.transfer.ranges import Extent

WORTH = 4 << 20
KEPT = 24 * 3600  # seconds that a part waits for a run that wants it
PROBE = 32 << 20  # bytes
CHEAP = 0.005  # seconds
_NAME = re.compile(r"(?P<sha256>[0-9a-f]{64})(?P<kind>\.[0-9a-f]{8}\.part|\.part|\.blocks)")
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_POSSIBLE = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV}


class Part:
    """A file under a stage folder that its holder alone writes, by `fd`; `arrived` is in it already.

    It stays behind for the next run as far as its journal goes, unless it was published or given up.
    """

    def __init__(self, path: Path, fd: int, size: int, kept: Journal | None) -> None:
        self.path = path
        self.fd = fd
        self._size = size
        self._journal = kept

    @property
    def arrived(self) -> tuple[Extent, ...]:
        """The bytes that the journal knows of."""
        return self._journal.extents if self._journal else ()

    @property
    def is_resumable(self) -> bool:
        """Say whether another run can continue it."""
        return self._journal is not None

    def prepare(self) -> None:
        """Take over what a killed run left, and reserve the room for the rest.

        Raises DiskError where it does not fit, OSError for everything else.
        """
        if self._journal:
            self._journal.load()
            if os.fstat(self.fd).st_size != self._size:
                self._journal.remove()
        if not self.arrived:
            os.ftruncate(self.fd, 0)
        try:
            self._reserve()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            # Another file may still fit, so this is not the error of a disk that is full.
            raise DiskError(
                f"`{self.path}` does not fit: it will have {self._size:,} bytes",
                path=str(self.path),
                hint="free some space: `labsync du`",
            ) from None
        os.ftruncate(self.fd, self._size)

    def _reserve(self) -> None:
        """Reserve the room for all bytes: a disk that is too full is found before the first one comes.

        Where reserving costs as much as writing (a memory disk, an emulation) a look has to do.
        """
        taken, disk = os.fstat(self.fd).st_blocks * 512, os.fstatvfs(self.fd)
        if self._size - taken > disk.f_bavail * disk.f_frsize:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            begin = time.monotonic()
            os.posix_fallocate(self.fd, 0, min(self._size, PROBE))
            if self._size > PROBE and time.monotonic() - begin < CHEAP:
                os.posix_fallocate(self.fd, PROBE, self._size - PROBE)
        except OSError as error:
            if error.errno not in _NOT_POSSIBLE:
                raise

    def keep(self, extents: Collection[Extent]) -> None:
        """Make all that was written durable and note that it has these bytes. Raises OSError."""
        try:
            os.fdatasync(self.fd)
        except OSError:  # what was lost cannot be known: https://wiki.postgresql.org/wiki/Fsync_Errors
            self.give_up()
            raise
        if self._journal and extents:
            self._journal.add(extents)

    def forget(self) -> None:
        """Begin anew. Raises OSError."""
        if self._journal:
            self._journal.remove()

    def give_up(self) -> None:
        """Let nobody continue this part."""
        self.forget()
        self._journal = None

    def adopt(self, whole: Path) -> bool:
        """Become the file `whole`, which loses its name; False, and no change, where that cannot be.

        The descriptor and the lock go on to that file: a lock belongs to a file and not to its name.
        """
        try:
            fd = os.open(whole, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            if os.fstat(fd).st_size != self._size:
                return False
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.replace(whole, self.path)
            os.dup2(fd, self.fd, inheritable=False)
        except OSError:  # another device, or another process was first
            return False
        finally:
            os.close(fd)
        return True

    def leave(self) -> None:
        """Remove what no run can continue; a name that is somebody else's by now stays."""
        with contextlib.suppress(FileNotFoundError):
            if self.path.stat().st_ino == os.fstat(self.fd).st_ino:
                if self.arrived:
                    return
                self.path.unlink()
        self.forget()


@contextlib.contextmanager
def claim(folder: Path, sha256: str, size: int) -> Iterator[Part]:
    """Give the part file of a content to this caller, prepared for its `size` bytes.

    It is `<sha256>.part`, with what killed runs brought into it; while somebody else, here or in
    another process, works on that one, a name of its own, and also where there are no locks to tell.
    Call `Stages.enter` first.
    """
    path = folder / f"{sha256}.part"
    kept = Journal(folder / f"{sha256}.blocks", sha256, size) if size > WORTH else None
    with disk_errors(folder):
        fd = _lock(path)
        if fd is None:
            path, kept = _own_name(folder, sha256), None
            fd = os.open(path, _FLAGS | os.O_EXCL, 0o644)
    part = Part(path, fd, size, kept)
    try:
        with disk_errors(path):
            part.prepare()
        yield part
    finally:
        try:
            with disk_errors(path):
                part.leave()
        finally:
            os.close(part.fd)


@contextlib.contextmanager
def scratch(folder: Path, sha256: str) -> Iterator[Path]:
    """Give a new, empty file to this caller, and remove what is left of it afterwards.

    No descriptor stays open for it. Call `Stages.enter` first.
    """
    path = _own_name(folder, sha256)
    with disk_errors(path):
        fd = os.open(path, _FLAGS | os.O_EXCL, 0o644)
        inode = os.fstat(fd).st_ino
        os.close(fd)
    try:
        yield path
    finally:
        with disk_errors(path), contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == inode:
                path.unlink()


@contextlib.contextmanager
def reopen(path: Path, size: int) -> Iterator[Part]:
    """Open a file that `scratch` gave, prepared for `size` bytes, which no run continues."""
    with disk_errors(path):
        part = Part(path, os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), size, None)
    try:
        with disk_errors(path):
            part.prepare()
        yield part
    finally:
        os.close(part.fd)


def _own_name(folder: Path, sha256: str) -> Path:
    return folder / f"{sha256}.{secrets.token_hex(4)}.part"


def _lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock of the file at `path`, None when that cannot be had."""
    while True:
        fd = os.open(path, _FLAGS, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its holder may have renamed or removed the file between our open and our lock.
            if path.stat().st_ino == os.fstat(fd).st_ino:
                return fd
        except FileNotFoundError:
            pass
        except OSError as error:  # another one holds it, or the file system has no locks
            if not isinstance(error, BlockingIOError) and not os.fstat(fd).st_size:
                path.unlink(missing_ok=True)
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def arrived(folder: Path, sha256: str) -> int:
    """Return how many bytes of a content killed runs brought into its part file; the next run has them."""
    record = _record(folder, sha256)
    return total(record.extents) if record else 0


def held(folder: Path, sha256: str) -> int:
    """Return how many bytes of the disk that part file has taken already: all of its size, as a rule."""
    record = _record(folder, sha256)
    if record is None:
        return 0
    try:
        return min(record.size, (folder / f"{sha256}.part").stat().st_blocks * 512)
    except OSError:
        return 0


def _record(folder: Path, sha256: str) -> Record | None:
    """Return the journal of a part that can be continued."""
    record = journal.read(folder / f"{sha256}.blocks")
    if record is None or record.sha256 != sha256 or not record.extents:
        return None
    try:
        return record if (folder / f"{sha256}.part").stat().st_size == record.size else None
    except OSError:
        return None


class Stages:
    """The stage folders in use; the first to use one removes what is of no use from it.

    A shared lock on the folder itself says that it is in use. Parts of `wanted` contents are kept as
    long as they can be continued, others for a day. Safe for threads; `close` at the end.
    """

    def __init__(self, wanted: Collection[str] = ()) -> None:
        self._wanted = wanted
        self._held: dict[Path, tuple[int, int]] = {}
        self._mutex = threading.Lock()

    def enter(self, folder: Path) -> int:
        """Make the folder, take part in its use, and return the number of its device."""
        if known := self._held.get(folder):
            return known[1]
        with self._mutex, disk_errors(folder):
            if folder not in self._held:
                make_dirs(folder)
                fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._take_part(folder, fd)
                self._held[folder] = (fd, os.fstat(fd).st_dev)  # last: whoever sees it need not wait
            return self._held[folder][1]

    def close(self) -> None:
        """Let go of every folder."""
        with self._mutex:
            for fd, _ in self._held.values():
                os.close(fd)
            self._held.clear()

    def _take_part(self, folder: Path, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # in use, or a file system that does not lock folders: then nothing is swept
            pass
        else:
            self._sweep(folder)
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_SH)

    def _sweep(self, folder: Path) -> None:
        with os.scandir(folder) as found:
            names = [item.name for item in found if item.is_file(follow_symlinks=False)]
        for name in names:
            match = _NAME.fullmatch(name)
            if match and not self._is_wanted(folder, match["sha256"], match["kind"]):
                (folder / name).unlink(missing_ok=True)

    def _is_wanted(self, folder: Path, sha256: str, kind: str) -> bool:
        if kind not in {".part", ".blocks"} or not _record(folder, sha256):
            return False
        if sha256 in self._wanted:
            return True
        return time.time() - (folder / f"{sha256}.part").stat().st_mtime < KEPT
