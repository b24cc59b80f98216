"""A lab as plain values, on which a plan can be simulated, and the six properties of a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar

import pytest

from labsync.places import Found, Inventory, Ref
from labsync.plan import Goal, Plan, Publication, Route
from labsync.snapshot import EMPTY, FileEntry, Snapshot

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
