"""Each property of a plan can fail: broken planners, and the property that must object to each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis.errors import NoSuchExample
from hypothesis.strategies import SearchStrategy

from labsync.places import Ref
from labsync.plan import Goal, Kept, Member, Pack, Plan, Publication, Route, Source, Unmet, make_plan
from labsync.snapshot import Snapshot
from tests.fakes.model_lab import (
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
)
from tests.strategies import NAME, goals


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
    return Boasting(plan.artifact, plan.routes, plan.packs, plan.kept, plan.unmet)


def _gives_the_wrong_reason(goal: Goal) -> Plan:
    def lie(route: Route) -> Route:
        return replace(route, publications=tuple(replace(p, reason="damaged") for p in route.publications))

    return _edit(goal, lie)


def _calls_a_conflict_ahead(goal: Goal) -> Plan:
    plan = make_plan(goal)
    return replace(plan, kept=tuple(Kept(k.artifact, k.path, "ahead") for k in plan.kept))


def _edit_packs(goal: Goal, change: Callable[[Pack], Pack]) -> Plan:
    plan = make_plan(goal)
    return replace(plan, packs=tuple(change(pack) for pack in plan.packs))


def _edit_members(goal: Goal, change: Callable[[Member], Member]) -> Plan:
    return _edit_packs(goal, lambda pack: replace(pack, members=tuple(change(m) for m in pack.members)))


def _forgets_the_last_pack(goal: Goal) -> Plan:
    plan = make_plan(goal)
    return replace(plan, packs=plan.packs[:-1])


def _packs_each_content_once(goal: Goal) -> Plan:
    def once(pack: Pack) -> Pack:
        return replace(pack, members=tuple({m.entry.sha256: m for m in pack.members}.values()))

    return _edit_packs(goal, once)


def _packs_what_is_replaced_by_then(goal: Goal) -> Plan:
    lies = {found.entry.sha256: path for path, found in goal.disk.files.items()}

    def early(member: Member) -> Member:
        path = lies.get(member.entry.sha256)
        return replace(member, sources=(Source("disk", Ref(path, path=path)),)) if path else member

    return _edit_members(goal, early)


def _knows_no_packs(goal: Goal) -> Plan:
    return make_plan(replace(goal, mirrored={s: r for s, r in goal.mirrored.items() if r.offset is None}))


def _turns_the_members_around(goal: Goal) -> Plan:
    return _edit_packs(goal, lambda pack: replace(pack, members=pack.members[::-1]))


def _packs_what_is_mirrored(goal: Goal) -> Plan:
    return make_plan(replace(goal, mirrored={}))


def _packs_from_afar(goal: Goal) -> Plan:
    return _edit_members(goal, lambda member: replace(member, sources=member.sources[::-1]))


def _counts_a_pack_by_its_files(goal: Goal) -> Plan:
    return _edit_packs(goal, lambda pack: replace(pack, size=sum(m.entry.size for m in pack.members)))


def _packs_only_what_is_held(goal: Goal) -> Plan:
    unmet = {unmet.entry for unmet in make_plan(goal).unmet}
    plan = make_plan(replace(goal, wanted=Snapshot(tuple(e for e in goal.wanted if e not in unmet))))
    return replace(plan, unmet=tuple(Unmet(NAME, entry) for entry in goal.wanted if entry in unmet))


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
    assert _is_noticed(check, broken, goals()), f"`{check.__name__}` cannot fail for `{broken.__name__}`"


@pytest.mark.parametrize(
    ("check", "broken"),
    [
        (complete, _forgets_the_last_pack),
        (complete, _packs_each_content_once),
        (complete, _packs_what_is_replaced_by_then),
        (idempotent, _knows_no_packs),
        (deterministic, _turns_the_members_around),
        (frugal, _packs_what_is_mirrored),
        (frugal, _packs_from_afar),
        (honest, _counts_a_pack_by_its_files),
        (resumable, _packs_only_what_is_held),
    ],
)
def test_property_notices_a_fault_in_the_packs(check: Check, broken: Planner) -> None:
    assert _is_noticed(check, broken, packed_goals()), (
        f"`{check.__name__}` cannot fail for `{broken.__name__}`"
    )


def _is_noticed(check: Check, broken: Planner, generated: SearchStrategy[Goal]) -> bool:
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
        find(generated, objects, settings=quick)
    except NoSuchExample:
        return False
    return True
