"""Files of this machine as an origin, read without anything between them and the system."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from labsync.errors import InvalidError, UnavailableError
from labsync.origins.file_systems import BLOCK, file_error, other_size

if TYPE_CHECKING:
    from labsync.places import Blocks
    from labsync.snapshot import FileEntry

SCHEME = "file:"


def local_path(url: str) -> str:
    """Return the path of a `file:` address, which is not percent-encoded."""
    return url.removeprefix(SCHEME).removeprefix("//")


def read_local(url: str, entry: FileEntry, start: int, stop: int | None) -> Blocks:
    """Fulfil the contract of `Reader.read` for a file of this machine."""
    try:
        fd = os.open(local_path(url), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would wait
    except OSError as error:
        raise file_error(url, error) from error
    try:
        size = _size(fd, url)
        if 0 <= entry.size != size:
            raise other_size(url, entry)
        at, end = start, size if stop is None else stop
        while at < end:
            block = _pread(fd, url, min(BLOCK, end - at), at)
            if not block:
                raise UnavailableError(f"`{url}` became shorter while it was being read", path=entry.path)
            at += len(block)
            yield block
    finally:
        os.close(fd)


def _size(fd: int, url: str) -> int:
    found = os.fstat(fd)
    if stat.S_ISDIR(found.st_mode):
        raise file_error(url, IsADirectoryError())
    if not stat.S_ISREG(found.st_mode):
        raise InvalidError(f"`{url}` is not a regular file")
    return found.st_size


def _pread(fd: int, url: str, size: int, at: int) -> bytes:
    try:
        return os.pread(fd, size, at)
    except OSError as error:
        raise file_error(url, error) from error
