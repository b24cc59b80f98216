"""Counts requests, because every one of them costs money and time."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Literal, TypeAlias

from labsync.report import MirrorRequests

Method: TypeAlias = Literal["LIST", "GET", "HEAD", "PUT", "POST", "DELETE"]


class RequestCounter:
    """How many requests of each kind were sent; safe for several threads."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._mutex = threading.Lock()

    def add(self, method: Method) -> None:
        """Count one request."""
        with self._mutex:
            self._counts[method] += 1

    def value(self) -> MirrorRequests:
        """Return the counts so far."""
        with self._mutex:
            return MirrorRequests(**self._counts)
