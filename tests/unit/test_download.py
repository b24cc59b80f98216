"""Large files: several connections, continued after any stop and from any place, never a wrong byte."""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labsync.errors import (
    DiskError,
    InterruptedRunError,
    NotFoundError,
    UnavailableError,
)
from labsync.names import ArtifactName
from labsync.plan import Publication
from labsync.transfer import Engine, workload
from labsync.transfer.download import CONNECTIONS
from labsync.transfer.parts import arrived
from labsync.transfer.ranges import Extent
from tests.fakes.engine_lab import MIB, NAME, Lab, errors, route
from tests.fakes.large import ENTRY, HUGE, LARGE, RANGE, large_lab, leave
from tests.fakes.places import Reading, raises
from tests.strategies import entry_of

LOST = 8 * MIB  # what a kill may cost


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return large_lab(tmp_path, monkeypatch)


class Connections:
    """A fault that counts who reads at once, and lets nobody end before `wanted` do."""

    def __init__(self, wanted: int) -> None:
        self.now = self.most = 0
        self._wanted = wanted
        self._mutex = threading.Lock()
        self._enough = threading.Event()

    def __call__(self, reading: Reading) -> Iterator[bytes]:
        with self._mutex:
            self.now += 1
            self.most = max(self.most, self.now)
            if self.now == self._wanted:
                self._enough.set()
        try:
            yield from reading.give(reading.at + 1)
            assert self._enough.wait(60)
            yield from reading.give()
        finally:
            with self._mutex:
                self.now -= 1


# Several connections


def test_large_file_comes_by_several_connections_while_threads_are_free(lab: Lab) -> None:
    connections = Connections(CONNECTIONS)
    lab.origin.always = connections
    outcome = lab.run(route(HUGE, "origin"))
    assert lab.stored("a.bin") == HUGE
    assert connections.most == CONNECTIONS
    assert sorted(lab.origin.reads_of(entry_of("a.bin", HUGE))) == [0, RANGE, 2 * RANGE, 3 * RANGE]
    assert (outcome.transferred.from_origin, outcome.transferred.resent) == (len(HUGE), 0)
    assert lab.seen.bytes_moved == len(HUGE)
    assert lab.left_over() == []


