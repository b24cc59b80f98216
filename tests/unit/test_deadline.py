"""When the session ends: what was typed alone decides, otherwise the earliest guess that is not over."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labsync.session.deadline import SAID, Deadline, Readings, decide, estimates, format_duration
from labsync.session.profiles import HOUR, MINUTE, PROFILES, Profile, own_profile

STUDIO = PROFILES["studio-lab-gpu"]
instants = st.floats(0, 1e7, allow_nan=False)
maybe = st.none() | instants


def readings(now: float = 1000.0, **told: float) -> Readings:
    return replace(Readings(now, 1_790_000_000.0, "boot:1"), **told)  # type: ignore[arg-type]


@given(st.sampled_from(list(PROFILES.values())), instants, maybe, maybe, maybe, instants)
def test_what_was_typed_alone_decides(
    profile: Profile, now: float, start: float | None, jupyter: float | None, seen: float | None, said: float
) -> None:
    told = Readings(now, 0.0, "b", start, jupyter)
    decided = decide(profile, told, seen, said)
    if said > now:
        assert decided == Deadline(said, SAID)
    else:  # it was wrong: the box still lives
        others = decide(profile, told, seen)
        assert decided.at == others.at
        assert decided.notes == (f"not counted, for it is over already: {SAID}", *others.notes)


@pytest.mark.fault(9, 10)
@given(st.sampled_from(list(PROFILES.values())), instants, maybe, maybe, maybe)
def test_the_earliest_guess_that_is_not_over(
    profile: Profile, now: float, start: float | None, jupyter: float | None, seen: float | None
) -> None:
    told = Readings(now, 0.0, "b", start, jupyter)
    deadline = decide(profile, told, seen)
    guesses = list(estimates(profile, told, seen))
    alive = [guess for guess in guesses if guess.at > now]
    assert deadline.at == min((guess.at for guess in alive), default=math.inf)
    assert deadline.left(now) > 0
    assert len(deadline.notes) == len(guesses) - len(alive)


@pytest.mark.fault(11, 58)
@given(instants, instants, st.floats(-1e9, 1e9))
def test_a_clock_that_is_set_changes_nothing(now: float, start: float, jump: float) -> None:
    told = Readings(now, 1e9, "b", container_start=start)
    assert decide(STUDIO, told) == decide(STUDIO, replace(told, wall=1e9 + jump))


@pytest.mark.fault(10)
def test_the_guess_says_where_it_came_from() -> None:
    told = readings(container_start=100.0, jupyter_start=160.0)
    deadline = decide(STUDIO, told, 700.0)
    assert deadline.at == 100.0 + 4 * HOUR - 10 * MINUTE
    assert deadline.source == "the start of the machine + 4h (studio-lab-gpu), less 10m"


@pytest.mark.fault(10)
def test_a_guess_that_is_over_is_dropped_with_a_note() -> None:
    told = readings(now=20_000.0, container_start=0.25, jupyter_start=19_000.0)
    deadline = decide(STUDIO, told)
    assert deadline.at == 19_000.0 + 4 * HOUR - 10 * MINUTE
    assert deadline.source.startswith("the start of the Jupyter server")
    assert deadline.notes == (
        "not counted, for it would be over already: the start of the machine + 4h (studio-lab-gpu), less 10m",
    )


def test_a_jobs_own_end_is_turned_into_the_guards_clock() -> None:
    told = readings(now=50.0, job_end=1_790_000_600.0)
    assert decide(PROFILES["slurm"], told).at == 50.0 + 600.0 - MINUTE


@pytest.mark.parametrize("name", ["generic", "none", "sm-studio-space", "sm-training", "ec2-spot"])
def test_without_a_limit_there_is_no_end(name: str) -> None:
    assert not decide(PROFILES[name], readings(container_start=0.0), 0.0).is_known


def test_the_users_own_limit() -> None:
    assert decide(own_profile(180.0, 10.0), readings(container_start=900.0)).at == 900.0 + 170.0


def test_a_notice_never_gives_time() -> None:
    deadline = Deadline(100.0, "web page")
    assert deadline.shortened(40.0, "SIGTERM") == Deadline(40.0, "SIGTERM")
    assert deadline.shortened(140.0, "SIGTERM") is deadline


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m"), (61, "1m01s"), (600, "10m"), (631, "10m"), (3600, "1h"),
     (11520, "3h12m"), (3660, "1h01m")],
)  # fmt: skip
def test_durations_are_written_as_people_type_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
