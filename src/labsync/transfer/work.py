"""Where the routes of one artifact read and write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from labsync.places import Advance, Content, Place, Reader, StoredPart, UnfinishedUpload, UploadJournal
from labsync.transfer.verify import DiskReader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from labsync.disk.base import Home
    from labsync.plan import Pack, Route


class MirrorBytes(Reader, Protocol):
    """The part of `mirrors.base.Mirror` that a transfer uses."""

    def write(self, key: str, content: Content, advance: Advance, journal: UploadJournal) -> None:
        """Store the content under `key`, as `Mirror.write` says."""


def _nothing(item: Route | Pack) -> None:
    del item


class NoJournal:
    """Remembers nothing: every upload begins anew."""

    def unfinished(self, key: str) -> UnfinishedUpload | None:
        """Return None."""
        del key
        return None

    def begin(self, key: str, sha256: str, upload_id: str, part_size: int) -> None:
        """Take no note."""

    def add(self, key: str, part: StoredPart) -> None:
        """Take no note."""

    def end(self, key: str) -> None:
        """Have nothing to forget."""


NO_JOURNAL = NoJournal()


@dataclass(frozen=True)
class Work:
    """Where the routes of one artifact read and write; a place is None when it must not be used.

    `fetched` is a folder where files named by their SHA-256 may lie that were read from the origin
    already; what is taken from there is moved. `on_written` is called, from any thread, after a
    route's or a pack's bytes are in the mirror; `journal` keeps unfinished uploads.
    """

    home: Home | None = None
    origin: Reader | None = None
    mirror: MirrorBytes | None = None
    on_written: Callable[[Route | Pack], None] = _nothing
    journal: UploadJournal = NO_JOURNAL
    fetched: Path | None = None

    def reader(self, place: Place) -> Reader | None:
        """Return what reads from a place."""
        if place == "origin":
            return self.origin
        if place == "mirror":
            return self.mirror
        return DiskReader(self.home) if self.home else None
