"""When the session ends: pure functions over what was read of the box.

All instants are seconds of `CLOCK_BOOTTIME`, which goes on while the box sleeps and which nobody sets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from labsync.session.profiles import Profile

UNKNOWN = math.inf
SAID = "the time left that you typed"


@dataclass(frozen=True, slots=True)
class Readings:
    """What was read of the box at one instant; None for what it does not tell.

    `now` and the starts are seconds of `CLOCK_BOOTTIME`, `wall` and `job_end` Unix time. `box` names
    this life of this box: another boot or another container has another name.
    """

    now: float
    wall: float
    box: str
    container_start: float | None = None
    jupyter_start: float | None = None
    job_end: float | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """One guess of when the session ends, and where it came from."""

    at: float
    source: str


@dataclass(frozen=True, slots=True)
class Deadline:
    """When the session ends, infinite where nothing tells: who knows it, and which guesses were dropped."""

    at: float = UNKNOWN
    source: str = "no limit is known"
    notes: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        """Say whether there is one."""
        return self.at < UNKNOWN

    def left(self, now: float) -> float:
        """Return the seconds that are left, at least 0; infinite where nothing tells."""
        return max(0.0, self.at - now)

    def shortened(self, at: float, source: str) -> Deadline:
        """Return the deadline after a notice: a notice never gives time."""
        return Deadline(at, source, self.notes) if at < self.at else self


def decide(
    profile: Profile, readings: Readings, first_seen: float | None = None, said: float | None = None
) -> Deadline:
    """Return when the session ends.

    What the user said (`said`, an instant) alone decides. Otherwise it is the earliest estimate that
    is not over yet. What is over was wrong, whoever said it, for the box still lives.
    """
    kept: list[Estimate] = []
    notes = []
    if said is not None and said > readings.now:
        return Deadline(said, SAID)
    if said is not None:
        notes.append(f"not counted, for it is over already: {SAID}")
    for estimate in estimates(profile, readings, first_seen):
        if estimate.at > readings.now:
            kept.append(estimate)
        else:
            notes.append(f"not counted, for it would be over already: {estimate.source}")
    if not kept:
        return Deadline(notes=tuple(notes))
    first = min(kept, key=lambda estimate: estimate.at)
    return Deadline(first.at, first.source, tuple(notes))


def estimates(profile: Profile, readings: Readings, first_seen: float | None) -> Iterator[Estimate]:
    """Yield every guess, each less the profile's margin."""
    if readings.job_end is not None:
        at = readings.now + (readings.job_end - readings.wall) - profile.margin
        yield Estimate(at, "the job's own end (SLURM_JOB_END_TIME)")
    if profile.limit == UNKNOWN:
        return
    starts = (
        (readings.container_start, "the start of the machine"),
        (readings.jupyter_start, "the start of the Jupyter server"),
        (first_seen, "when labsync first saw this session"),
    )
    for start, source in starts:
        if start is not None:
            limit = f"{format_duration(profile.limit)} ({profile.name})"
            less = f", less {format_duration(profile.margin)}" if profile.margin else ""
            yield Estimate(start + profile.limit - profile.margin, f"{source} + {limit}{less}")


def format_duration(seconds: float) -> str:
    """Return a duration as people write it, `3h12m`, `10m` or `45s`, rounded down."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours}h{minutes:02}m" if minutes else f"{hours}h"
    if minutes >= 10 or (minutes and not whole % 60):
        return f"{minutes}m"
    return f"{minutes}m{whole % 60:02}s" if minutes else f"{whole}s"
