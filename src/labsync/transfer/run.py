"""What all routes of one execution share."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from labsync.events import BytesMoved
from labsync.transfer.retry import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from labsync.events import Observer
    from labsync.transfer.ledger import Ledger, Leg
    from labsync.transfer.pace import Pace
    from labsync.transfer.parts import Stages
    from labsync.transfer.retry import Clock, Limiter, RetryBudget
    from labsync.transfer.schedule import Task

TALLIED = 1 << 20  # bytes
TALLY_EVERY = 0.25  # seconds


class Hands(Protocol):
    """The threads of a run, as somebody sees them whose work several could share."""

    def lend(self, more: Callable[[], Task | None]) -> AbstractContextManager[None]:
        """While the context is open, ask `more` for a task whenever a thread has nothing else to do.

        `more` is called under a lock: it must be quick and must not wait.
        """

    def call(self) -> None:
        """Let threads that have nothing to do ask once more: there is something now."""


class NoHands:
    """Nobody has time."""

    def lend(self, more: Callable[[], Task | None]) -> AbstractContextManager[None]:
        """Never ask for a task."""
        del more
        return contextlib.nullcontext()

    def call(self) -> None:
        """Call nobody."""


@dataclass(frozen=True)
class Run:
    """The accounts, limits and stop sign of one execution; `check` raises InterruptedRunError."""

    ledger: Ledger
    stages: Stages
    observer: Observer
    budget: RetryBudget
    limiter: Limiter
    pace: Pace
    roll: Callable[[], float]
    check: Callable[[], None]
    clock: Clock = field(default_factory=SystemClock)
    hands: Hands = field(default_factory=NoHands)

    def moved(self, leg: Leg, count: int) -> None:
        """Account for bytes that travelled on a leg (negative: they have to travel again).

        Waits where a bandwidth limit wants it, and raises when the run is to stop.
        """
        self.ledger.moved(leg, count)
        self.observer(BytesMoved(count))
        if count > 0 and leg != "disk":
            self.pace.wait(count, self.check)
        self.check()

    def pause(self, seconds: float) -> None:
        """Wait where no thread can be given away; raises when the run is to stop."""
        until, nobody = self.clock.now() + seconds, threading.Condition()
        with nobody:
            while (left := until - self.clock.now()) > 0:
                self.check()
                self.clock.wait(nobody, left)
        self.check()


class Tally:
    """The bytes of one leg, accounted for by the mebibyte or four times a second: blocks may be small."""

    def __init__(self, run: Run, leg: Leg) -> None:
        self._run = run
        self._leg = leg
        self._count = 0
        self._since = time.monotonic()

    def add(self, count: int) -> None:
        """Take note of `count` bytes; may wait, and raise, as `Run.moved` does."""
        self._count += count
        if self._count >= TALLIED or time.monotonic() - self._since > TALLY_EVERY:
            self.flush()

    def flush(self) -> None:
        """Account for what was taken note of."""
        count, self._count, self._since = self._count, 0, time.monotonic()
        if count:
            self._run.moved(self._leg, count)
