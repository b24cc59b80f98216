"""The six properties of `make_plan` on generated labs, and its tables."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings

from labsync.places import Found, Inventory, Ref
from labsync.plan import Goal, Kept, Publication, Unmet, make_plan
from labsync.snapshot import EMPTY, FileEntry, Snapshot
from tests.fakes.model_lab import complete, deterministic, frugal, honest, idempotent, safe
from tests.strategies import NAME, PREFIX, entry_of, goals


@given(goals())
@settings(max_examples=250)
def test_plan_is_complete(goal: Goal) -> None:
    complete(make_plan, goal)


@given(goals())
@settings(max_examples=250)
def test_plan_is_idempotent(goal: Goal) -> None:
    idempotent(make_plan, goal)


@given(goals())
@settings(max_examples=200)
def test_plan_is_deterministic(goal: Goal) -> None:
    deterministic(make_plan, goal)


@given(goals())
@settings(max_examples=250)
def test_plan_is_safe(goal: Goal) -> None:
    safe(make_plan, goal)


@given(goals())
@settings(max_examples=250)
def test_plan_is_frugal(goal: Goal) -> None:
    frugal(make_plan, goal)


@given(goals())
@settings(max_examples=250)
def test_plan_is_honest(goal: Goal) -> None:
    honest(make_plan, goal)


def _goal(**changes: object) -> Goal:
    return dataclasses.replace(Goal(NAME, EMPTY, key_prefix=PREFIX), **changes)  # type: ignore[arg-type]


def _on_disk(entry: FileEntry, state: str = "recorded") -> Inventory:
    return Inventory({entry.path: Found(entry, state)})  # type: ignore[arg-type]


OLD, NEW, MINE = (entry_of("a.bin", data) for data in (b"old", b"new", b"mine"))


@pytest.mark.parametrize(
    ("disk", "base", "wanted", "expected"),
    [
        (OLD, OLD, NEW, "behind"),
        (MINE, OLD, OLD, "ahead"),
        (MINE, OLD, NEW, "conflict"),
        (MINE, None, NEW, "conflict"),
        (NEW, OLD, NEW, "in place"),
        (NEW, None, NEW, "in place"),
        (None, OLD, OLD, "missing on the disk"),
        (None, None, NEW, "missing on the disk"),
    ],
)
def test_made_file_follows_the_table_of_the_pull(
    disk: FileEntry | None, base: FileEntry | None, wanted: FileEntry, expected: str
) -> None:
    goal = _goal(
        wanted=Snapshot((wanted,)),
        disk=_on_disk(disk) if disk else Inventory({}),
        base=Snapshot((base,)) if base else None,
        mirrored={e.sha256: Ref(e.sha256) for e in (OLD, NEW)},
        made=True,
    )
    plan = make_plan(goal)
    reasons = [r.reason for r in plan.routes] + [k.reason for k in plan.kept]
    assert reasons == ([] if expected == "in place" else [expected])


def test_a_touched_file_with_the_content_of_the_base_is_replaced_aside() -> None:
    goal = _goal(
        wanted=Snapshot((NEW,)), disk=_on_disk(OLD, "changed"), base=Snapshot((OLD,)),
        mirrored={NEW.sha256: Ref("k")}, made=True,
    )  # fmt: skip
    (route,) = make_plan(goal).routes
    assert route.publications == (Publication(NEW, "aside", "behind"),)


def test_damage_is_fetched_again_without_force_and_the_old_set_aside() -> None:
    goal = _goal(wanted=Snapshot((NEW,)), disk=_on_disk(MINE, "damaged"), mirrored={NEW.sha256: Ref("k")})
    (route,) = make_plan(goal).routes
    assert route.publications == (Publication(NEW, "aside", "damaged"),)


def test_a_users_file_in_the_place_of_a_sourced_one_is_a_conflict_to_decide() -> None:
    goal = _goal(wanted=Snapshot((NEW,)), disk=_on_disk(MINE, "changed"), mirrored={NEW.sha256: Ref("k")})
    plan = make_plan(goal)
    assert plan.is_empty
    assert plan.kept == (Kept(NAME, "a.bin", "conflict"),)


def test_every_path_of_a_content_that_nobody_holds_is_named() -> None:
    twice = Snapshot.of((entry_of("a", b"x"), entry_of("b", b"x")))
    plan = make_plan(_goal(wanted=twice))
    assert plan.unmet == tuple(Unmet(NAME, entry) for entry in twice)


def test_planning_many_files_that_are_all_missing_stays_linear() -> None:
    class Counting(dict[str, Found]):
        looked_through = 0

        def items(self):  # type: ignore[no-untyped-def]  # noqa: ANN202
            type(self).looked_through += 1
            return super().items()

    wanted = Snapshot.of(entry_of(f"f{n}", b"%d" % n) for n in range(300))
    files = Counting({f"old{n}": Found(entry_of(f"old{n}", b"o%d" % n)) for n in range(300)})
    origin = {entry.path: Ref("o", path=entry.path) for entry in wanted}
    plan = make_plan(_goal(wanted=wanted, disk=Inventory(files), origin=origin))
    assert len(plan.routes) == 300
    assert Counting.looked_through == 1
