"""What is finished and may be pushed: truth tables and properties of pure functions."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labsync.guard.settled import (
    READY,
    Judgement,
    Sight,
    Sighting,
    Unit,
    View,
    judge_result,
    judge_unit,
    observe,
    observe_unit,
)

if TYPE_CHECKING:
    from labsync.guard.formats import Wholeness

REST = 30.0
A = Sight(10, 100, 100, 7, 1)


def view(
    now: float, *, pid: int = 0, wholeness: Wholeness = "unknown", grows: bool = False, path: str = "f"
) -> View:
    writers = {path: pid} if pid else {}
    return View(now, lambda first: REST, writers, lambda path: wholeness, lambda path: grows)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"size": 11}, False),
        ({"mtime_ns": 101}, False),
        ({"inode": 8}, False),
        ({"ctime_ns": 101}, False),
        ({"links": 2, "ctime_ns": 101}, True),  # a second name, say of a pin
        ({"links": 2, "ctime_ns": 101, "mtime_ns": 101}, False),
    ],
)
def test_a_change_of_the_link_count_alone_is_no_change(changes: dict[str, int], same: bool) -> None:
    assert A.is_like(A._replace(**changes)) is same


sights = st.builds(Sight, *[st.integers(0, 2)] * 5)
looks = st.lists(st.dictionaries(st.sampled_from("ab"), sights), min_size=1, max_size=8)


@given(looks)
def test_since_is_the_look_after_the_last_change(found: list[dict[str, Sight]]) -> None:
    known: dict[str, Sighting] = {}
    for now, seen in enumerate(found):
        known = observe(known, seen, float(now))
        assert known.keys() == seen.keys()
        for path, sighting in known.items():
            assert sighting.first <= sighting.since <= now
            held = [look.get(path) for look in found[int(sighting.since) : now + 1]]
            assert all(mine and other and other.is_like(mine) for mine, other in pairwise(held))


@pytest.mark.parametrize(
    ("seen", "at", "verdict"),
    [
        # seen for the first time, a moment ago, long enough
        (Sighting(A, 100, 100), view(100), "waiting"),
        (Sighting(A, 100, 90), view(129), "waiting"),
        (Sighting(A, 100, 90), view(130), "ready"),
        # a format that has an end, with and without it
        (Sighting(A, 100, 90), view(130, wholeness="whole"), "ready"),
        (Sighting(A, 100, 90), view(130, wholeness="broken"), "waiting"),
        # it has a writer: only what grows may go
        (Sighting(A, 100, 90), view(500, pid=5), "waiting"),
        (Sighting(A, 100, 90), view(500, pid=5, grows=True), "growing"),
        (Sighting(A, 100, 90), view(500, pid=5, grows=True, wholeness="broken"), "waiting"),
        (Sighting(A, 100, 90), view(500, pid=5, grows=True, wholeness="whole"), "waiting"),
        # it is written in short moments
        (Sighting(A, 100, 90), view(110, grows=True), "growing"),
    ],
)
def test_results(seen: Sighting, at: View, verdict: str) -> None:
    assert judge_result("f", seen, at).verdict == verdict


def test_who_waits_knows_why_and_until_when() -> None:
    waiting = judge_result("f", Sighting(A, 100, 90), view(110))
    assert waiting == Judgement("waiting", "it changed a moment ago", 130)
    assert "process 5" in judge_result("f", Sighting(A, 100, 90), view(110, pid=5)).reason


def unit(*, finished: bool | None = None, changed: float = 100, files: int = 2, since: float = 50) -> Unit:
    members = {f"u/{n}": Sighting(A, changed, 50) for n in range(files)}
    return Unit(members, since, 50, finished)


@pytest.mark.parametrize(
    ("seen", "at", "ready"),
    [
        # a rule decides, and replaces the waiting
        (unit(finished=False), view(900), False),
        (unit(finished=True), view(100), True),
        (unit(finished=True), view(100, pid=5, path="u/1"), False),
        (unit(finished=True), view(100, wholeness="broken"), False),
        # without a rule the whole set rests
        (unit(), view(129), False),
        (unit(), view(130), True),
        (unit(since=110), view(139), False),  # a name came or went
        (unit(), view(900, pid=5, path="u/0"), False),
        (unit(), view(900, wholeness="broken"), False),
        # one file with an end of its own is finished when it is whole; two are not, they belong together
        (unit(files=1), view(101, wholeness="whole"), True),
        (unit(files=1, since=90), view(101, wholeness="whole"), False),
        (unit(files=2), view(101, wholeness="whole"), False),
        (replace(unit(finished=True), missing=("shard-2",)), view(900), False),
    ],
)
def test_units(seen: Unit, at: View, ready: bool) -> None:
    assert (judge_unit(seen, at) == READY) is ready


def test_a_unit_is_as_old_as_its_newest_member_or_name() -> None:
    first = observe_unit(None, {"u/a": Sighting(A, 1, 1)}, 1, finished=None)
    grown = observe_unit(first, {"u/a": Sighting(A, 1, 1), "u/b": Sighting(A, 5, 5)}, 5, finished=None)
    assert (grown.since, grown.changed, grown.first, grown.size) == (5, 5, 1, 20)
    same = observe_unit(grown, grown.members, 9, finished=None)
    assert (same.since, same.changed) == (5, 5)
    gone = observe_unit(same, {"u/b": Sighting(A, 5, 5)}, 12, finished=None)
    assert gone.changed == 12
