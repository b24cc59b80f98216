"""When a connection counts as stalled: next to nothing in a whole window of waiting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labsync.errors import UnavailableError
from labsync.stall import LEAST, WINDOW, Watch


class Clock:
    def __init__(self) -> None:
        self.time = 50.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> Watch:
    return Watch("`x` from the mirror", now=clock)


def test_a_drip_is_a_stall(clock: Clock, watch: Watch) -> None:
    for _ in range(int(WINDOW)):
        clock.time += 1
        watch.saw(1)
    clock.time += 1
    with pytest.raises(UnavailableError, match=r"^`x` from the mirror stalled: 31 bytes in 30 seconds$"):
        watch.saw(1)


def test_a_stall_after_a_fast_beginning_is_seen(clock: Clock, watch: Watch) -> None:
    watch.saw(100 * LEAST)
    clock.time += WINDOW + 1
    with pytest.raises(UnavailableError, match="stalled: 1 bytes"):
        watch.saw(1)


def test_a_pause_after_a_long_good_time_is_no_stall(clock: Clock, watch: Watch) -> None:
    for _ in range(10):
        clock.time += WINDOW / 2
        watch.saw(LEAST)
    clock.time += WINDOW
    watch.saw(1)


def test_time_before_the_first_byte_counts(clock: Clock, watch: Watch) -> None:
    clock.time += WINDOW + 1
    with pytest.raises(UnavailableError):
        watch.saw(1)


@given(st.lists(st.tuples(st.floats(0, WINDOW), st.integers(LEAST, 1 << 20)), max_size=50))
def test_what_brings_enough_in_each_window_never_stalls(steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    watch = Watch("x", now=clock)
    for seconds, count in steps:
        clock.time += seconds
        watch.saw(count)


@given(st.lists(st.floats(0.001, 5), min_size=1), st.integers(0, 40))
def test_a_stall_is_seen_soon_after_the_window(gaps: list[float], count: int) -> None:
    clock = Clock()
    watch = Watch("x", now=clock)
    seen = 0
    for gap in gaps:
        clock.time += gap
        seen += count
        if seen < LEAST and clock.time - 50 > WINDOW:
            with pytest.raises(UnavailableError):
                watch.saw(count)
            return
        watch.saw(count)
