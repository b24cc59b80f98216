"""When a connection that still gives a byte now and then counts as stalled."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from labsync.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW = 30.0  # seconds
LEAST = 30 << 10  # bytes per window; a modem of 1996 gave three times as many


class Watch:
    """Watches one answer: `saw` raises UnavailableError when a whole window brought next to nothing.

    A socket's own timeout sees a silent server; this sees one that sends a byte a second. One thread
    uses it. `now` is a clock of the time that the other side was waited for: what the caller spends
    elsewhere, say on a slow disk or on its turn under a bandwidth limit, must not be in it.
    """

    def __init__(self, what: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._now = now
        self._since = now()
        self._bytes = 0

    def saw(self, count: int) -> None:
        """Take note of `count` bytes that just came in."""
        self._bytes += count
        if self._bytes >= LEAST:
            self._bytes = 0
            self._since = self._now()
        elif self._now() - self._since > WINDOW:
            raise UnavailableError(f"{self._what} stalled: {self._bytes} bytes in {WINDOW:.0f} seconds")
