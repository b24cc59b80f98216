"""The guard's loop: look, push what is settled, wait; more often as the end comes near, then stop.

It works with a clock, with rounds that look and push, and with a journal that are given to it, so that
a session of hours runs in a test within a moment.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from labsync.errors import ExitCode
from labsync.guard.phases import Phase, rhythm

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from labsync.guard.ending import Ending
    from labsync.guard.phases import Rhythm
    from labsync.report import ErrorReport


class Clock(Protocol):
    """Time as the guard knows it, in seconds of `CLOCK_BOOTTIME`."""

    def now(self) -> float:
        """Return the time."""

    def wait(self, seconds: float) -> None:
        """Wait, or return earlier when there is something to look at."""

    def alarm(self, at: Callable[[], float], ring: Callable[[], None]) -> AbstractContextManager[None]:
        """While the context is open, call `ring` once when the time that `at` tells has come."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a round is to do: look; `push` what is settled; `ask` the mirror even when nothing is.

    It may send for `seconds`. Something settles that rests for `settle`, less when it has been waited
    for longer than an `interval`. When time `is_short`, what is most valuable goes first by itself.
    `stop` is set when the time is over.
    """

    push: bool
    ask: bool
    seconds: float
    settle: float
    interval: float
    is_short: bool
    stop: threading.Event


@dataclass(frozen=True, slots=True)
class Safe:
    """What the mirror has of an artifact: the snapshot that its newest head names."""

    artifact: str
    snapshot: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """Something that is on this disk alone, and why; `ready_at` is when it may go if nothing changes."""

    artifact: str
    path: str
    bytes: int
    reason: str
    ready_at: float = math.inf


@dataclass(frozen=True, slots=True)
class Round:
    """What a round found and did; `rate` are the bytes per second that the mirror took lately.

    `largest` is the size of the largest checkpoint that was seen. `again`: something changed while it
    was sent, so that another try is worth it.
    """

    pushed: bool = False
    safe: tuple[Safe, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    errors: tuple[ErrorReport, ...] = ()
    sent: int = 0
    rate: float = 0.0
    largest: int = 0
    again: bool = False


class Rounds(Protocol):
    """Looks at the project and pushes."""

    def round(self, order: Order) -> Round:
        """Look, and push what is settled where the order says so.

        Deliberate failures are in the value. Without `push`, and with nothing new, the mirror is not
        asked.
        """


class Chronicle(Protocol):
    """Is told what happens, and makes it durable where that matters."""

    def entered(self, phase: Phase, ending: Ending) -> None:
        """Take note that the guard enters a phase, or that the end was moved."""

    def did(self, phase: Phase, done: Round, next_push: float) -> None:
        """Take note of a round that has ended; the next one that pushes is due at an instant."""

    def ended(self, reason: str, exit_code: ExitCode, last: Round) -> None:
        """Take note that the guard ends."""


@dataclass
class Guard:
    """One run of the guard.

    `interval` and `refresh` are asked before each round: how often to push, and whether the end was
    moved. `on_drain` lets the trainer know, once.
    """

    rounds: Rounds
    clock: Clock
    ending: Ending
    chronicle: Chronicle
    interval: Callable[[], float]
    on_drain: Callable[[], None] = lambda: None
    refresh: Callable[[], None] = lambda: None
    _last: Round = field(default_factory=Round)
    _due: float = -math.inf  # the next push at an interval's end
    _soon: float = math.inf  # one before that, for what is about to settle

    def run(self) -> ExitCode:
        """Guard until the end, and return the exit code that it means."""
        told, drained = None, False
        while True:
            self.refresh()
            now = self.clock.now()
            phase = self.ending.phase(now)
            if (state := (phase, self.ending.deadline)) != told:
                self.chronicle.entered(phase, self.ending)
                told, self._due = state, now
            if phase is Phase.STOP:
                return self._end()
            if phase >= Phase.DRAIN and not drained:
                drained = True
                self.on_drain()
            beat = rhythm(phase, self.ending.windows, self.interval())
            noticed = self.ending.notice is not None
            done = self._round(phase, beat, now)
            self.chronicle.did(phase, done, min(self._due, self._soon))
            if noticed and self._is_over(done):
                return self._end()
            self.clock.wait(self._pause(phase, beat))

    def _round(self, phase: Phase, beat: Rhythm, now: float) -> Round:
        ask = now >= self._due
        push = ask or now >= self._soon
        order = self._order(phase, beat, now, push=push, ask=ask)
        stop = order.stop
        with self.clock.alarm(lambda: self.ending.stop_at, stop.set):
            done = self.rounds.round(order)
        if push:
            self._schedule(done, beat, now, ask=ask)
        self._remember(done)
        return done

    def _order(self, phase: Phase, beat: Rhythm, now: float, *, push: bool, ask: bool) -> Order:
        seconds, is_short = self.ending.seconds(now), phase >= Phase.FREEZE
        return Order(push, ask, seconds, beat.settle, beat.interval, is_short, threading.Event())

    def _remember(self, done: Round) -> None:
        self._last = done if done.pushed else replace(done, pushed=self._last.pushed, safe=self._last.safe)

    def _schedule(self, done: Round, beat: Rhythm, begin: float, *, ask: bool) -> None:
        """Set when to push next: an interval after this push began, and when what waits has settled.

        A push that took longer is followed by the next one at once.
        """
        now = self.clock.now()
        if ask:
            self._due = max(now, begin + beat.interval)
        soon = min((waiting.ready_at for waiting in done.waiting), default=math.inf)
        if done.again:
            soon = min(soon, now + beat.settle)
        self._soon = max(soon, now + min(1.0, beat.settle))

    def _is_over(self, done: Round) -> bool:
        """Say whether nothing is left to wait for, after a notice: all that can be safe is."""
        if not done.pushed or done.again:
            return False
        return not any(waiting.ready_at < self.ending.stop_at for waiting in done.waiting)

    def _pause(self, phase: Phase, beat: Rhythm) -> float:
        """Return how long to wait; what is seen `settle` before a push is settled when it is due."""
        now = self.clock.now()
        if self.ending.phase(now) is not phase:
            return 0.0  # the round lasted into the next one
        wakes = [self._due - now, self._soon - now, self.ending.until_next(now)]
        if self._due - now > beat.settle:
            wakes.append(self._due - now - beat.settle)
        return max(0.0, min(wakes))

    def _end(self) -> ExitCode:
        """Look once more, for what was made since the last push and is on this disk alone; then end."""
        beat = rhythm(Phase.FREEZE, self.ending.windows, self.interval())
        now = self.clock.now()
        self._remember(self.rounds.round(self._order(Phase.STOP, beat, now, push=False, ask=False)))
        notice = self.ending.notice
        reason = notice.source if notice else self.ending.deadline.source
        code = notice.exit_code if notice else ExitCode.DEADLINE
        self.chronicle.ended(reason, code, self._last)
        return code
