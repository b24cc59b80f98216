"""How fast a run may move bytes over the network."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_WAIT = 0.2


class Pace:
    """A bandwidth limit for all threads of a run, `limit` in bytes per second; infinite by default.

    Each block gets the stretch of time that it takes at the limit, in the order of the calls and one
    after the other, so that threads take turns and time in which nothing moved is never made up for.
    A call returns when its block's stretch begins: the next block may travel during it, which lets a
    single thread reach the limit. So what has passed in any `t` seconds is at most `limit * t` and one
    block more.
    """

    def __init__(
        self,
        limit: float = math.inf,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._limit = limit
        self._now = now
        self._sleep = sleep
        self._free_at = -math.inf
        self._mutex = threading.Lock()

    def wait(self, count: int, check: Callable[[], None]) -> None:
        """Take note of `count` bytes that moved, and wait for their turn; `check` may raise to stop."""
        if self._limit == math.inf:
            return
        with self._mutex:
            begin = max(self._free_at, self._now())
            self._free_at = begin + count / self._limit
        while (left := begin - self._now()) > 0:
            check()
            self._sleep(min(left, LONGEST_WAIT))
