"""Old or new: every file labsync writes is staged beside, fsynced, renamed, and its folder fsynced."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import stat
from typing import TYPE_CHECKING

from labsync import staging
from labsync.errors import ConflictError, DiskError, RefusedError

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Iterator
    from os import PathLike
    from pathlib import Path
    from typing import BinaryIO

# linux/fs.h: FICLONE, _IOW(0x94, 9, int); https://man7.org/linux/man-pages/man2/ioctl_ficlone.2.html
_FICLONE = 0x40049409
NEW = ".labsync-new"  # what is staged beside its target ends so
_SHOWN = 32  # characters of the target's name in that of its stage, which may have 255 bytes
_FULL = {errno.ENOSPC, errno.EDQUOT}
_UNWRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}
_EXHAUSTED = {errno.EMFILE, errno.ENFILE}
# linux/fs.h; https://man7.org/linux/man-pages/man2/rename.2.html
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
# What it answers where the kernel or the file system does not know the flag.
_NO_SUCH_RENAME = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}
# https://man7.org/linux/man-pages/man2/sync_file_range.2.html
_SYNC_FILE_RANGE_WRITE = 2


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Translate the OSErrors of the block into DiskError (9), naming the cause and `path`."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, path) from error


def disk_error(error: OSError, path: str | PathLike[str]) -> DiskError:
    """Return the DiskError (9) that an OSError means, naming the cause and `path`."""
    where = str(error.filename or path)
    if error.errno in _FULL:
        what, hint = f"no {_lacking(where)} left while writing `{where}`", "free some space: `labsync du`"
    elif error.errno in _UNWRITABLE:
        what, hint = f"`{where}` cannot be used: {error.strerror}", "check its owner and mode"
    elif error.errno in _EXHAUSTED:
        what, hint = "too many open files", "raise `ulimit -n` or lower `--jobs`"
    else:
        what, hint = f"`{where}`: {error.strerror or error}", ""
    return DiskError(what, path=where, hint=hint)


def _lacking(path: str) -> str:
    """Return what a full file system lacks: names can run out before bytes do."""
    with contextlib.suppress(OSError):
        disk = os.statvfs(os.path.dirname(path) or ".")
        if disk.f_files and not disk.f_favail:
            return "inodes (room for names)"
    return "space"


def fsync_dir(folder: str | PathLike[str]) -> None:
    """Make the folder's entries durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_dirs(folder: Path) -> None:
    """Create the folder and its missing parents, durably."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for child in reversed(missing):
        child.mkdir(exist_ok=True)
        fsync_dir(child.parent)


def write_bytes(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace the file at `path` by one with these bytes; raises DiskError."""
    with disk_errors(path):
        make_dirs(path.parent)
        with _staged(path, data, mode) as staged:
            rename(staged, path)


def create_bytes(path: Path, data: bytes, mode: int = 0o644) -> bool:
    """Create the file at `path` whole; False, and no change, when something is there already.

    A rename is atomic where `O_EXCL` would show a half-written file.
    """
    with disk_errors(path):
        make_dirs(path.parent)
        with _staged(path, data, mode) as staged:
            if not rename_new(staged, path):
                return False
        fsync_dir(path.parent)
        return True


@contextlib.contextmanager
def _staged(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """Give the bytes as a durable file beside `path`; what killed writers of it left is removed.

    It stays open, and so locked, until it has its name: other writers take what is unlocked for left over.
    """
    prefix = f".{path.name[:_SHOWN]}."
    staging.sweep(path.parent, prefix=prefix, suffix=NEW)
    staged, fd = staging.open_staged(path.parent, mode, prefix=prefix, suffix=NEW)
    with open(fd, "wb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            yield staged
        finally:
            staged.unlink(missing_ok=True)


def rename(staged: Path, path: Path) -> None:
    """Rename fsynced bytes over `path` and make the name durable; raises OSError as `os.replace`."""
    os.replace(staged, path)
    fsync_dir(path.parent)


def rename_new(staged: str | PathLike[str], path: str | PathLike[str]) -> bool:
    """Give `staged` the name `path`; False, and no change, when something has that name already.

    Nothing is ever replaced. Neither bytes nor name are made durable. Raises OSError as `os.rename`.
    """
    number = _renameat2(staged, path)
    if number == errno.EEXIST:
        return False
    if number in _NO_SUCH_RENAME:
        try:
            os.link(staged, path)
        except FileExistsError:
            return False
        os.unlink(staged)
    elif number:
        raise OSError(number, os.strerror(number), os.fspath(path))
    return True


def _renameat2(staged: str | PathLike[str], path: str | PathLike[str]) -> int:
    """Rename without replacing in one step; return the error's number, 0 for success."""
    import ctypes

    try:
        call = _libc().renameat2
    except AttributeError:
        return errno.ENOSYS
    old, new = os.fsencode(staged), os.fsencode(path)
    return ctypes.get_errno() if call(_AT_FDCWD, old, _AT_FDCWD, new, _RENAME_NOREPLACE) else 0


def start_writing(fd: int) -> None:
    """Let the kernel begin to write the file's bytes to the disk, without waiting; only a hint.

    Done for several files before the first of them is fsynced it saves half of the time: the file
    system then has the places of all bytes to note at once.
    """
    call = getattr(_libc(), "sync_file_range", None)
    if call is not None:
        call(fd, 0, 0, _SYNC_FILE_RANGE_WRITE)


@functools.cache
def _libc() -> ctypes.CDLL:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.suppress(AttributeError):
        libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return libc


def copy(source: Path, target: Path) -> None:
    """Copy the bytes to a new fsynced file, sharing blocks where the file system can (reflink)."""
    with source.open("rb") as reader, target.open("wb") as writer:
        if not share_blocks(reader, writer):
            shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())


def share_blocks(reader: BinaryIO, writer: BinaryIO) -> bool:
    """Give the empty file `writer` the blocks of `reader` (reflink); False where that is impossible."""
    import fcntl

    try:
        fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
    except OSError:
        return False
    return True


def refuse_links(root: Path, relative: str) -> bool:
    """Raise RefusedError (12) when a folder on the way from `root` to `relative` is a link.

    `root` itself may be one: it is the user's own choice. Returns whether all the folders are there.
    """
    folder = str(root)
    for segment in relative.split("/")[:-1]:
        folder = f"{folder}/{segment}"
        try:
            mode = os.lstat(folder).st_mode
        except FileNotFoundError:
            return False
        if stat.S_ISLNK(mode):
            raise RefusedError(
                f"`{folder}` is a link, and what it points to is not labsync's to write",
                path=folder,
                hint="replace the link by a folder",
            )
        if not stat.S_ISDIR(mode):
            raise ConflictError(
                f"`{folder}` is a file where a folder must go", path=folder, hint="move it away"
            )
    return True
