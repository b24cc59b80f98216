"""The durable mark of an artifact whose update has not ended: `.labsync/incomplete/<kind>/<name>`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labsync.atomic import create_bytes, disk_errors, fsync_dir

if TYPE_CHECKING:
    from pathlib import Path


class Marker:
    """Set before the first file of an update is published, cleared when all of it is there."""

    def __init__(self, state_dir: Path, artifact_name: str) -> None:
        self._path = state_dir.joinpath("incomplete", *artifact_name.split("/"))

    @property
    def is_set(self) -> bool:
        """Say whether an update has begun and not ended."""
        with disk_errors(self._path):
            return self._path.exists()

    def set(self) -> None:
        """Mark the artifact incomplete; setting it twice is fine."""
        if not self.is_set:
            create_bytes(self._path, b"")

    def clear(self) -> None:
        """Take the mark away; nothing is written when there is none."""
        with disk_errors(self._path):
            try:
                self._path.unlink()
            except FileNotFoundError:
                return
            fsync_dir(self._path.parent)
