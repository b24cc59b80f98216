"""The transfer engine between a fake origin, a fake mirror and a folder on the disk."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from labsync.disk.base import Staged
from labsync.errors import (
    ChangedError,
    ConflictError,
    DiskError,
    IntegrityError,
    LabsyncError,
    NotAllowedError,
    NotFoundError,
    UnavailableError,
)
from labsync.events import FileDone
from labsync.names import ArtifactName
from labsync.places import Place, Ref
from labsync.plan import Goal, Publication, Route, Source, make_plan
from labsync.report import Transferred
from labsync.transfer import Engine, Outcome, workload
from tests.fakes.engine_lab import NAME, ONE, TWO, Lab, errors, full, route
from tests.fakes.places import (
    FakeHome,
    FakeMirror,
    FakeReader,
)
from tests.strategies import DATA, entry_of, goals


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


# What happens when nothing fails


def test_content_goes_from_the_origin_through_the_mirror_to_the_disk(lab: Lab) -> None:
    way = route(ONE, "origin", key="batch/a.bin")
    outcome = lab.run(way)
    assert outcome.done == (way,)
    assert outcome.failures == ()
    assert outcome.mirrored(NAME) == {way.entry.sha256: "batch/a.bin"}
    assert lab.stored("a.bin") == lab.mirror.keys["batch/a.bin"] == ONE
    size = len(ONE)
    moved = outcome.transferred
    assert (moved.files, moved.from_origin, moved.to_mirror, moved.from_mirror) == (1, size, size, 0)
    assert (moved.bytes, moved.resent) == (2 * size, 0)
    assert lab.left_over() == []


def test_events_sum_up_to_the_workload_and_tell_each_file(lab: Lab) -> None:
    lab.home.put("a.bin", b"mine")
    routes = (
        route(ONE, "origin", to="c.bin", key="k/c"),
        route(TWO, "origin", to="b.bin"),
        route(b"mine", "disk", to="", key="k/mine"),
    )
    lab.run(*routes)
    assert workload(routes) == (3, lab.seen.bytes_moved)
    assert lab.seen.bytes_moved == 2 * len(ONE) + len(TWO) + len(b"mine")
    assert sorted(event.path for event in lab.seen.of(FileDone)) == ["a.bin", "b.bin", "c.bin"]


def test_nearer_place_spares_the_farther_ones(lab: Lab) -> None:
    lab.home.put("old.bin", ONE)
    lab.mirror.hold(ONE)
    way = replace(
        route(ONE, "disk", "mirror", "origin"),
        sources=(Source("disk", Ref("", path="old.bin")), Source("mirror", Ref("k"))),
    )
    outcome = lab.run(way)
    assert lab.stored("a.bin") == ONE
    assert (lab.mirror.reads, lab.origin.reads, outcome.transferred.bytes) == ([], [], 0)


def test_one_content_is_published_under_several_names_by_one_read(lab: Lab) -> None:
    names = [replace(entry_of(name, ONE), executable=name == "tool") for name in ("a", "b/c", "tool")]
    way = replace(
        route(ONE, "origin"), publications=tuple(Publication(e, "nothing", "behind") for e in names)
    )
    outcome = lab.run(way)
    assert outcome.done == (way,)
    assert {p: f.entry for p, f in lab.home.inventory(rehash=True).files.items()} == {
        e.path: e for e in names
    }
    assert len(lab.origin.reads) == 1
    assert len({(lab.home.path / e.path).stat().st_ino for e in names}) == 3
    assert lab.left_over() == []


def test_mirror_only_route_never_touches_the_disk(lab: Lab) -> None:
    way = route(ONE, "origin", to="", key="k")
    outcome = lab.run(way, work=replace(lab.work, home=None))
    assert outcome.done == (way,)
    assert lab.mirror.keys == {"k": ONE}
    assert not lab.home.path.exists()
    assert lab.left_over() == []


def test_several_artifacts_share_one_pool_and_keep_their_own_keys(lab: Lab, tmp_path: Path) -> None:
    other = ArtifactName("models/pens")
    first = route(ONE, "origin", key="datasets/k")
    second = replace(route(ONE, "origin", key="models/k"), artifact=other)
    far = FakeHome(tmp_path / "other")
    engine = Engine(jobs=2)
    outcome = engine.execute([first, second], {NAME: lab.work, other: replace(lab.work, home=far)})
    assert outcome.done == (first, second)
    assert outcome.mirrored(NAME) == {first.entry.sha256: "datasets/k"}
    assert outcome.mirrored(other) == {first.entry.sha256: "models/k"}
    assert (far.path / "a.bin").read_bytes() == ONE


@pytest.mark.fault(70)
def test_empty_file_is_carried(lab: Lab) -> None:
    lab.origin.hold(b"")
    way = route(b"", "origin", key="k")
    assert lab.run(way).done == (way,)
    assert lab.stored("a.bin") == lab.mirror.keys["k"] == b""


def test_no_routes_is_an_empty_outcome(lab: Lab) -> None:
    assert lab.run() == Outcome((), (), (), Transferred())


# The mirror before the disk, and neither stops the other


def test_mirror_is_written_before_the_disk(lab: Lab) -> None:
    order: list[str] = []

    class Home(FakeHome):
        def publish(self, files: Sequence[Staged]) -> list[LabsyncError | None]:
            order.append("disk")
            return super().publish(files)

    work = replace(lab.work, home=Home(lab.root), on_written=lambda _: order.append("mirror"))
    lab.run(route(ONE, "origin", key="k"), work=work)
    assert order == ["mirror", "disk"]


def test_failed_write_to_the_mirror_does_not_keep_the_disk_from_its_file(lab: Lab) -> None:
    lab.mirror.write_faults.append(NotAllowedError("no right to write"))
    outcome = lab.run(route(ONE, "origin", key="k"))
    assert lab.stored("a.bin") == ONE
    assert errors(outcome) == [NotAllowedError]
    assert (outcome.done, outcome.written, lab.on_written) == ((), (), [])
    assert lab.seen.of(FileDone) == []


def test_failure_of_mirror_and_disk_are_both_reported(lab: Lab) -> None:
    lab.mirror.write_faults.append(NotAllowedError("no right to write"))
    lab.home.publish_faults["a.bin"] = full()
    outcome = lab.run(route(ONE, "origin", key="k"))
    assert errors(outcome) == [NotAllowedError, DiskError]
    assert {error.artifact for error in outcome.errors(NAME)} == {NAME}


def test_file_in_the_way_of_one_name_is_not_in_the_way_of_the_others(lab: Lab) -> None:
    lab.home.put("taken", b"the user's", known=False)
    names = tuple(Publication(entry_of(n, ONE), "nothing", "behind") for n in ("free", "taken", "z"))
    outcome = lab.run(replace(route(ONE, "origin", key="k"), publications=names))
    assert errors(outcome) == [ConflictError]
    assert outcome.failures[0].error.path == "taken"
    assert lab.stored("taken") == b"the user's"
    assert lab.stored("free") == lab.stored("z") == ONE
    assert outcome.written
    assert not outcome.done
    assert lab.left_over() == []


def test_failed_route_does_not_stop_the_others(lab: Lab) -> None:
    lab.origin.contents.clear()
    lab.origin.hold(TWO)
    good = route(TWO, "origin", to="b.bin")
    outcome = lab.run(route(ONE, "origin"), good)
    assert outcome.done == (good,)
    assert errors(outcome) == [NotFoundError]


# The user's own file goes to the mirror as it lies


def mine(data: bytes, *places: Place) -> Route:
    return route(data, "disk", *places, to="", key="k")


def test_push_reads_the_users_file_itself(lab: Lab) -> None:
    lab.home.put("a.bin", ONE)
    outcome = lab.run(mine(ONE))
    assert lab.mirror.writes == [("k", lab.home.path / "a.bin")]
    assert lab.on_written == ["k"]
    assert outcome.transferred.to_mirror == len(ONE)
    assert not lab.home.stage.exists()


def test_file_that_changed_before_the_push_is_reported_before_a_byte_is_sent(lab: Lab) -> None:
    lab.home.put("a.bin", ONE + b" grown")
    outcome = lab.run(mine(ONE))
    assert errors(outcome) == [ChangedError]
    assert (lab.mirror.keys, outcome.transferred) == ({}, Transferred())


@pytest.mark.fault(35)
def test_file_that_disappeared_before_the_push_is_reported(lab: Lab) -> None:
    assert errors(lab.run(mine(ONE))) == [ChangedError]


@pytest.mark.fault(32)
def test_file_rewritten_with_the_same_size_is_caught_by_the_mirror(lab: Lab) -> None:
    lab.home.put("a.bin", ONE.upper())
    outcome = lab.run(mine(ONE))
    assert errors(outcome) == [ChangedError]
    assert lab.mirror.keys == {}


def test_changed_file_comes_from_the_origin_where_that_has_it(lab: Lab) -> None:
    lab.home.put("a.bin", ONE.upper())
    outcome = lab.run(mine(ONE, "origin"))
    assert lab.mirror.keys == {"k": ONE}
    assert errors(outcome) == []
    assert lab.stored("a.bin") == ONE.upper()


@pytest.mark.fault(43)
def test_server_that_saw_other_bytes_gets_them_once_more(lab: Lab) -> None:
    lab.home.put("a.bin", ONE)
    lab.mirror.write_faults.append(IntegrityError("bad digest"))
    outcome = lab.run(mine(ONE))
    assert lab.mirror.keys == {"k": ONE}
    assert outcome.transferred.resent == len(ONE) // 2
    assert lab.seen.bytes_moved == len(ONE)


def test_server_that_sees_other_bytes_twice_is_reported(lab: Lab) -> None:
    lab.home.put("a.bin", ONE)
    lab.mirror.write_faults.extend([IntegrityError("bad digest"), IntegrityError("bad digest")])
    assert errors(lab.run(mine(ONE))) == [IntegrityError]
    assert len(lab.mirror.writes) == 2


def test_write_is_retried_while_the_mirror_is_unavailable(lab: Lab) -> None:
    lab.home.put("a.bin", ONE)
    lab.mirror.write_faults.extend([UnavailableError("slow down"), UnavailableError("slow down")])
    outcome = lab.run(mine(ONE))
    assert outcome.done
    assert len(lab.mirror.writes) == 3
    assert lab.seen.bytes_moved == len(ONE)


# Any plan


@given(goals())
@settings(max_examples=150)
def test_any_plan_is_carried_out_as_it_says(goal: Goal) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), jobs=3)
        for path, found in goal.disk.files.items():
            lab.home.put(path, DATA[found.entry.sha256], known=found.state == "recorded")
            lab.home.source(path).chmod(0o755 if found.entry.executable else 0o644)
        lab.origin = FakeReader(DATA.values())
        lab.mirror = FakeMirror(DATA[sha256] for sha256 in goal.mirrored)
        plan = make_plan(goal)
        work = replace(lab.work, origin=lab.origin)
        engine = Engine(jobs=3, observer=lab.seen, clock=lab.clock)
        outcome = engine.execute(plan.routes, {goal.artifact: work})
        assert outcome.failures == ()
        assert outcome.done == plan.routes
        _expect(lab, goal, outcome)
        moved = outcome.transferred
        assert moved.from_origin == plan.bytes_from("origin")
        assert moved.from_mirror == plan.bytes_from("mirror")
        assert moved.to_mirror == plan.bytes_to_mirror
        assert workload(plan.routes) == (len(plan.routes), lab.seen.bytes_moved)
        assert lab.left_over() == []


def _expect(lab: Lab, goal: Goal, outcome: Outcome) -> None:
    now = {path: found.entry for path, found in lab.home.inventory(rehash=True).files.items()}
    expected = {path: found.entry for path, found in goal.disk.files.items()}
    for way in outcome.done:
        expected.update({p.entry.path: p.entry for p in way.publications})
    assert now == expected
    assert set(lab.mirror.keys) == set(outcome.mirrored(goal.artifact).values())
