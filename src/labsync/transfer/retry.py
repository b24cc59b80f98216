"""How long a run waits for a place that does not answer: backoff, budget, and what servers ask for."""

from __future__ import annotations

import contextlib
import math
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from labsync.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

FIRST_WAIT = 1.0
LONGEST_WAIT = 30.0
ATTEMPTS = 6  # per place and file
RETRIES = 64
# The hub counts requests in windows of five minutes: https://huggingface.co/docs/hub/rate-limits
LONGEST_REQUESTED = 330.0
GROW_AFTER = 8  # successful requests
POLL = 0.2


class Clock(Protocol):
    """Monotonic time, and waiting that something else can end early."""

    def now(self) -> float:
        """Return monotonic seconds."""

    def wait(self, changed: threading.Condition, seconds: float) -> None:
        """Wait, holding `changed`, until it is notified or at most `seconds` have passed."""


class SystemClock:
    """The real clock; it returns often enough to see a stop event that notifies nobody."""

    def now(self) -> float:
        """Return monotonic seconds: a wall clock that jumps changes nothing."""
        return time.monotonic()

    def wait(self, changed: threading.Condition, seconds: float) -> None:
        """Wait until notified, at most `seconds` and never longer than a fifth of a second."""
        changed.wait(min(seconds, POLL))


def backoff(attempt: int, roll: float) -> float:
    """Return the seconds to wait after the failed `attempt` (0 is the first); `roll` is in [0, 1].

    Exponential with full jitter, so that many clients do not return together
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """
    return roll * min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempt, 30))


class RetryBudget:
    """The retries of one whole run, not of one file; every finished file gives one back.

    So a run in which nothing arrives ends after `retries` attempts however many files it has, and a
    long run that makes progress is not ended by single errors. No retry is granted whose wait would
    pass `deadline` on the monotonic clock `now`, or is longer than `longest`. Safe for threads.
    """

    def __init__(
        self,
        retries: int = RETRIES,
        *,
        deadline: float = math.inf,
        longest: float = LONGEST_REQUESTED,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._left = self._retries = retries
        self._deadline = deadline
        self._longest = longest
        self._now = now
        self._mutex = threading.Lock()

    def take(self, delay: float) -> bool:
        """Take one retry that begins after `delay` seconds; False when it is not granted."""
        with self._mutex:
            if self._left <= 0 or delay > self._longest or self._now() + delay > self._deadline:
                return False
            self._left -= 1
            return True

    def give_back(self) -> None:
        """Return one retry, because a file was finished."""
        with self._mutex:
            self._left = min(self._retries, self._left + 1)

    @property
    def left(self) -> int:
        """How many retries are left."""
        with self._mutex:
            return self._left


@dataclass(slots=True)
class _Traffic:
    """The requests at one place: how many are under way, how many may be, and what that rests on."""

    busy: int = 0
    most: float = math.inf
    cuts: int = 0
    successes: int = 0


class Limiter:
    """When, and by how many requests at once, a place may be asked; one for all threads of a run.

    A place that says it is unavailable is asked by half as many as before, but by one; after some
    successes one more may ask.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._not_before: dict[Hashable, float] = {}
        self._traffic: dict[Hashable, _Traffic] = {}
        self._mutex = threading.Lock()

    def postpone(self, place: Hashable, seconds: float) -> None:
        """Ask nobody to bother the place for `seconds`; an earlier, longer wish stays."""
        with self._mutex:
            until = self._now() + seconds
            self._not_before[place] = max(until, self._not_before.get(place, until))

    def delay(self, place: Hashable) -> float:
        """Return the seconds for which the place must still be left alone."""
        with self._mutex:
            return max(0.0, self._not_before.get(place, 0.0) - self._now())

    def is_busy(self, place: Hashable) -> bool:
        """Say whether as many requests are under way there as the place bears."""
        with self._mutex:
            traffic = self._traffic.get(place)
            return traffic is not None and traffic.busy >= traffic.most

    @contextlib.contextmanager
    def asking(self, place: Hashable) -> Iterator[None]:
        """Count the block as a request to the place, and learn from how it ends."""
        with self._mutex:
            traffic = self._traffic.setdefault(place, _Traffic())
            traffic.busy += 1
            cuts = traffic.cuts
        try:
            yield
        except UnavailableError:
            with self._mutex:
                if cuts == traffic.cuts:  # those that began before the last cut say nothing about it
                    traffic.most, traffic.successes = max(1, traffic.busy // 2), 0
                    traffic.cuts += 1
            raise
        else:
            with self._mutex:
                traffic.successes += 1
                if traffic.successes >= GROW_AFTER:
                    traffic.most, traffic.successes = traffic.most + 1, 0
        finally:
            with self._mutex:
                traffic.busy -= 1


def roll() -> float:
    """Return a random number in [0, 1) for jitter."""
    return random.random()  # noqa: S311 - jitter spreads load, it keeps no secret
