"""The proof of bytes, whoever read them, and how files on the disk are read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from labsync.digest import BLOCK
from labsync.errors import DiskError, IntegrityError, NotFoundError
from labsync.names import escape

if TYPE_CHECKING:
    from pathlib import Path

    from labsync.disk.base import Home
    from labsync.places import Blocks, Ref
    from labsync.snapshot import FileEntry


class UnreadableError(DiskError):
    """A file on the disk cannot be read; another place may still have its bytes."""


def verify(entry: FileEntry, sha256: str) -> None:
    """Raise IntegrityError unless the digest is the entry's."""
    if sha256 != entry.sha256:
        raise IntegrityError(f"`{escape(entry.path)}` does not have the promised SHA-256", path=entry.path)


def unreadable(path: Path, error: OSError) -> UnreadableError:
    """Return the error that the file at `path` cannot be read."""
    return UnreadableError(f"`{escape(str(path))}` cannot be read: {error.strerror}", path=str(path))


class FileReader:
    """Reads one file of the disk, whatever the reference says."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, ref: Ref, entry: FileEntry, start: int = 0, stop: int | None = None) -> Blocks:
        """Yield the bytes as `places.Reader` says; the caller checks them.

        Raises UnreadableError where the file cannot be read, NotFoundError when it is gone, and
        IntegrityError when it has not the entry's size, or not any more.
        """
        del ref
        try:
            file = self._path.open("rb", buffering=0)
        except FileNotFoundError as error:
            raise NotFoundError(f"`{escape(str(self._path))}` disappeared", path=entry.path) from error
        except OSError as error:
            raise unreadable(self._path, error) from error
        with file:
            size = os.fstat(file.fileno()).st_size
            if 0 <= entry.size != size:
                raise self._changed(entry)
            left = (size if stop is None else stop) - start
            buffer = memoryview(bytearray(min(BLOCK, left)))
            while left:
                try:
                    count = os.preadv(file.fileno(), [buffer[: min(BLOCK, left)]], start)
                except OSError as error:
                    raise unreadable(self._path, error) from error
                if not count:
                    raise self._changed(entry)
                start, left = start + count, left - count
                yield buffer[:count]

    def _changed(self, entry: FileEntry) -> IntegrityError:
        where = escape(str(self._path))
        return IntegrityError(f"`{where}` does not have {entry.size} bytes", path=entry.path)


class DiskReader:
    """Reads an artifact's own files on the disk, for another name or for the mirror."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def read(self, ref: Ref, entry: FileEntry, start: int = 0, stop: int | None = None) -> Blocks:
        """Yield the bytes of a file as `FileReader` does."""
        return FileReader(self._home.source(ref.path)).read(ref, entry, start, stop)
