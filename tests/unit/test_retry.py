"""How long a run waits: backoff, the budget of the whole run, and what servers ask for."""

from __future__ import annotations

import contextlib
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labsync.errors import NotFoundError, UnavailableError
from labsync.transfer.retry import (
    GROW_AFTER,
    LONGEST_WAIT,
    POLL,
    Limiter,
    RetryBudget,
    SystemClock,
    backoff,
    roll,
)
from tests.fakes.recorder import FakeClock


@pytest.mark.parametrize(("attempt", "longest"), [(0, 1), (1, 2), (2, 4), (4, 16), (5, 30), (5000, 30)])
def test_backoff_doubles_up_to_its_limit(attempt: int, longest: float) -> None:
    assert backoff(attempt, 1.0) == longest


@pytest.mark.fault(49)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_backoff_has_full_jitter(attempt: int, chance: float) -> None:
    assert 0 <= backoff(attempt, chance) <= LONGEST_WAIT
    assert backoff(attempt, 0.0) == 0
    assert backoff(attempt, chance) == pytest.approx(chance * backoff(attempt, 1.0))


def test_rolls_differ() -> None:
    rolls = {roll() for _ in range(20)}
    assert len(rolls) > 1
    assert all(0 <= one < 1 for one in rolls)


def test_budget_ends_and_finished_files_give_back_no_more_than_was_there() -> None:
    budget = RetryBudget(2, now=FakeClock().now)
    assert [budget.take(1) for _ in range(3)] == [True, True, False]
    budget.give_back()
    assert [budget.take(1) for _ in range(2)] == [True, False]
    for _ in range(10):
        budget.give_back()
    assert budget.left == 2


def test_budget_grants_no_wait_that_passes_the_deadline() -> None:
    clock = FakeClock()
    budget = RetryBudget(9, deadline=clock.now() + 10, now=clock.now)
    assert budget.take(10)
    clock.time += 5
    assert not budget.take(6)
    assert budget.take(5)


def test_budget_grants_no_endless_wait_and_takes_nothing_for_it() -> None:
    budget = RetryBudget(1, longest=100, now=FakeClock().now)
    assert not budget.take(101)
    assert budget.take(100)


def test_budget_is_exact_between_threads() -> None:
    budget = RetryBudget(500, now=FakeClock().now)
    granted: list[bool] = []
    threads = [
        threading.Thread(target=lambda: granted.extend(budget.take(0) for _ in range(100))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 500


def test_limiter_keeps_the_longest_wish_of_each_place() -> None:
    clock = FakeClock()
    limiter = Limiter(clock.now)
    limiter.postpone("hub", 30)
    limiter.postpone("hub", 5)
    assert limiter.delay("hub") == 30
    assert limiter.delay("mirror") == 0
    clock.time += 29
    assert limiter.delay("hub") == 1
    clock.time += 2
    assert limiter.delay("hub") == 0


def fails(limiter: Limiter) -> None:
    with pytest.raises(UnavailableError), limiter.asking("hub"):
        raise UnavailableError("slow down")


@pytest.mark.fault(50)
def test_place_that_slows_us_down_is_asked_by_half_as_many() -> None:
    limiter = Limiter(FakeClock().now)
    with contextlib.ExitStack() as busy:
        for _ in range(7):
            busy.enter_context(limiter.asking("hub"))
        fails(limiter)  # the eighth
        assert limiter.is_busy("hub")
        assert not limiter.is_busy("mirror")
    assert not limiter.is_busy("hub")
    for _ in range(4):
        assert not limiter.is_busy("hub")
        busy.enter_context(limiter.asking("hub"))
    assert limiter.is_busy("hub")


def test_requests_that_began_before_the_last_cut_say_nothing_more() -> None:
    limiter = Limiter(FakeClock().now)
    together = [limiter.asking("hub") for _ in range(8)]
    for one in together:
        one.__enter__()
    error = UnavailableError("slow down")
    for one in together:
        assert not one.__exit__(UnavailableError, error, None)
    assert limits(limiter) == 4


def limits(limiter: Limiter) -> int:
    """Return how many requests may be under way at once."""
    with contextlib.ExitStack() as busy:
        count = 0
        while not limiter.is_busy("hub") and count < 100:
            busy.enter_context(limiter.asking("hub"))
            count += 1
        busy.pop_all()  # leave no successes behind
        return count


def test_one_request_may_always_be_made() -> None:
    limiter = Limiter(FakeClock().now)
    for _ in range(5):
        fails(limiter)
    assert not limiter.is_busy("hub")


def test_place_that_answers_again_is_asked_by_one_more_after_a_while() -> None:
    limiter = Limiter(FakeClock().now)
    fails(limiter)
    for _ in range(GROW_AFTER):
        with limiter.asking("hub"):
            assert limiter.is_busy("hub"), "only one at a time"
    with limiter.asking("hub"):
        assert not limiter.is_busy("hub")
        with limiter.asking("hub"):
            assert limiter.is_busy("hub")


def test_other_errors_say_nothing_about_how_much_a_place_bears() -> None:
    limiter = Limiter(FakeClock().now)
    with limiter.asking("hub"), pytest.raises(NotFoundError), limiter.asking("hub"):
        raise NotFoundError("gone")
    with limiter.asking("hub"):
        assert not limiter.is_busy("hub")


@pytest.mark.fault(58)
def test_system_clock_is_monotonic_and_returns_often_enough_to_see_a_stop() -> None:
    class Condition(threading.Condition):
        asked: float | None = None

        def wait(self, timeout: float | None = None) -> bool:
            self.asked = timeout
            return True

    clock, changed = SystemClock(), Condition()
    assert clock.now() <= clock.now()
    clock.wait(changed, 3600)
    assert changed.asked == POLL
    clock.wait(changed, 0.01)
    assert changed.asked == 0.01
