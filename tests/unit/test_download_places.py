"""Large files from places that fail in the middle, give no ranges or wrong bytes; what was fetched before."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from labsync.disk.base import Staged
from labsync.errors import (
    IntegrityError,
    LabsyncError,
    NotFoundError,
    UnavailableError,
)
from labsync.places import Place
from labsync.transfer import workload
from labsync.transfer.retry import ATTEMPTS, RetryBudget
from tests.fakes.engine_lab import MIB, NAME, Lab, errors, route
from tests.fakes.large import ENTRY, HUGE, LARGE, RANGE, large_lab, leave
from tests.fakes.places import FakeHome, Fault, Reading, no_ranges, raises, wrong_bytes
from tests.fakes.recorder import FakeClock
from tests.strategies import entry_of


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return large_lab(tmp_path, monkeypatch)


# Places that fail in the middle


@pytest.mark.parametrize("after", [0, 1, MIB - 1, MIB, 3 * MIB + 7, len(LARGE)])
def test_broken_read_goes_on_where_it_broke(lab: Lab, after: int) -> None:
    lab.origin.fail(LARGE, raises(UnavailableError("reset"), after=after))
    outcome = lab.run(route(LARGE, "origin"))
    assert lab.stored("a.bin") == LARGE
    assert lab.origin.reads_of(ENTRY) == ([0, after] if after < len(LARGE) else [0])
    assert (outcome.transferred.from_origin, outcome.transferred.resent) == (len(LARGE), 0)


def test_another_place_goes_on_with_the_same_part(lab: Lab) -> None:
    lab.mirror.fail(LARGE, raises(UnavailableError("reset"), after=MIB), *[raises(UnavailableError("x"))] * 9)
    outcome = lab.run(route(LARGE, "mirror", "origin"))
    assert lab.stored("a.bin") == LARGE
    assert lab.origin.reads_of(ENTRY) == [MIB]
    assert outcome.transferred.from_mirror == MIB
    assert outcome.damaged == ()


def test_connection_that_hangs_does_not_keep_another_place_from_going_on(lab: Lab) -> None:
    hangs, published = threading.Event(), threading.Event()

    def mirror(reading: Reading) -> Iterator[bytes]:
        if reading.at == RANGE:
            hangs.set()
            assert published.wait(60)
            yield b"?" * reading.block  # too late: nobody takes it
        yield from reading.give(reading.at + 1)
        assert hangs.wait(60)
        raise NotFoundError("gone")

    class Home(FakeHome):
        def publish(self, files: Sequence[Staged]) -> list[LabsyncError | None]:
            found = super().publish(files)
            published.set()
            return found

    lab.mirror.always = mirror
    outcome = lab.run(route(HUGE, "mirror", "origin"), work=replace(lab.work, home=Home(lab.root)))
    assert outcome.done
    assert lab.stored("a.bin") == HUGE
    assert lab.left_over() == []


@pytest.mark.fault(40)
def test_any_number_of_resets_is_survived_while_bytes_come(lab: Lab) -> None:
    lab.budget = RetryBudget(1, now=lab.clock.now)
    data = bytes(3 * ATTEMPTS * MIB)
    lab.origin.hold(data)
    lab.origin.fail(data, *(raises(UnavailableError("reset"), after=n * MIB) for n in range(1, 3 * ATTEMPTS)))
    lab.jobs = 1
    assert lab.run(route(data, "origin")).done
    assert lab.budget.left == 1


def test_a_few_bytes_make_no_progress_for_the_budget(lab: Lab) -> None:
    lab.budget = RetryBudget(9, now=lab.clock.now)
    resets = [raises(UnavailableError("reset"), after=n * (MIB // 4)) for n in range(1, 2 * ATTEMPTS)]
    lab.origin.fail(LARGE, *resets)
    assert errors(lab.run(route(LARGE, "origin"))) == [UnavailableError]


def test_resets_do_not_count_for_a_file_that_gets_on(lab: Lab) -> None:
    resets = [raises(UnavailableError("reset"), after=n * (MIB // 4)) for n in range(1, 3 * ATTEMPTS)]
    lab.origin.fail(LARGE, *resets)
    assert lab.run(route(LARGE, "origin")).done
    assert lab.stored("a.bin") == LARGE


def test_place_that_gives_nothing_is_given_up(lab: Lab) -> None:
    lab.origin.always = raises(UnavailableError("down"))
    assert errors(lab.run(route(LARGE, "origin"))) == [UnavailableError]
    assert len(lab.origin.reads) == ATTEMPTS
    assert lab.left_over() == []


def test_spent_budget_ends_a_file_that_never_gets_on(lab: Lab) -> None:
    lab.budget = RetryBudget(3, now=lab.clock.now)
    lab.origin.always = lambda reading: raises(UnavailableError("reset"), after=reading.at + 1)(reading)
    assert errors(lab.run(route(LARGE, "origin"))) == [UnavailableError]
    assert len(lab.origin.reads) == 4


def test_route_that_waits_holds_no_thread(lab: Lab) -> None:
    lab.jobs = 1
    order: list[str] = []

    class Waiting(FakeClock):
        def wait(self, changed: threading.Condition, seconds: float) -> None:
            order.extend(lab.home.published)
            super().wait(changed, seconds)

    lab.clock = Waiting()
    lab.origin.fail(HUGE, raises(UnavailableError("slow down", retry_after=60), after=MIB))
    lab.run(route(HUGE, "origin", to="slow"), route(LARGE, "mirror", to="quick"))
    assert order[0] == "quick"
    assert lab.stored("slow") == HUGE


# Places without ranges


def test_place_without_ranges_gives_the_whole_by_one_connection(lab: Lab) -> None:
    lab.origin.always = no_ranges
    outcome = lab.run(route(HUGE, "origin"))
    assert lab.stored("a.bin") == HUGE
    assert lab.origin.given[entry_of("a.bin", HUGE).sha256] == len(HUGE)
    assert outcome.transferred.resent == 0


@pytest.mark.fault(44)
def test_place_without_ranges_makes_a_part_begin_anew(lab: Lab) -> None:
    leave(lab, (0, 2 * MIB))
    lab.origin.always = no_ranges
    way = route(LARGE, "origin")
    expected = workload([way], (), {NAME: lab.work})
    outcome = lab.run(way)
    assert lab.stored("a.bin") == LARGE
    assert (outcome.transferred.from_origin, outcome.transferred.resent) == (len(LARGE), 2 * MIB)
    assert expected == (1, lab.seen.bytes_moved)


def test_place_without_ranges_begins_again_after_a_reset(lab: Lab) -> None:
    def resets(reading: Reading) -> Iterator[bytes]:
        return raises(UnavailableError("reset"), after=2 * MIB)(reading)

    lab.origin.always = no_ranges
    lab.origin.fail(HUGE, no_ranges, resets)
    outcome = lab.run(route(HUGE, "origin"))
    assert lab.stored("a.bin") == HUGE
    assert outcome.transferred.resent == 2 * MIB
    assert lab.seen.bytes_moved == len(HUGE)


def test_place_with_ranges_goes_on_where_one_without_broke_off(lab: Lab) -> None:
    down = raises(UnavailableError("down"))
    lab.mirror.fail(LARGE, raises(UnavailableError("reset"), after=MIB), *[down] * ATTEMPTS)
    lab.mirror.always = no_ranges
    assert lab.run(route(LARGE, "mirror", "origin")).done
    assert lab.origin.reads_of(ENTRY) == [MIB]


# Wrong bytes


@pytest.mark.fault(42)
def test_wrong_bytes_are_fetched_once_more_as_a_whole(lab: Lab) -> None:
    lab.origin.fail(LARGE, wrong_bytes)
    outcome = lab.run(route(LARGE, "origin"))
    assert lab.stored("a.bin") == LARGE
    assert outcome.transferred.resent == len(LARGE)
    assert lab.seen.bytes_moved == len(LARGE)


@pytest.mark.fault(42)
def test_bytes_that_are_wrong_twice_are_never_visible_and_leave_nothing(lab: Lab) -> None:
    lab.origin.always = wrong_bytes
    outcome = lab.run(route(LARGE, "origin", key="k"))
    assert errors(outcome) == [IntegrityError]
    assert lab.origin.given[ENTRY.sha256] == 2 * len(LARGE)
    assert not (lab.home.path / "a.bin").exists()
    assert lab.mirror.keys == {}
    assert lab.left_over() == []


@pytest.mark.parametrize("at", [0, MIB, len(LARGE) - 1])
def test_wrong_byte_in_what_a_killed_run_left_is_found(lab: Lab, at: int) -> None:
    data = bytearray(LARGE)
    data[at] ^= 1
    leave(lab, (0, len(LARGE)), data=bytes(data))
    outcome = lab.run(route(LARGE, "mirror"))
    assert lab.stored("a.bin") == LARGE
    assert lab.mirror.reads_of(ENTRY) == [0]
    assert outcome.damaged == ()


def test_mirror_that_gave_everything_wrong_is_blamed(lab: Lab) -> None:
    lab.mirror.fail(LARGE, wrong_bytes)
    way = route(LARGE, "mirror", "origin")
    assert lab.run(way).damaged == (way,)
    assert lab.stored("a.bin") == LARGE


def test_nobody_is_blamed_for_wrong_bytes_of_two_places(lab: Lab) -> None:
    def breaks_off(reading: Reading) -> Iterator[bytes]:
        reading.data = b"?" + reading.data[1:]
        return raises(NotFoundError("gone"), after=MIB)(reading)

    lab.origin.fail(LARGE, breaks_off)
    way = route(LARGE, "origin", "mirror")
    outcome = lab.run(way)
    assert lab.stored("a.bin") == LARGE
    assert lab.mirror.reads_of(ENTRY) == [MIB, 0]
    assert outcome.damaged == ()


def test_nobody_is_blamed_for_what_a_killed_run_left(lab: Lab) -> None:
    leave(lab, (0, MIB), data=b"?" * len(LARGE))
    outcome = lab.run(route(LARGE, "mirror", "origin"))
    assert lab.stored("a.bin") == LARGE
    assert outcome.damaged == ()
    assert outcome.transferred.resent == len(LARGE)


# What `lock` fetched


def fetched(lab: Lab, data: bytes) -> Path:
    folder = lab.root / "fetched"
    folder.mkdir(exist_ok=True)
    path = folder / ENTRY.sha256
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("key", ["", "k"])
@pytest.mark.parametrize("to", ["a.bin", ""])
def test_what_was_fetched_before_is_moved_and_counts_as_the_origins(lab: Lab, to: str, key: str) -> None:
    if not to and not key:
        return
    path = fetched(lab, LARGE)
    outcome = lab.run(route(LARGE, "origin", to=to, key=key), work=replace(lab.work, fetched=path.parent))
    assert outcome.done
    assert lab.origin.reads == []
    assert outcome.transferred.from_origin == len(LARGE)
    assert not path.exists()
    assert not to or lab.stored(to) == LARGE
    assert not key or lab.mirror.keys == {key: LARGE}
    assert lab.left_over() == []


def test_what_was_fetched_before_takes_no_second_room(lab: Lab) -> None:
    path = fetched(lab, LARGE)
    inode = path.stat().st_ino
    lab.run(route(LARGE, "origin"), work=replace(lab.work, fetched=path.parent))
    assert (lab.home.path / "a.bin").stat().st_ino == inode


def test_what_was_fetched_on_another_device_is_copied(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    path, rename = fetched(lab, LARGE), os.replace

    def refuses(source: Path, target: Path) -> None:
        if source == path:
            raise OSError(errno.EXDEV, "another device")
        rename(source, target)

    monkeypatch.setattr("labsync.transfer.parts.os.replace", refuses)
    outcome = lab.run(route(LARGE, "origin"), work=replace(lab.work, fetched=path.parent))
    assert lab.stored("a.bin") == LARGE
    assert (lab.origin.reads, outcome.transferred.from_origin) == ([], len(LARGE))
    assert not path.exists()


@pytest.mark.parametrize("wrong", [b"?" * len(LARGE), b"cut off", b""])
@pytest.mark.parametrize("to", ["a.bin", ""])
def test_wrong_bytes_that_were_fetched_before_are_not_met_twice(lab: Lab, wrong: bytes, to: str) -> None:
    path = fetched(lab, wrong)
    outcome = lab.run(route(LARGE, "origin", to=to, key="k"), work=replace(lab.work, fetched=path.parent))
    assert outcome.done
    assert lab.mirror.keys == {"k": LARGE}
    assert not path.exists()
    assert outcome.damaged == ()


# A mirror that has not what it was said to have


@pytest.mark.parametrize("fault", [wrong_bytes, raises(NotFoundError("gone")), raises(IntegrityError("cut"))])
def test_content_that_another_place_gave_instead_of_the_mirror_is_told(lab: Lab, fault: Fault) -> None:
    lab.mirror.fail(LARGE, fault)
    harmed = route(LARGE, "mirror", "origin")
    assert lab.run(harmed).damaged == (harmed,)


@pytest.mark.parametrize(
    ("sources", "faults"),
    [
        (("mirror", "origin"), [raises(UnavailableError("down"))] * ATTEMPTS),
        (("mirror",), [wrong_bytes]),  # whole at the second look
        (("mirror",), [wrong_bytes, wrong_bytes]),  # nothing to mend it with
    ],
)
def test_a_mirror_that_only_does_not_answer_is_not_told_to_be_damaged(
    lab: Lab, sources: tuple[Place, ...], faults: list[Fault]
) -> None:
    lab.mirror.fail(LARGE, *faults)
    assert lab.run(route(LARGE, *sources)).damaged == ()
