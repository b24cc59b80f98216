"""Bytes that `lock` had to read to know their digest; `pull` takes them before it asks the origin again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labsync import atomic

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from labsync.places import Advance, Reader, Ref
    from labsync.snapshot import FileEntry

BLOCK = 1 << 20


class FetchedFirst:
    """A reader that looks into the folder of fetched bytes, named by SHA-256, before it asks its origin.

    What lies there was read from the origin once; like everything it is verified by the engine.
    """

    def __init__(self, origin: Reader, folder: Path) -> None:
        self._origin = origin
        self._folder = folder

    def read(self, ref: Ref, entry: FileEntry, into: Path, start: int, advance: Advance) -> None:
        """Fulfil the contract of `Reader.read`."""
        fetched = self._folder / entry.sha256
        if not fetched.is_file() or fetched.stat().st_size != entry.size:
            self._origin.read(ref, entry, into, start, advance)
            return
        with (
            atomic.disk_errors(into),
            fetched.open("rb") as source,
            into.open("r+b" if start else "wb") as target,
        ):
            source.seek(start)
            target.seek(start)
            for block in iter(lambda: source.read(BLOCK), b""):
                target.write(block)
                advance(len(block))


def drop(folder: Path, entries: Iterable[FileEntry]) -> None:
    """Remove fetched bytes that have found their place."""
    for entry in entries:
        (folder / entry.sha256).unlink(missing_ok=True)
