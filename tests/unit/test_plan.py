"""The six properties of `make_plan` on generated labs, and its tables."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labsync.places import Found, Inventory, Ref
from labsync.plan import Goal, Kept, Plan, Publication, Source, Unmet, make_plan
from labsync.snapshot import EMPTY, FileEntry, Snapshot
from tests.fakes.model_lab import (
    PLANNERS,
    Check,
    Planner,
    complete,
    deterministic,
    frugal,
    honest,
    idempotent,
    packed_goals,
    resumable,
    safe,
    sharding,
)
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


@pytest.mark.parametrize("check", [complete, idempotent, deterministic, safe, frugal, honest, resumable])
@given(goal=packed_goals(), planner=st.sampled_from(PLANNERS))
@settings(max_examples=120)
def test_a_plan_with_packs_is_all_of_it_too(check: Check, planner: Planner, goal: Goal) -> None:
    check(planner, goal)


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


def _packs(plan: Plan) -> list[list[str]]:
    return [[member.entry.path for member in pack.members] for pack in plan.packs]


FILES = Snapshot.of(entry_of(f"{n}.bin", b"%d" % n) for n in range(4))
TWO_EACH = 2 * 1024 + 1024


def test_new_contents_go_into_packs_and_older_ones_stay_where_they_are() -> None:
    known = {FILES.entries[1].sha256: Ref("old/pack-00000.tar", offset=512)}
    goal = _goal(wanted=FILES, disk=_all_on_disk(FILES), mirrored=known, packed=True)
    plan = make_plan(goal, TWO_EACH)
    assert plan.routes == ()
    assert _packs(plan) == [["0.bin", "2.bin"], ["3.bin"]]
    assert [pack.key for pack in plan.packs] == [f"{PREFIX}pack-0000{n}.tar" for n in range(2)]
    assert (plan.bytes_to_mirror, plan.files_to_mirror) == (TWO_EACH + TWO_EACH - 1024, 3)


def _all_on_disk(files: Snapshot) -> Inventory:
    return Inventory({entry.path: Found(entry) for entry in files})


def test_a_large_file_goes_beside_the_packs() -> None:
    large = entry_of("large.bin", bytes(2000))
    wanted = Snapshot.of((*FILES, large))
    plan = make_plan(_goal(wanted=wanted, disk=_all_on_disk(wanted), packed=True), 3999)
    assert [(route.entry, route.key) for route in plan.routes] == [(large, f"{PREFIX}large.bin")]
    assert _packs(plan) == [["0.bin", "1.bin"], ["2.bin", "3.bin"]]


def test_what_comes_from_the_origin_is_packed_from_the_disk() -> None:
    origin = {entry.path: Ref("o", path=entry.path) for entry in FILES}
    plan = make_plan(_goal(wanted=FILES, origin=origin, packed=True))
    assert [route.key for route in plan.routes] == [""] * 4
    (pack,) = plan.packs
    for member in pack.members:
        path = member.entry.path
        assert member.sources == (Source("disk", Ref(path, path=path)), Source("origin", origin[path]))


def test_a_shard_with_a_file_that_nobody_has_is_not_planned() -> None:
    held = Snapshot(FILES.entries[1:])
    plan = make_plan(_goal(wanted=FILES, disk=_all_on_disk(held), packed=True), TWO_EACH)
    assert _packs(plan) == [["2.bin", "3.bin"]]
    assert plan.packs[0].key == f"{PREFIX}pack-00001.tar"
    assert [unmet.entry for unmet in plan.unmet] == [FILES.entries[0]]


SWAPPED = _goal(
    wanted=Snapshot.of((entry_of("p", b"new"), entry_of("q", b"x"))),
    disk=Inventory({"p": Found(entry_of("p", b"x")), "q": Found(entry_of("q", b"mine"), "changed")}),
    origin={"p": Ref("o", path="p")},
    packed=True,
)
"""The content of `q` lies in `p` alone, where another one is to go, and what lies in `q` is kept."""


def test_a_content_that_only_lies_where_another_goes_is_saved_before_it_is_packed() -> None:
    plan = make_plan(SWAPPED)
    saved = next(route for route in plan.routes if route.key)
    assert (saved.entry.path, saved.sources[0].place, saved.publications) == ("q", "disk", ())
    (pack,) = plan.packs
    assert pack.members[1].sources == (Source("mirror", Ref(saved.key)),)


def test_what_was_saved_by_a_stopped_run_is_still_packed() -> None:
    first = make_plan(SWAPPED)
    saved = next(route for route in first.routes if route.key)
    again = make_plan(
        dataclasses.replace(
            SWAPPED,
            disk=Inventory({"p": Found(entry_of("p", b"new")), "q": SWAPPED.disk.files["q"]}),
            mirrored={saved.entry.sha256: Ref(saved.key)},
        )
    )
    assert again.routes == ()
    assert _packs(again) == _packs(first)
    assert again.packs[0].members[1].sources == (Source("mirror", Ref(saved.key)),)


def test_an_upload_goes_on_under_its_key() -> None:
    entry = FILES.entries[0]
    goal = _goal(wanted=FILES, disk=_all_on_disk(FILES), unfinished={entry.sha256: "begun/there"})
    assert [route.key for route in make_plan(goal).routes] == [
        "begun/there", *(f"{PREFIX}{n}.bin" for n in range(1, 4))
    ]  # fmt: skip


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


def test_a_shard_with_a_file_that_nobody_holds_waits_with_all_of_it() -> None:
    copies = [entry_of(f"{name}.bin", b"copy") for name in "abcde"]
    lost = entry_of("g.bin", b"lost")
    goal = _goal(wanted=Snapshot((*copies, lost)), origin={"a.bin": Ref("o", "r1", "a.bin")}, packed=True)
    plan = make_plan(goal, limit=4096)
    assert [[member.entry for member in pack.members] for pack in plan.packs] == [copies[:3]], (
        "d, e and g share one"
    )
    assert plan.unmet == (Unmet(NAME, lost),)
    complete(sharding(4096), goal)
