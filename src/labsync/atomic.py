"""Old or new: every file labsync writes is staged beside, fsynced, renamed, and its folder fsynced."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from typing import TYPE_CHECKING

from labsync.errors import ConflictError, DiskError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

# linux/fs.h: FICLONE, _IOW(0x94, 9, int); https://man7.org/linux/man-pages/man2/ioctl_ficlone.2.html
_FICLONE = 0x40049409
_FULL = {errno.ENOSPC, errno.EDQUOT}
_UNWRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}
_EXHAUSTED = {errno.EMFILE, errno.ENFILE}


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Translate the OSErrors of the block into DiskError (9), naming the cause and `path`."""
    try:
        yield
    except OSError as error:
        where = str(error.filename or path)
        if error.errno in _FULL:
            raise DiskError(
                f"no space left while writing `{where}`", path=where, hint="free some space: `labsync du`"
            ) from error
        if error.errno in _UNWRITABLE:
            raise DiskError(
                f"`{where}` cannot be used: {error.strerror}", path=where, hint="check its owner and mode"
            ) from error
        if error.errno in _EXHAUSTED:
            raise DiskError(
                "too many open files", path=where, hint="raise `ulimit -n` or lower `--jobs`"
            ) from error
        raise DiskError(f"`{where}`: {error.strerror or error}", path=where) from error


def fsync_dir(folder: Path) -> None:
    """Make the folder's entries durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_file(path: Path) -> None:
    """Make the file's bytes durable; an error means they are lost and is never retried."""
    fd = os.open(path, os.O_RDONLY)
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
        staged = _write_staged(path, data, mode)
        try:
            rename(staged, path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise


def create_bytes(path: Path, data: bytes, mode: int = 0o644) -> bool:
    """Create the file at `path` whole; False, and no change, when something is there already.

    `link(2)` is atomic where `O_EXCL` would show a half-written file.
    """
    with disk_errors(path):
        make_dirs(path.parent)
        staged = _write_staged(path, data, mode)
        try:
            os.link(staged, path)
        except FileExistsError:
            return False
        finally:
            staged.unlink(missing_ok=True)
        fsync_dir(path.parent)
        return True


def _write_staged(path: Path, data: bytes, mode: int) -> Path:
    staged = path.with_name(f".{secrets.token_hex(8)}.labsync-new")
    fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    return staged


def rename(staged: Path, path: Path) -> None:
    """Rename fsynced bytes over `path` and make the name durable; raises OSError as `os.replace`."""
    os.replace(staged, path)
    fsync_dir(path.parent)


def place(staged: Path, path: Path) -> None:
    """Give fsynced bytes the name `path` without ever replacing anything; consumes `staged`.

    Raises ConflictError when something is there already, OSError as `os.link` otherwise.
    """
    try:
        os.link(staged, path)
    except FileExistsError as error:
        raise ConflictError(f"`{path}` appeared meanwhile", path=str(path)) from error
    staged.unlink()
    fsync_dir(path.parent)


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


def refuse_links(root: Path, relative: str) -> None:
    """Raise RefusedError (12) when a folder on the way from `root` to `relative` is a link.

    `root` itself may be one: it is the user's own choice.
    """
    folder = root
    for segment in relative.split("/")[:-1]:
        folder = folder / segment
        if folder.is_symlink():
            raise RefusedError(
                f"`{folder}` is a link, and what it points to is not labsync's to write",
                path=str(folder),
                hint="replace the link by a folder",
            )
        if folder.exists() and not folder.is_dir():
            raise ConflictError(
                f"`{folder}` is a file where a folder must go", path=str(folder), hint="move it away"
            )
