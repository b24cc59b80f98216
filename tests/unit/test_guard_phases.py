"""Phases, rhythm and admission: what the guard does when, as pure functions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labsync.guard.admission import Candidate, admit
from labsync.guard.ending import Ending, Notice
from labsync.guard.phases import MINUTE, Phase, Windows, default_interval, patience, rhythm
from labsync.session.deadline import Deadline

spans = st.floats(1.0, 1e6)


def test_a_long_session_has_the_full_windows() -> None:
    assert Windows.of(4 * 3600) == Windows(30 * MINUTE, 10 * MINUTE, 2 * MINUTE)
    assert Windows.of(math.inf) == Windows()


@given(spans)
def test_the_windows_are_nested_and_leave_most_of_the_session_alone(span: float) -> None:
    windows = Windows.of(span)
    assert 0 < windows.stop < windows.freeze < windows.drain <= span / 4


@pytest.mark.parametrize(
    ("minutes", "phase"),
    [(31, Phase.WATCH), (30, Phase.DRAIN), (11, Phase.DRAIN), (10, Phase.FREEZE), (3, Phase.FREEZE),
     (2, Phase.STOP), (0, Phase.STOP)],
)  # fmt: skip
def test_the_phase_follows_from_the_time_left(minutes: float, phase: Phase) -> None:
    assert Windows().phase(minutes * MINUTE) is phase


@given(spans, spans)
def test_waiting_until_the_next_phase_leads_into_it(span: float, left: float) -> None:
    windows = Windows.of(span)
    wait = windows.until_next(left)
    if wait < math.inf:
        assert windows.phase(left - wait - 1e-6) > windows.phase(left)


@given(spans, st.sampled_from(Phase), st.floats(0.5, 3600))
def test_a_file_rests_at_most_half_an_interval_and_half_a_minute(
    span: float, phase: Phase, interval: float
) -> None:
    beat = rhythm(phase, Windows.of(span), interval)
    assert 0 < beat.interval <= interval
    assert 0 < beat.settle <= min(30.0, max(beat.interval / 2, 2.0))


def test_a_short_session_is_watched_more_often() -> None:
    assert default_interval(4 * 3600) == 600
    assert default_interval(180) == 15
    assert default_interval(math.inf) == 600


def test_what_never_rests_is_taken_at_its_longest_rest() -> None:
    rests = [patience(30, 600, waited) for waited in (0, 599, 600, 1200, 6000)]
    assert rests == [30, 30, 15, 7.5, 2]


sizes = st.integers(0, 1000)
candidates = st.lists(st.builds(Candidate, st.integers(), sizes, st.integers(0, 3)), max_size=20)


@pytest.mark.fault(9)
@given(candidates, st.floats(0, 100), st.floats(0.1, 100))
def test_what_is_admitted_arrives_in_time(found: list[Candidate[int]], seconds: float, rate: float) -> None:
    admitted = admit(found, seconds, rate, lambda size: False)
    assert sum(candidate.size for candidate in admitted.sent) <= seconds * rate + 1e-6
    assert sorted(map(id, (*admitted.sent, *admitted.left_out))) == sorted(map(id, found))
    assert [c.rank for c in admitted.sent] == sorted(c.rank for c in admitted.sent)


def test_the_most_valuable_comes_first_and_what_does_not_fit_keeps_nothing_out() -> None:
    huge, small, older = Candidate("huge", 90, 1), Candidate("small", 5, 0), Candidate("older", 20, 3)
    admitted = admit([older, huge, small], seconds=5, rate=10, can_resume=lambda size: False)
    assert [c.what for c in admitted.sent] == ["small", "older"]
    assert [c.what for c in admitted.left_out] == ["huge"]


def test_what_the_next_session_can_continue_uses_the_time_that_is_left_over() -> None:
    huge, small = Candidate("huge", 90, 1), Candidate("small", 5, 0)
    admitted = admit([huge, small], seconds=5, rate=10, can_resume=lambda size: size > 50)
    assert [c.what for c in admitted.sent] == ["small", "huge"]


def ending(left: float) -> Ending:
    return Ending(Deadline(1000.0 + left, "web page"), 1000.0)


def test_a_notice_freezes_at_once_and_stops_before_its_own_end() -> None:
    end = ending(3600)
    assert end.phase(1000.0) is Phase.WATCH
    assert end.notify(Notice("SIGTERM", 10.0), 1000.0)
    assert end.phase(1000.0) is Phase.FREEZE
    assert 1000.0 < end.stop_at < 1010.0


def test_a_late_notice_and_a_newly_typed_end_after_a_notice_change_nothing() -> None:
    end = ending(5)
    assert not end.notify(Notice("SIGTERM", 10.0), 1000.0)
    assert end.notify(Notice("SIGTERM", 2.0), 1000.0)
    assert not end.revise(Deadline(9000.0, "typed"), 1000.0)
    assert end.deadline.at == 1002.0


def test_a_guess_that_moves_a_little_leaves_the_windows_alone() -> None:
    end = ending(4 * 3600)
    before = end.windows
    assert end.revise(Deadline(end.deadline.at - 5, "a guess"), end.deadline.at - 1800)
    assert end.windows == before
    assert not end.revise(Deadline(end.deadline.at + 0.5, "a guess"), 1000.0)


def test_a_newly_typed_end_may_give_time() -> None:
    end = ending(60)
    assert end.revise(Deadline(9000.0, "typed"), 1000.0)
    assert end.phase(1000.0) is Phase.WATCH