def test_no_descriptor_outlives_the_run(lab: Lab) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    lab.mirror.always = raises(UnavailableError("down"), after=MIB)
    lab.run(route(HUGE, "origin"), route(LARGE, "mirror", to="b"))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_one_file_has_no_more_than_four_connections(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labsync.transfer.download.RANGE", MIB // 2)
    lab.origin.always = connections = Connections(CONNECTIONS)
    lab.run(route(LARGE, "origin"))
    assert connections.most == CONNECTIONS == 4
    assert len(lab.origin.reads) == 11


@pytest.mark.parametrize("jobs", [1, 2])
def test_no_more_connections_than_jobs(lab: Lab, jobs: int) -> None:
    lab.jobs = jobs
    lab.origin.always = connections = Connections(jobs)
    lab.run(route(HUGE, "origin"))
    assert lab.stored("a.bin") == HUGE
    assert connections.most == jobs


def test_threads_that_have_routes_of_their_own_do_not_help(lab: Lab) -> None:
    lab.jobs = 2
    lab.origin.always = connections = Connections(2)
    lab.run(route(HUGE, "origin"), route(LARGE, "origin", to="b"))
    assert connections.most == 2
    assert (lab.stored("a.bin"), lab.stored("b")) == (HUGE, LARGE)


def test_helper_that_meets_trouble_leaves_its_range_to_the_others(lab: Lab) -> None:
    def only_from_the_start(reading: Reading) -> Iterator[bytes]:
        if reading.at == RANGE and not gone.is_set():
            yield from reading.give(reading.at + MIB)
            gone.set()
            raise UnavailableError("one connection per client")
        yield from reading.give(reading.at + 1)
        assert gone.wait(60)
        yield from reading.give()

    gone = threading.Event()
    lab.origin.always = only_from_the_start
    outcome = lab.run(route(HUGE, "origin"))
    assert lab.stored("a.bin") == HUGE
    assert outcome.transferred.resent == 0
    assert RANGE + MIB in lab.origin.reads_of(entry_of("a.bin", HUGE))


def test_helpers_leave_a_place_alone_that_asks_for_it(lab: Lab) -> None:
    lab.jobs, began = 2, lab.clock.now()
    late: list[float] = []
    slowed = threading.Event()

    def slow_down(reading: Reading) -> Iterator[bytes]:
        if reading.at == RANGE and not slowed.is_set():
            slowed.set()
            raise UnavailableError("slow down", retry_after=60)
        if slowed.is_set():
            late.append(lab.clock.now())
        yield from reading.give(reading.at + 1)
        assert slowed.wait(60)
        yield from reading.give()

    lab.origin.always = slow_down
    lab.run(route(HUGE, "origin"))
    assert lab.stored("a.bin") == HUGE
    assert late
    assert min(late) >= began + 60


def test_two_routes_that_want_the_same_content_at_once_both_get_it(lab: Lab) -> None:
    other = ArtifactName("models/pens")
    second = replace(route(LARGE, "origin", to="b"), artifact=other)
    lab.origin.always = Connections(2)
    outcome = Engine(jobs=2).execute([route(LARGE, "origin"), second], {NAME: lab.work, other: lab.work})
    assert len(outcome.done) == 2
    assert lab.stored("a.bin") == lab.stored("b") == LARGE
    assert lab.left_over() == []


def test_large_file_goes_to_the_mirror_and_under_every_name_by_one_read(lab: Lab) -> None:
    names = tuple(Publication(entry_of(name, LARGE), "nothing", "behind") for name in ("a", "b"))
    outcome = lab.run(replace(route(LARGE, "origin", key="k"), publications=names))
    assert outcome.done
    assert lab.stored("a") == lab.stored("b") == lab.mirror.keys["k"] == LARGE
    assert lab.origin.reads_of(ENTRY) == [0]
    assert lab.left_over() == []


# Going on


@given(
    st.lists(st.tuples(st.integers(0, len(LARGE)), st.integers(0, len(LARGE))), max_size=4),
    st.booleans(),
)
@settings(max_examples=25)
def test_any_journalled_bytes_are_not_fetched_again(pairs: list[Extent], to_mirror: bool) -> None:
    extents = [(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]]
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), jobs=3)
        lab.origin.hold(LARGE)
        leave(lab, *extents)
        here = arrived(lab.home.stage, ENTRY.sha256)
        way = route(LARGE, "origin", key="k" if to_mirror else "")
        expected = workload([way], (), {NAME: lab.work})
        outcome = lab.run(way)
        assert outcome.done
        assert lab.stored("a.bin") == LARGE
        assert lab.origin.given[ENTRY.sha256] == outcome.transferred.from_origin == len(LARGE) - here
        assert outcome.transferred.resent == 0
        assert expected == (1, lab.seen.bytes_moved)
        assert lab.left_over() == []


@pytest.mark.fault(3)
@given(st.data())
@settings(max_examples=25)
def test_journal_cut_at_any_byte_costs_no_more_than_what_it_lost(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), jobs=3)
        lab.origin.hold(LARGE)
        journal = leave(lab, (0, MIB), (2 * MIB, 3 * MIB), (3 * MIB, len(LARGE))).with_suffix(".blocks")
        os.truncate(journal, data.draw(st.integers(0, journal.stat().st_size)))
        here = arrived(lab.home.stage, ENTRY.sha256)
        assert lab.run(route(LARGE, "origin")).done
        assert lab.stored("a.bin") == LARGE
        assert lab.origin.given[ENTRY.sha256] == len(LARGE) - here


def test_whole_part_asks_nobody(lab: Lab) -> None:
    leave(lab, (0, len(LARGE)))
    outcome = lab.run(route(LARGE, "origin"))
    assert lab.stored("a.bin") == LARGE
    assert (lab.origin.reads, outcome.transferred.bytes) == ([], 0)


