"""The six properties of `make_plan`, proven on generated labs by a pure simulator of its effects."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis.errors import NoSuchExample

from labsync.places import Found, Inventory, Ref
from labsync.plan import Goal, Kept, Plan, Publication, Route, Source, Unmet, conflicts, locate, make_plan
from labsync.snapshot import EMPTY, FileEntry, Snapshot
from tests.strategies import NAME, PREFIX, entry_of, goals

T = TypeVar("T")
Planner: TypeAlias = Callable[[Goal], Plan]
Check: TypeAlias = Callable[[Planner, Goal], None]


@dataclass
class Lab:
    """The places as plain values, and what was moved between them."""

    disk: dict[str, Found]
    mirror: dict[str, Ref]
    origin: dict[str, str]
    aside: list[FileEntry] = field(default_factory=list)
    moved: Counter[str] = field(default_factory=Counter)
    fetched: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, goal: Goal) -> Lab:
        origin = {goal.origin[e.path].path: e.sha256 for e in goal.wanted if e.path in goal.origin}
        return cls(dict(goal.disk.files), dict(goal.mirrored), origin)

    def apply(self, plan: Plan) -> Lab:
        """Stage every content first, as an engine that never loses one does, then write and publish."""
        for route in plan.routes:
            self._fetch(route)
        for route in plan.routes:
            if route.key:
                self.mirror[route.entry.sha256] = Ref(route.key)
                self.moved["to_mirror"] += route.entry.size
            for publication in route.publications:
                self._publish(route, publication)
        return self

    def _fetch(self, route: Route) -> None:
        source = route.sources[0]
        match source.place:
            case "disk":
                holds = self.disk[source.ref.path].entry.sha256
            case "mirror":
                holds = route.entry.sha256 if self.mirror[route.entry.sha256] == source.ref else ""
            case "origin":
                holds = self.origin[source.ref.path]
                self.fetched[holds] += 1
        assert holds == route.entry.sha256, "the source holds what the route promises"
        self.moved[source.place] += route.entry.size

    def _publish(self, route: Route, publication: Publication) -> None:
        entry = publication.entry
        assert entry.sha256 == route.entry.sha256, "what is published is what was fetched"
        there = self.disk.get(entry.path)
        match publication.replace:
            case "nothing":
                assert there is None, "nothing was to stand in the way"
            case "recorded":
                assert there is not None
                assert there.state == "recorded", "only what labsync recorded is replaced"
            case "aside":
                assert there is not None
                self.aside.append(there.entry)
        self.disk[entry.path] = Found(entry, "recorded")
        self.moved["to_disk"] += entry.size

    def goal(self, goal: Goal) -> Goal:
        """Return the goal again, with what the places hold now."""
        return replace(goal, disk=Inventory(self.disk), mirrored=self.mirror)


def complete(plan_for: Planner, goal: Goal) -> None:
    """After it every wanted file is where it should be, but for what is kept and what nobody holds."""
    plan = plan_for(goal)
    lab = Lab.of(goal).apply(plan)
    kept, unmet = {k.path for k in plan.kept}, {u.entry for u in plan.unmet}
    held = {f.entry.sha256 for f in goal.disk.files.values()} | set(goal.mirrored)
    held |= {e.sha256 for e in goal.wanted if e.path in goal.origin}
    for entry in goal.wanted:
        if entry in unmet:
            assert entry.sha256 not in held, "only what no place holds is unmet"
            continue
        if goal.to_mirror:
            assert entry.sha256 in lab.mirror
        if goal.to_disk and entry.path not in kept:
            assert entry.path in lab.disk
            assert lab.disk[entry.path].entry == entry
    if not goal.to_mirror:
        assert lab.mirror == goal.mirrored
    if not goal.to_disk:
        assert lab.disk == goal.disk.files
    if goal.to_mirror and not unmet:
        assert locate(goal, plan) == {e.path: lab.mirror[e.sha256] for e in goal.wanted}


def idempotent(plan_for: Planner, goal: Goal) -> None:
    """Planned again on the result there is nothing to do, and the same is kept and missing."""
    first = plan_for(goal)
    again = plan_for(Lab.of(goal).apply(first).goal(goal))
    assert again.is_empty
    assert (again.kept, again.unmet) == (first.kept, first.unmet)


def deterministic(plan_for: Planner, goal: Goal) -> None:
    """The order in which mappings and listings were filled decides nothing."""
    turned = replace(
        goal,
        wanted=Snapshot.of(reversed(goal.wanted.entries)),
        disk=Inventory(turned_around(goal.disk.files)),
        mirrored=turned_around(goal.mirrored),
        origin=turned_around(goal.origin),
    )
    plan = plan_for(goal)
    assert plan_for(turned) == plan == plan_for(goal)
    # The order of a set of strings changes from one process to the next: only sorting is the same in all.
    for things in (plan.routes, plan.unmet):
        paths = [thing.entry.path.encode() for thing in things]
        assert paths == sorted(paths)


def turned_around(mapping: Mapping[str, T]) -> dict[str, T]:
    return dict(reversed(list(mapping.items())))


def safe(plan_for: Planner, goal: Goal) -> None:
    """What the user made stays where it is; with force, a copy is set aside."""
    plan = plan_for(goal)
    lab = Lab.of(goal).apply(plan)
    base = (goal.base or EMPTY).by_path
    wanted = goal.wanted.by_path
    for path, found in goal.disk.files.items():
        if lab.disk[path] == found:
            continue
        assert path in wanted, "what is not wanted is not touched"
        is_users = found.state == "changed" or (goal.made and found.entry != base.get(path))
        if found.state != "recorded" or is_users:
            assert found.entry in lab.aside, "a copy is set aside"
        if is_users and found.state != "damaged":
            assert goal.force or found.entry == base.get(path), "not without --force"
    for kept in plan.kept:
        assert lab.disk[kept.path] == goal.disk.files[kept.path]


def frugal(plan_for: Planner, goal: Goal) -> None:
    """Nothing moves that is in place, nothing comes from farther away than it must, nothing twice."""
    plan = plan_for(goal)
    on_disk = {found.entry.sha256 for found in goal.disk.files.values()}
    order = ("disk", "mirror", "origin")
    for route in plan.routes:
        assert route.key or route.publications, "no route does nothing"
        assert not route.key or route.entry.sha256 not in goal.mirrored
        for publication in route.publications:
            found = goal.disk.files.get(publication.entry.path)
            assert found is None or found.entry != publication.entry
        places = [source.place for source in route.sources]
        assert places == sorted(places, key=order.index)
        near = "disk" if route.entry.sha256 in on_disk else "mirror"
        if near == "disk" or route.entry.sha256 in goal.mirrored:
            assert places[0] == near
    lab = Lab.of(goal).apply(plan)
    assert all(times == 1 for times in lab.fetched.values())
    assert len({route.entry.sha256 for route in plan.routes}) == len(plan.routes)


def honest(plan_for: Planner, goal: Goal) -> None:
    """The numbers that are announced are the ones that move, and everything has its reason."""
    plan = plan_for(goal)
    lab = Lab.of(goal).apply(plan)
    for place in ("disk", "mirror", "origin"):
        assert plan.bytes_from(place) == lab.moved[place]
    assert plan.bytes_to_mirror == lab.moved["to_mirror"]
    assert plan.bytes_to_disk == lab.moved["to_disk"]
    for route in plan.routes:
        assert route.reason
        for publication in route.publications:
            _expect_reason(goal, publication)
    for kept in plan.kept:
        assert kept.reason in {"ahead", "conflict"}
        assert (kept.reason == "ahead") == (
            goal.made and (goal.base or EMPTY).by_path.get(kept.path) == goal.wanted.by_path[kept.path]
        )


def _expect_reason(goal: Goal, publication: Publication) -> None:
    found = goal.disk.files.get(publication.entry.path)
    match publication.reason:
        case "missing on the disk":
            assert found is None
        case "damaged":
            assert found is not None
            assert found.state == "damaged"
        case "changed here, replaced by --force":
            assert goal.force
        case "behind":
            base = (goal.base or EMPTY).by_path.get(publication.entry.path)
            assert found is not None
            assert found.entry == base if goal.made else found.state == "recorded"
        case other:
            pytest.fail(f"a publication cannot have the reason {other}")


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


def _edit(goal: Goal, change: Callable[[Route], Route]) -> Plan:
    plan = make_plan(goal)
    return replace(plan, routes=tuple(change(route) for route in plan.routes))


def _forgets_the_last_file(goal: Goal) -> Plan:
    return make_plan(replace(goal, wanted=Snapshot(goal.wanted.entries[:-1])))


def _calls_held_files_unmet(goal: Goal) -> Plan:
    plan = make_plan(goal)
    return replace(
        plan, routes=(), unmet=tuple(Unmet(NAME, e) for e in goal.wanted if plan.routes or plan.unmet)
    )


def _never_writes_to_the_mirror(goal: Goal) -> Plan:
    return make_plan(replace(goal, to_mirror=False))


def _publishes_what_is_there(goal: Goal) -> Plan:
    plan = make_plan(goal)
    again = tuple(
        Route(NAME, e, (Source("disk", Ref(e.path, path=e.path)),), (Publication(e, "aside", "behind"),))
        for e in goal.wanted
        if e.path in goal.disk.files and goal.disk.files[e.path].entry == e
    )
    return replace(plan, routes=plan.routes + again)


def _follows_the_order_of_mappings(goal: Goal) -> Plan:
    plan = make_plan(goal)
    order = list(goal.mirrored)
    rank = {sha256: number for number, sha256 in enumerate(order)}
    routes = sorted(plan.routes, key=lambda route: rank.get(route.entry.sha256, -1))
    return replace(plan, routes=tuple(routes))


def _turns_the_routes_around(goal: Goal) -> Plan:
    plan = make_plan(goal)
    return replace(plan, routes=plan.routes[::-1])


def _always_forces(goal: Goal) -> Plan:
    return make_plan(replace(goal, force=True))


def _sets_nothing_aside(goal: Goal) -> Plan:
    def careless(route: Route) -> Route:
        files = goal.disk.files
        return replace(
            route,
            publications=tuple(
                replace(p, replace="recorded") if p.entry.path in files else p for p in route.publications
            ),
        )

    return _edit(goal, careless)


def _touches_what_is_not_wanted(goal: Goal) -> Plan:
    plan = make_plan(goal)
    others = sorted(goal.disk.files.keys() - goal.wanted.by_path.keys())
    extra = tuple(
        Route(
            NAME,
            goal.disk.files[path].entry,
            (Source("disk", Ref(path, path=path)),),
            (Publication(replace(goal.disk.files[path].entry, executable=True), "aside", "behind"),),
        )
        for path in others
    )
    return replace(plan, routes=plan.routes + extra)


def _asks_the_origin_first(goal: Goal) -> Plan:
    return _edit(goal, lambda route: replace(route, sources=route.sources[::-1]))


def _fetches_for_each_name(goal: Goal) -> Plan:
    plan = make_plan(goal)
    single = tuple(
        replace(route, publications=(publication,), key=route.key if number == 0 else "")
        for route in plan.routes
        for number, publication in enumerate(route.publications)
    )
    return replace(plan, routes=single + tuple(r for r in plan.routes if not r.publications))


def _counts_each_name(goal: Goal) -> Plan:
    class Boasting(Plan):
        @property
        def bytes_to_mirror(self) -> int:
            return sum(route.entry.size * max(1, len(route.publications)) for route in self.routes)

    plan = make_plan(goal)
    return Boasting(plan.artifact, plan.routes, plan.kept, plan.unmet)


def _gives_the_wrong_reason(goal: Goal) -> Plan:
    def lie(route: Route) -> Route:
        return replace(route, publications=tuple(replace(p, reason="damaged") for p in route.publications))

    return _edit(goal, lie)


def _calls_a_conflict_ahead(goal: Goal) -> Plan:
    plan = make_plan(goal)
    return replace(plan, kept=tuple(Kept(k.artifact, k.path, "ahead") for k in plan.kept))


@pytest.mark.parametrize(
    ("check", "broken"),
    [
        (complete, _forgets_the_last_file),
        (complete, _calls_held_files_unmet),
        (complete, _never_writes_to_the_mirror),
        (idempotent, _publishes_what_is_there),
        (deterministic, _follows_the_order_of_mappings),
        (deterministic, _turns_the_routes_around),
        (safe, _always_forces),
        (safe, _sets_nothing_aside),
        (safe, _touches_what_is_not_wanted),
        (frugal, _publishes_what_is_there),
        (frugal, _asks_the_origin_first),
        (frugal, _fetches_for_each_name),
        (honest, _counts_each_name),
        (honest, _gives_the_wrong_reason),
        (honest, _calls_a_conflict_ahead),
    ],
)
def test_property_notices_a_planted_fault(check: Check, broken: Planner) -> None:
    def objects(goal: Goal) -> bool:
        try:
            check(broken, goal)
        except AssertionError:
            return True
        return False

    quick = settings(
        max_examples=3000,
        phases=(Phase.generate,),
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    try:
        find(goals(), objects, settings=quick)
    except NoSuchExample:
        pytest.fail(f"`{check.__name__}` cannot fail for `{broken.__name__}`")


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
    assert conflicts([plan]) == (Kept(NAME, "a.bin", "conflict"),)


def test_every_path_of_a_content_that_nobody_holds_is_named() -> None:
    twice = Snapshot.of((entry_of("a", b"x"), entry_of("b", b"x")))
    plan = make_plan(_goal(wanted=twice))
    assert plan.unmet == tuple(Unmet(NAME, entry) for entry in twice)
    assert locate(_goal(wanted=twice), plan) == {}


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
