"""What the guard does when: pure functions of the time that is left."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

MINUTE = 60.0
INTERVAL = 10 * MINUTE
SETTLE = 30.0  # seconds
SHORTEST = 2.0  # seconds that a file rests before it is taken, at the least


class Phase(enum.IntEnum):
    """The guard's phases, in their order."""

    WATCH = 0
    DRAIN = 1
    FREEZE = 2
    STOP = 3


@dataclass(frozen=True, slots=True)
class Windows:
    """How many seconds before the deadline each phase begins."""

    drain: float = 30 * MINUTE
    freeze: float = 10 * MINUTE
    stop: float = 2 * MINUTE

    @classmethod
    def of(cls, span: float) -> Windows:
        """Return the windows of a session that has `span` seconds left: shares of one under two hours."""
        full = cls()
        return cls(min(full.drain, span / 4), min(full.freeze, span / 12), min(full.stop, span / 60))

    def phase(self, left: float) -> Phase:
        """Return the phase in which `left` seconds remain."""
        if left <= self.stop:
            return Phase.STOP
        if left <= self.freeze:
            return Phase.FREEZE
        return Phase.DRAIN if left <= self.drain else Phase.WATCH

    def until_next(self, left: float) -> float:
        """Return the seconds until the phase changes; infinite where no end is known."""
        begins = [begin for begin in (self.drain, self.freeze, self.stop) if begin < left]
        return left - begins[0] if begins and left < math.inf else math.inf


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often the guard pushes, and how long a file must rest before it counts as settled; seconds."""

    interval: float
    settle: float


def rhythm(phase: Phase, windows: Windows, interval: float) -> Rhythm:
    """Return the rhythm of a phase: the nearer the end, the quicker."""
    if phase == Phase.DRAIN:
        interval = min(interval, max(windows.drain / 12, SHORTEST))
    elif phase == Phase.FREEZE:
        interval = min(interval, max(windows.freeze / 20, SHORTEST))
    return Rhythm(interval, min(SETTLE, max(interval / 2, min(SHORTEST, interval))))


def default_interval(span: float) -> float:
    """Return the interval where the user names none: ten minutes, less in a short session."""
    return min(INTERVAL, max(span / 12, SHORTEST))


def patience(settle: float, interval: float, waited: float) -> float:
    """Return how long something must rest that has been waited for: half as long after each interval.

    What never rests for long, because it is written again every few seconds, is so taken at its
    longest rests.
    """
    halvings = min(int(waited / interval), 30) if interval > 0 else 0
    return max(min(SHORTEST, settle), settle / float(2**halvings))