def test_failed_file_leaves_all_that_came_to_the_next_run(lab: Lab) -> None:
    lab.origin.fail(LARGE, raises(NotFoundError("gone"), after=3 * MIB + 5))
    assert errors(lab.run(route(LARGE, "origin"))) == [NotFoundError]
    assert arrived(lab.home.stage, ENTRY.sha256) == 3 * MIB + 5
    assert sorted(lab.left_over()) == [f"{ENTRY.sha256}.blocks", f"{ENTRY.sha256}.part"]
    assert lab.run(route(LARGE, "origin")).done
    assert lab.origin.reads_of(ENTRY) == [0, 3 * MIB + 5]
    assert lab.left_over() == []


def test_stopped_run_leaves_all_that_came_to_the_next_one(lab: Lab) -> None:
    def stops(reading: Reading) -> Iterator[bytes]:
        yield from reading.give(2 * RANGE + MIB)
        if reading.at >= 2 * RANGE:
            lab.stop.set()
        yield from reading.give()

    lab.origin.always = stops
    with pytest.raises(InterruptedRunError):
        lab.run(route(HUGE, "origin"))
    entry = entry_of("a.bin", HUGE)
    here, came = arrived(lab.home.stage, entry.sha256), lab.origin.given[entry.sha256]
    assert MIB // 2 < here <= came
    assert came - here <= CONNECTIONS * (1 << 16), "no more than the blocks in their hands"
    lab.stop.clear()
    lab.origin.always = Reading.give
    lab.run(route(HUGE, "origin"))
    assert lab.stored("a.bin") == HUGE
    assert lab.origin.given[entry.sha256] == came + len(HUGE) - here


@pytest.mark.fault(1)
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_no_more_than_eight_mebibytes_travel_twice(lab: Lab, seed: int) -> None:
    """A kill leaves what the file system has, and nothing else: so does a copy taken at that moment."""
    moment = random.Random(seed).randrange(len(HUGE))
    entry, copied, given = entry_of("a.bin", HUGE), lab.root / "copied", 0
    mutex = threading.Lock()

    def killed(reading: Reading) -> Iterator[bytes]:
        nonlocal given
        for block in reading.give():
            with mutex:
                if given < moment <= given + len(block):
                    journal = lab.home.stage / f"{entry.sha256}.blocks"
                    copied.mkdir()
                    if journal.exists():  # before the part: what it tells of is there already
                        shutil.copy(journal, copied)
                    shutil.copy(lab.home.stage / f"{entry.sha256}.part", copied)
                given += len(block)
            yield block

    lab.origin.always = killed
    lab.run(route(HUGE, "origin"))
    here = arrived(copied, entry.sha256)
    assert moment - here <= LOST
    again = Lab(lab.root / "again", jobs=8)
    again.home.stage.parent.mkdir(parents=True)
    copied.rename(again.home.stage)
    again.origin.hold(HUGE)
    assert again.run(route(HUGE, "origin")).done
    assert again.stored("a.bin") == HUGE
    assert again.origin.given[entry.sha256] == len(HUGE) - here


# The disk


def test_failing_disk_ends_the_file_and_no_place_is_asked_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = os.pwrite, 0

    def fails(fd: int, block: bytes, at: int) -> int:
        nonlocal calls
        calls += 1
        if calls > 40:
            raise OSError(errno.EIO, "input/output error")
        return write(fd, block, at)

    monkeypatch.setattr("labsync.transfer.writer.os.pwrite", fails)
    assert errors(lab.run(route(LARGE, "origin"))) == [DiskError]
    assert lab.origin.reads_of(ENTRY) == [0]


def test_short_writes_are_completed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite
    monkeypatch.setattr(
        "labsync.transfer.writer.os.pwrite",
        lambda fd, block, at: write(fd, memoryview(block)[: max(1, len(block) // 3)], at),
    )
    lab.run(route(LARGE, "origin"))
    assert lab.stored("a.bin") == LARGE


def test_file_that_does_not_fit_is_refused_before_a_byte_and_others_go_on(lab: Lab) -> None:
    large = replace(ENTRY, size=1 << 60)
    too_large = replace(route(LARGE, "origin"), entry=large)
    fits = route(LARGE, "mirror", to="b")
    outcome = lab.run(too_large, fits)
    assert errors(outcome) == [DiskError]
    assert outcome.done == (fits,)
    assert lab.origin.reads == []
