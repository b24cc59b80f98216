"""Where the routes of one artifact read and write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from labsync.places import Advance, Place, Reader
from labsync.transfer.verify import DiskReader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from labsync.disk.base import Home
    from labsync.plan import Route
    from labsync.snapshot import FileEntry


class MirrorBytes(Reader, Protocol):
    """The part of `mirrors.base.Mirror` that a transfer uses."""

    def write(self, key: str, entry: FileEntry, staged: Path, advance: Advance) -> None:
        """Store the bytes of `staged` under `key`, as `Mirror.write` says."""


def _nothing(route: Route) -> None:
    del route


@dataclass(frozen=True)
class Work:
    """Where the routes of one artifact read and write; a place is None when it must not be used.

    `stage` is a folder for the part files of routes that publish nothing on the disk. `on_written`
    is called, from any thread, after a route's bytes are in the mirror.
    """

    stage: Path
    home: Home | None = None
    origin: Reader | None = None
    mirror: MirrorBytes | None = None
    on_written: Callable[[Route], None] = _nothing

    def reader(self, place: Place) -> Reader | None:
        """Return what reads from a place."""
        if place == "origin":
            return self.origin
        if place == "mirror":
            return self.mirror
        return DiskReader(self.home) if self.home else None
