"""What went out to the mirror under one key: counted once, however often it had to be sent."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labsync.places import UploadJournal
    from labsync.transfer.run import Run


class Sent:
    """Accounts for the bytes of one content's write; safe for several threads."""

    def __init__(self, run: Run, key: str, size: int, journal: UploadJournal) -> None:
        self._run = run
        self._key = key
        self._size = size
        self._journal = journal
        self._before = stored(journal, key, size)
        self._count = 0
        self._mutex = threading.Lock()

    def advance(self, count: int) -> None:
        """Take note of bytes that went out, or with a negative count have to go out again."""
        with self._mutex:
            self._count += count
        self._run.moved("to_mirror", count)

    def rewind(self) -> None:
        """Take it that the write begins again; parts that the server has are not sent again."""
        kept = max(0, stored(self._journal, self._key, self._size) - self._before)
        with self._mutex:
            lost, self._count = self._count - kept, kept
        if lost > 0:
            self._run.moved("to_mirror", -lost)


def stored(journal: UploadJournal, key: str, size: int) -> int:
    """Return how many bytes of an unfinished upload the server has, as far as the journal knows."""
    upload = journal.unfinished(key)
    if upload is None:
        return 0
    return sum(min(upload.part_size, size - (part.number - 1) * upload.part_size) for part in upload.parts)
