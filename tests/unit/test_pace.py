"""The bandwidth limit: what it lets through in any stretch of time, whose turn it is, and how it stops."""

from __future__ import annotations

import itertools
import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labsync.transfer.pace import LONGEST_WAIT, Pace

BLOCK = 1 << 20


def carry_on() -> None:
    """Nothing asks to stop."""


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.sleeps: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.time += seconds


class SharedClock:
    """Time for several threads: once each of them sleeps or has ended it goes on to the first to wake."""

    def __init__(self, threads: int) -> None:
        self.time = 0.0
        self._awake = threads
        self._wakes: list[float] = []
        self._changed = threading.Condition()

    def now(self) -> float:
        with self._changed:
            return self.time

    def sleep(self, seconds: float) -> None:
        with self._changed:
            until = self.time + seconds
            self._wakes.append(until)
            self._awake -= 1
            self._go_on()
            self._changed.wait_for(lambda: self.time >= until)

    def end(self) -> None:
        with self._changed:
            self._awake -= 1
            self._go_on()

    def _go_on(self) -> None:
        if self._awake or not self._wakes:
            return
        self.time = min(self._wakes)
        woken = [wake for wake in self._wakes if wake <= self.time]
        self._wakes = [wake for wake in self._wakes if wake > self.time]
        self._awake = len(woken)
        self._changed.notify_all()


def most_in_any_window(passed: list[tuple[float, int]], limit: float) -> float:
    """Return by how many blocks the busiest window exceeds the limit."""
    counts = list(itertools.accumulate((count for _, count in passed), initial=0))
    biggest = max(count for _, count in passed)
    return max(
        (counts[last + 1] - counts[first] - limit * (passed[last][0] - passed[first][0])) / biggest
        for first in range(len(passed))
        for last in range(first, len(passed))
    )


@given(
    st.integers(min_value=1000, max_value=10**10),
    st.lists(st.tuples(st.floats(0.001, 3), st.floats(0, 100)), min_size=1, max_size=40),
)
def test_no_window_has_more_than_the_limit_and_one_block(rate: int, moves: list[tuple[float, float]]) -> None:
    """Also not after idle time, which comes before each block here."""
    clock = Clock()
    pace = Pace(rate, now=clock.now, sleep=clock.sleep)
    passed = []
    for seconds, idle in moves:  # how long the block takes at the limit
        count = int(seconds * rate)
        clock.time += idle
        pace.wait(count, carry_on)
        passed.append((clock.time, count))
    assert most_in_any_window(passed, rate) <= 1 + 1e-6


def test_a_single_thread_reaches_the_limit_though_blocks_take_time_to_travel() -> None:
    clock = Clock()
    pace = Pace(10 * BLOCK, now=clock.now, sleep=clock.sleep)
    for _ in range(101):
        clock.time += 0.08  # how long a block travels: nearly all the time there is
        pace.wait(BLOCK, carry_on)
    assert clock.time - 1000 == pytest.approx(0.08 + 100 * 0.1)


def test_what_is_slower_than_the_limit_never_waits() -> None:
    clock = Clock()
    pace = Pace(BLOCK, now=clock.now, sleep=clock.sleep)
    for _ in range(20):
        clock.time += 1.01
        pace.wait(BLOCK, carry_on)
    assert clock.sleeps == []


@pytest.mark.parametrize("threads", [2, 8])
def test_threads_share_the_limit_in_turns(threads: int) -> None:
    clock = SharedClock(threads)
    pace = Pace(2 * BLOCK, now=clock.now, sleep=clock.sleep)
    passed: list[tuple[float, int]] = []
    turns: dict[int, list[float]] = {n: [] for n in range(threads)}
    mutex = threading.Lock()

    def move(number: int) -> None:
        for _ in range(10):
            pace.wait(BLOCK, carry_on)
            with mutex:
                turns[number].append(clock.now())
                passed.append((clock.now(), BLOCK))
        clock.end()

    workers = [threading.Thread(target=move, args=(n,), daemon=True) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert len(passed) == 10 * threads
    assert most_in_any_window(sorted(passed), 2 * BLOCK) <= 1 + 1e-6
    assert clock.now() == pytest.approx((10 * threads - 1) / 2)  # and no slower than the limit
    for times in turns.values():  # each one's blocks are a whole round apart
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert max(gaps) <= threads / 2 + 1e-6


class Stop(Exception):  # noqa: N818  not a failure
    pass


def test_a_stop_is_seen_during_a_wait() -> None:
    clock = Clock()
    pace = Pace(1, now=clock.now, sleep=clock.sleep)

    def check() -> None:
        if clock.time >= 1002:
            raise Stop

    pace.wait(BLOCK, check)
    with pytest.raises(Stop):
        pace.wait(BLOCK, check)
    assert clock.time <= 1002 + LONGEST_WAIT + 1e-6
    assert max(clock.sleeps) <= LONGEST_WAIT


def test_without_a_limit_nothing_waits_and_nothing_is_counted() -> None:
    def never() -> float:
        raise AssertionError

    pace = Pace(math.inf, now=never, sleep=lambda _: pytest.fail("slept"))
    for _ in range(3):
        pace.wait(10**12, lambda: pytest.fail("asked"))
