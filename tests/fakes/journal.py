"""A journal of uploads in memory, which outlives a run that a test ends in the middle."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from labsync.places import StoredPart, UnfinishedUpload


@dataclass
class Entry:
    sha256: str
    id: str
    part_size: int
    parts: dict[int, StoredPart] = field(default_factory=dict)


class MemoryJournal:
    """A `places.UploadJournal`; `uploads` are the unfinished ones by key, `begun` counts all."""

    def __init__(self) -> None:
        self.uploads: dict[str, Entry] = {}
        self.begun = 0
        self._mutex = threading.Lock()

    def unfinished(self, key: str) -> UnfinishedUpload | None:
        with self._mutex:
            entry = self.uploads.get(key)
            parts = tuple(entry.parts[number] for number in sorted(entry.parts)) if entry else ()
            return UnfinishedUpload(entry.id, entry.part_size, parts) if entry else None

    def begin(self, key: str, sha256: str, upload_id: str, part_size: int) -> None:
        with self._mutex:
            self.begun += 1
            self.uploads[key] = Entry(sha256, upload_id, part_size)

    def add(self, key: str, part: StoredPart) -> None:
        with self._mutex:
            self.uploads[key].parts[part.number] = part

    def end(self, key: str) -> None:
        with self._mutex:
            self.uploads.pop(key, None)
