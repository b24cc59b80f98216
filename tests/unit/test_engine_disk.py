"""The transfer engine and the disk, files that change places, stops, kills and bugs."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from labsync.errors import (
    ChangedError,
    DiskError,
    InterruptedRunError,
    UnavailableError,
)
from labsync.names import ArtifactName
from labsync.places import Ref
from labsync.plan import Route, Source
from labsync.transfer import workload
from labsync.transfer.engine import overtaken
from tests.fakes.engine_lab import BIG, BIGGER, MIB, ONE, TWO, Lab, errors, full, route
from tests.fakes.places import (
    Reading,
    raises,
)
from tests.fakes.recorder import FakeClock
from tests.strategies import entry_of


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


# The disk


@pytest.mark.fault(17)
def test_full_disk_is_permanent_and_no_further_route_begins_on_it(lab: Lab) -> None:
    lab.jobs = 1
    lab.origin.fail(BIG, raises(full(), after=MIB))
    outcome = lab.run(
        route(BIG, "origin"), route(BIGGER, "origin", to="b"), route(BIGGER, "origin", to="c", key="k")
    )
    assert errors(outcome) == [DiskError] * 3
    assert [failure.error.path for failure in outcome.failures] == ["a.bin", "b", "c"]
    assert len(lab.origin.reads) == 1
    assert lab.clock.waits == []
    assert lab.left_over() == []


@pytest.mark.fault(20)
def test_disk_that_fills_up_while_publishing_stops_it_as_well(lab: Lab) -> None:
    lab.jobs = 1
    lab.home.publish_faults["a.bin"] = full(errno.EDQUOT)
    outcome = lab.run(route(BIG, "origin"), route(BIGGER, "origin", to="b"))
    assert errors(outcome) == [DiskError] * 2
    assert len(lab.origin.reads) == 1


@pytest.mark.fault(22)
def test_one_forbidden_folder_does_not_stop_the_disk(lab: Lab) -> None:
    lab.jobs = 1
    lab.home.publish_faults["a.bin"] = full(errno.EACCES)
    good = route(BIGGER, "origin", to="b")
    assert lab.run(route(BIG, "origin"), good).done == (good,)


@pytest.mark.fault(17)
@pytest.mark.parametrize(("one", "other"), [(BIG, BIGGER), (ONE, TWO)], ids=["large", "small"])
def test_full_mirror_does_not_stop_the_disk(lab: Lab, one: bytes, other: bytes) -> None:
    lab.jobs = 1
    lab.mirror.write_faults.append(full())
    outcome = lab.run(route(one, "origin", key="k1"), route(other, "origin", to="b", key="k2"))
    assert errors(outcome) == [DiskError] * 2
    assert len(lab.mirror.writes) == 1
    assert (lab.stored("a.bin"), lab.stored("b")) == (one, other)


def test_stage_that_cannot_be_made_is_a_disk_error(lab: Lab) -> None:
    lab.root.joinpath("stage").write_text("a file where the folder must go")
    assert errors(lab.run(route(ONE, "origin"))) == [DiskError]


def swapped() -> tuple[Route, ...]:
    """Return the routes by which ONE in `a` and TWO in `b` change places."""
    return tuple(
        replace(route(data, to=to, replacing="recorded"), sources=(Source("disk", Ref("", path=at)),))
        for data, to, at in ((ONE, "b", "a"), (TWO, "a", "b"))
    )


def test_files_that_change_places_both_arrive(lab: Lab) -> None:
    lab.jobs = 1
    lab.home.put("a", ONE)
    lab.home.put("b", TWO)
    swap = swapped()
    outcome = lab.run(*swap)
    assert outcome.done == swap
    assert (lab.stored("a"), lab.stored("b")) == (TWO, ONE)
    assert workload(swap) == (2, lab.seen.bytes_moved)
    assert lab.left_over() == []


def test_pushed_file_that_another_content_replaces_is_saved_first(lab: Lab) -> None:
    lab.jobs = 1
    lab.home.put("a", ONE)
    push = replace(route(ONE, to="", key="k"), sources=(Source("disk", Ref("", path="a")),))
    outcome = lab.run(route(TWO, "origin", to="a", replacing="recorded"), push)
    assert len(outcome.done) == 2
    assert lab.mirror.keys == {"k": ONE}
    assert lab.mirror.writes == [("k", lab.home.path / "a")]
    assert lab.stored("a") == TWO


def test_failure_while_saving_does_not_lose_the_other_file(lab: Lab) -> None:
    lab.home.put("a", ONE.upper())
    lab.home.put("b", TWO)
    swap = swapped()
    outcome = lab.run(*swap)
    assert errors(outcome) == [ChangedError]
    assert lab.left_over() == []


def test_route_that_replaces_what_it_reads_is_not_overtaken() -> None:
    own = replace(route(ONE, to="a", replacing="recorded"), sources=(Source("disk", Ref("", path="a")),))
    other = route(TWO, "origin", to="b", replacing="recorded")
    assert overtaken([own, other]) == set()
    assert overtaken([own, replace(other, artifact=ArtifactName("models/a"))]) == set()
    reads_b = replace(own, sources=(Source("disk", Ref("", path="b")),))
    assert overtaken([reads_b, other]) == {id(reads_b)}


# Stopping, killing, and bugs


def test_stop_ends_the_parts_at_their_next_block_and_begins_nothing_new(lab: Lab) -> None:
    lab.jobs = 1

    def stops(reading: Reading) -> Iterator[bytes]:
        yield from reading.give(1 << 17)
        lab.stop.set()
        yield from reading.give()

    third = bytes(MIB + 1)
    lab.origin.hold(third)
    lab.origin.fail(BIGGER, stops)
    with pytest.raises(InterruptedRunError):
        lab.run(route(BIG, "origin"), route(BIGGER, "origin", to="b"), route(third, "origin", to="c"))
    assert lab.home.published == ["a.bin"]
    assert len(lab.origin.reads) == 2
    assert lab.seen.bytes_moved == len(BIG) + (1 << 17)
    assert lab.left_over() == []


def test_stop_is_seen_while_waiting(lab: Lab) -> None:
    lab.origin.fail(ONE, raises(UnavailableError("down"), after=4))

    class Stopping(FakeClock):
        def wait(self, changed: threading.Condition, seconds: float) -> None:
            lab.stop.set()

    lab.clock = Stopping()
    with pytest.raises(InterruptedRunError):
        lab.run(route(ONE, "origin"))
    assert len(lab.origin.reads) == 1
    assert lab.left_over() == []


def test_stop_before_the_start_begins_nothing(lab: Lab) -> None:
    lab.stop.set()
    with pytest.raises(InterruptedRunError):
        lab.run(route(ONE, "origin"))
    assert lab.origin.reads == []


def test_ctrl_c_ends_the_threads_before_it_is_reported(lab: Lab) -> None:
    ended = threading.Event()

    def interrupts(reading: Reading) -> Iterator[bytes]:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            while True:
                yield b""
        finally:
            ended.set()

    lab.origin.fail(ONE, interrupts)
    with pytest.raises(InterruptedRunError):
        lab.run(route(ONE, "origin"))
    assert ended.is_set()
    assert not lab.stop.is_set()
    assert lab.left_over() == []


def test_bug_is_raised_as_it_is_after_the_threads_have_ended(lab: Lab) -> None:
    lab.origin.fail(ONE, raises(ZeroDivisionError("a bug"), after=4))
    with pytest.raises(ZeroDivisionError):
        lab.run(route(ONE, "origin"))
    assert lab.left_over() == []


def test_bug_while_contents_are_held_leaves_nothing_behind(lab: Lab) -> None:
    lab.home.put("a", ONE)
    lab.origin.fail(TWO, raises(ZeroDivisionError("a bug")))
    keep = replace(route(ONE, to="b"), sources=(Source("disk", Ref("", path="a")),))
    with pytest.raises(ZeroDivisionError):
        lab.run(keep, route(TWO, "origin", to="a", replacing="recorded"))
    assert lab.left_over() == []


def test_bug_while_publishing_leaves_no_other_held_content_behind(lab: Lab) -> None:
    lab.jobs = 1
    lab.home.put("a", ONE)
    lab.home.put("b", TWO)
    lab.home.publish_faults["b"] = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        lab.run(*swapped())
    assert lab.left_over() == []


def test_parts_of_a_killed_run_are_removed_and_foreign_files_are_not(lab: Lab) -> None:
    lab.home.stage.mkdir(parents=True)
    sha256 = entry_of("a.bin", ONE).sha256
    for name in (f"{sha256}.part", f"{sha256}.0123abcd.part", f"{'0' * 64}.part", "notes.part"):
        (lab.home.stage / name).write_bytes(b"half a file")
    lab.run(route(ONE, "origin"))
    assert lab.stored("a.bin") == ONE
    assert lab.left_over() == ["notes.part"]


def test_parts_of_another_process_are_left_alone(lab: Lab) -> None:
    lab.home.stage.mkdir(parents=True)
    theirs = lab.home.stage / f"{entry_of('a.bin', ONE).sha256}.part"
    folder = os.open(lab.home.stage, os.O_RDONLY)
    with theirs.open("wb") as file:
        file.write(b"theirs")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.flock(folder, fcntl.LOCK_SH)
        outcome = lab.run(route(ONE, "origin"))
        assert outcome.done
    os.close(folder)
    assert theirs.read_bytes() == b"theirs"
    assert lab.stored("a.bin") == ONE
    assert lab.left_over() == [theirs.name]


def test_link_in_the_place_of_a_part_is_not_followed(lab: Lab) -> None:
    lab.home.stage.mkdir(parents=True)
    victim = lab.root / "victim"
    victim.write_bytes(b"precious")
    folder = os.open(lab.home.stage, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_SH)  # so that nothing is swept
    (lab.home.stage / f"{entry_of('a.bin', BIG).sha256}.part").symlink_to(victim)
    outcome = lab.run(route(BIG, "origin"))
    os.close(folder)
    assert errors(outcome) == [DiskError]
    assert victim.read_bytes() == b"precious"
