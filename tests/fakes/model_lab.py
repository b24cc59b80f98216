"""A lab as plain values, on which a plan can be simulated, and the six properties of a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar

import pytest
from hypothesis import strategies as st

from labsync.packing import layout
from labsync.places import Found, Inventory, Ref
from labsync.plan import NO_FILES, Goal, Pack, Plan, Publication, Route, Source, make_plan
from labsync.snapshot import EMPTY, FileEntry, Snapshot
from tests.strategies import goals

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
    fetched: Counter[tuple[str, str]] = field(default_factory=Counter)

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
        new = {}
        for pack in plan.packs:
            self._fetch_members(pack)
            self.moved["to_mirror"] += pack.size
            new.update({m.entry.sha256: Ref(pack.key, offset=m.offset) for m in pack.members})
        self.mirror.update(new)
        return self

    def _fetch_members(self, pack: Pack) -> None:
        """Read every file from the disk, and from farther away each content once."""
        far = set()
        for member in pack.members:
            source, sha256 = member.sources[0], member.entry.sha256
            assert self._holds(source, sha256) == sha256, "the source still holds what the member promises"
            if source.place == "disk" or sha256 not in far:
                self.moved[source.place] += member.entry.size
                if source.place != "disk":
                    far.add(sha256)
                self.fetched[sha256, pack.key] += source.place == "origin"

    def _fetch(self, route: Route) -> None:
        source, sha256 = route.sources[0], route.entry.sha256
        assert self._holds(source, sha256) == sha256, "the source holds what the route promises"
        self.moved[source.place] += route.entry.size
        self.fetched[sha256, ""] += source.place == "origin"

    def _holds(self, source: Source, sha256: str) -> str:
        match source.place:
            case "disk":
                return self.disk[source.ref.path].entry.sha256
            case "mirror":
                return sha256 if self.mirror[sha256] == source.ref else ""
            case "origin":
                return self.origin[source.ref.path]

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
        if goal.to_mirror and not (goal.packed and unmet):
            assert entry.sha256 in lab.mirror
        if goal.to_disk and entry.path not in kept:
            assert entry.path in lab.disk
            assert lab.disk[entry.path].entry == entry
    packed = {member.entry.path: member.entry.sha256 for pack in plan.packs for member in pack.members}
    for entry in () if unmet else goal.wanted:  # a shard with an unmet file waits, and so do its neighbours
        assert entry.sha256 not in packed.values() or entry.path in packed, "`tar` gives every file back"
    if not goal.to_mirror:
        assert lab.mirror == goal.mirrored
    if not goal.to_disk:
        assert lab.disk == goal.disk.files


def idempotent(plan_for: Planner, goal: Goal) -> None:
    """Planned again on the result there is nothing to do, and the same is kept and missing.

    While something is missing no index tells where the rest lies: then the packs are laid out as before.
    """
    first = plan_for(goal)
    lab = Lab.of(goal).apply(first)
    if goal.packed and first.unmet:
        lab.mirror = {s: r for s, r in lab.mirror.items() if r.offset is None} | dict(goal.mirrored)
    again = plan_for(lab.goal(goal))
    assert not again.routes
    assert _laid_out(again) == (_laid_out(first) if first.unmet else [])
    assert (again.kept, again.unmet) == (first.kept, first.unmet)


def _laid_out(plan: Plan) -> list[tuple[str, int, list[tuple[FileEntry, int]]]]:
    return [(pack.key, pack.size, [(m.entry, m.offset) for m in pack.members]) for pack in plan.packs]


def deterministic(plan_for: Planner, goal: Goal) -> None:
    """The order in which mappings and listings were filled decides nothing."""
    turned = replace(
        goal,
        wanted=Snapshot.of(reversed(goal.wanted.entries)),
        disk=Inventory(turned_around(goal.disk.files)),
        mirrored=turned_around(goal.mirrored),
        unfinished=turned_around(goal.unfinished),
        origin=turned_around(goal.origin),
    )
    plan = plan_for(goal)
    assert plan_for(turned) == plan == plan_for(goal)
    # The order of a set of strings changes from one process to the next: only sorting is the same in all.
    orders = [[route.entry for route in plan.routes], [unmet.entry for unmet in plan.unmet]]
    orders.append([member.entry for pack in plan.packs for member in pack.members])
    for entries in orders:
        paths = [entry.path.encode() for entry in entries]
        assert paths == sorted(paths)


@st.composite
def packed_goals(draw: st.DrawFn) -> Goal:
    """A goal whose new contents go into packs, and some uploads of which were begun."""
    goal = draw(goals())
    if not goal.to_mirror:
        return replace(goal, packed=True)
    contents = sorted({entry.sha256 for entry in goal.wanted})
    some = st.sets(st.sampled_from(contents)) if contents else st.just(set[str]())
    return replace(
        goal,
        packed=True,
        unfinished={sha256: f"{goal.key_prefix}begun/{sha256[:6]}" for sha256 in sorted(draw(some))},
    )


def sharding(limit: int) -> Planner:
    """Return the planner whose shards have this limit."""
    return lambda goal: make_plan(goal, limit)


PLANNERS = (make_plan, sharding(12), sharding(2100), sharding(4096))
"""With files beside the packs, with a pack for each sample, with a few files in a pack, and as it is."""


def resumable(plan_for: Planner, goal: Goal) -> None:
    """A stopped upload is laid out the same way again, whatever the disk and the origin have by then."""
    origin = {entry.path: Ref("fake://origin", "r1", entry.path) for entry in goal.wanted}
    whole = plan_for(replace(goal, disk=NO_FILES, origin=origin))
    again = {key: rest for key, *rest in _laid_out(whole)}
    for key, *rest in _laid_out(plan_for(goal)):
        assert again[key] == rest


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
    assert all(times <= 1 for times in lab.fetched.values())
    assert len({route.entry.sha256 for route in plan.routes}) == len(plan.routes)
    _frugal_packs(goal, plan, lab)


def _frugal_packs(goal: Goal, plan: Plan, lab: Lab) -> None:
    after = {found.entry.sha256 for found in lab.disk.values()}
    alone = {route.entry.sha256: route.key for route in plan.routes if route.key}
    paths = [member.entry.path for pack in plan.packs for member in pack.members]
    assert len(set(paths)) == len(paths), "no file lies in two packs"
    for pack in plan.packs:
        assert pack.members, "no pack is empty"
        for member in pack.members:
            sha256, first = member.entry.sha256, member.sources[0]
            assert sha256 not in goal.mirrored, "what is mirrored stays where it is"
            assert (first.place == "disk") == (sha256 in after), "what is here by then is read here"
            assert not (lab.fetched[sha256, ""] and lab.fetched[sha256, pack.key]), "one of them is enough"
            if sha256 in alone:  # what lies only where a route publishes something else
                assert first == Source("mirror", Ref(alone[sha256]))


def honest(plan_for: Planner, goal: Goal) -> None:
    """The numbers that are announced are the ones that move, and everything has its reason."""
    plan = plan_for(goal)
    lab = Lab.of(goal).apply(plan)
    assert plan.files_to_mirror == sum(bool(r.key) for r in plan.routes) + sum(
        len(p.members) for p in plan.packs
    )
    for place in ("disk", "mirror", "origin"):
        assert plan.bytes_from(place) == lab.moved[place]
    assert plan.bytes_to_mirror == lab.moved["to_mirror"]
    assert plan.bytes_to_disk == lab.moved["to_disk"]
    for pack in plan.packs:
        (shard,) = layout((member.entry for member in pack.members), 1 << 60)
        assert (shard.size, shard.members) == (pack.size, tuple((m.entry, m.offset) for m in pack.members))
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
