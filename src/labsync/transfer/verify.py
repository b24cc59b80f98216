"""The proof of bytes: nothing goes on before size and SHA-256 are right, whoever read them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from labsync.atomic import disk_errors
from labsync.digest import BLOCK
from labsync.errors import DiskError, IntegrityError, NotFoundError
from labsync.names import escape

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from labsync.disk.base import Home
    from labsync.places import Advance, Ref
    from labsync.snapshot import FileEntry


class UnreadableError(DiskError):
    """A file on the disk cannot be read; another place may still have its bytes."""


def verify(path: Path, entry: FileEntry, check: Callable[[], None]) -> None:
    """Raise IntegrityError unless the file has exactly the size and the SHA-256 of `entry`.

    The bytes are read back from the file, so that nothing a reader did can stand between what was
    hashed and what is published. `check` is called before every block and may raise to stop.
    """
    digest, size = hashlib.sha256(), 0
    with disk_errors(path), path.open("rb") as file:
        for block in iter(lambda: file.read(BLOCK), b""):
            check()
            digest.update(block)
            size += len(block)
    name = escape(entry.path)
    if size != entry.size:
        raise IntegrityError(f"`{name}` has {size} bytes instead of {entry.size}", path=entry.path)
    if digest.hexdigest() != entry.sha256:
        raise IntegrityError(f"`{name}` does not have the promised SHA-256", path=entry.path)


class DiskReader:
    """Reads an artifact's own files on the disk, for another name or for the mirror."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def read(self, ref: Ref, entry: FileEntry, into: Path, start: int, advance: Advance) -> None:
        """Copy the bytes from `start` as `places.Reader` says; the caller checks what arrived.

        Raises UnreadableError where the file cannot be read, NotFoundError when it is gone.
        """
        source = self._home.source(ref.path)
        try:
            file = source.open("rb")
        except FileNotFoundError as error:
            raise NotFoundError(f"`{escape(str(source))}` disappeared", path=entry.path) from error
        except OSError as error:
            raise _unreadable(source, error) from error
        with file, disk_errors(into), into.open("r+b" if start else "wb") as target:
            file.seek(start)
            target.seek(start)
            left = entry.size - start
            while left and (block := _block(file.read, source, min(BLOCK, left))):
                target.write(block)
                left -= len(block)
                advance(len(block))
            if _block(file.read, source, 1):
                raise IntegrityError(f"`{escape(str(source))}` has grown", path=entry.path)


def _block(read: Callable[[int], bytes], source: Path, size: int) -> bytes:
    try:
        return read(size)
    except OSError as error:
        raise _unreadable(source, error) from error


def _unreadable(source: Path, error: OSError) -> UnreadableError:
    return UnreadableError(f"`{escape(str(source))}` cannot be read: {error.strerror}", path=str(source))
