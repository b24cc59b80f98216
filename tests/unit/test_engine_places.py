"""The transfer engine and places that send wrong bytes or do not answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from labsync.disk.base import Staged
from labsync.errors import (
    ChangedError,
    IntegrityError,
    LabsyncError,
    NotAllowedError,
    NotFoundError,
    UnavailableError,
)
from labsync.events import FileDone
from labsync.places import Place, Ref
from labsync.plan import Source
from labsync.report import Transferred
from labsync.transfer.retry import ATTEMPTS, RetryBudget
from labsync.transfer.verify import UnreadableError
from tests.fakes.engine_lab import BIG, BIGGER, ONE, TWO, Lab, errors, route
from tests.fakes.places import (
    FakeHome,
    FakeReader,
    Fault,
    Reading,
    no_ranges,
    raises,
    too_long,
    too_short,
    wrong_bytes,
)
from tests.fakes.recorder import FakeClock
from tests.strategies import entry_of


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


# No byte is trusted


@pytest.mark.parametrize("fault", [wrong_bytes, too_long])
def test_wrong_bytes_are_fetched_once_more_from_the_same_place(lab: Lab, fault: object) -> None:
    lab.origin.fail(ONE, fault)  # type: ignore[arg-type]
    outcome = lab.run(route(ONE, "origin", key="k"))
    assert lab.stored("a.bin") == lab.mirror.keys["k"] == ONE
    assert lab.origin.reads_of(entry_of("a.bin", ONE)) == [0, 0]
    assert outcome.transferred.resent > 0
    assert lab.seen.bytes_moved == 2 * len(ONE)


def test_reader_that_ends_early_goes_on_there(lab: Lab) -> None:
    lab.origin.fail(ONE, too_short)
    assert lab.run(route(ONE, "origin")).done
    assert lab.origin.reads_of(entry_of("a.bin", ONE)) == [0, len(ONE) - 1]


def test_wrong_bytes_are_fetched_once_more_from_another_place_if_there_is_one(lab: Lab) -> None:
    lab.mirror.hold(ONE)
    lab.mirror.fail(ONE, wrong_bytes)
    outcome = lab.run(route(ONE, "mirror", "origin"))
    assert lab.stored("a.bin") == ONE
    assert (len(lab.mirror.reads), len(lab.origin.reads)) == (1, 1)
    assert errors(outcome) == []


def test_bytes_that_are_wrong_twice_are_never_visible_anywhere(lab: Lab) -> None:
    lab.origin.fail(ONE, wrong_bytes, wrong_bytes)
    outcome = lab.run(route(ONE, "origin", key="k"))
    assert errors(outcome) == [IntegrityError]
    assert len(lab.origin.reads) == 2
    assert not (lab.home.path / "a.bin").exists()
    assert lab.mirror.keys == {}
    assert lab.left_over() == []


def test_other_place_that_is_gone_gives_the_first_one_its_second_chance(lab: Lab) -> None:
    lab.mirror.hold(ONE)
    lab.mirror.fail(ONE, wrong_bytes)
    lab.origin.contents.clear()
    lab.run(route(ONE, "mirror", "origin"))
    assert lab.stored("a.bin") == ONE


def test_file_on_the_disk_that_changed_since_it_was_listed_is_no_source(lab: Lab) -> None:
    lab.home.put("old.bin", ONE.upper())
    changed = Source("disk", Ref("", path="old.bin"))
    alone = replace(route(ONE), sources=(changed,))
    outcome = lab.run(alone)
    assert errors(outcome) == [ChangedError]
    assert outcome.transferred == Transferred()
    helped = replace(alone, sources=(changed, *route(ONE, "origin").sources))
    assert lab.run(helped).done == (helped,)
    assert lab.stored("a.bin") == ONE


def test_file_on_the_disk_that_cannot_be_read_is_no_source(lab: Lab) -> None:
    (lab.home.path / "old.bin").mkdir(parents=True)  # opens with EISDIR, whoever runs the test
    unreadable = Source("disk", Ref("", path="old.bin"))
    way = replace(route(ONE), sources=(unreadable, *route(ONE, "origin").sources))
    assert lab.run(way).done == (way,)
    assert errors(lab.run(replace(way, sources=(unreadable,)))) == [UnreadableError]


# Places that do not answer


@pytest.mark.parametrize("error", [NotFoundError("gone"), NotAllowedError("no"), UnavailableError("down")])
def test_next_place_is_asked(lab: Lab, error: LabsyncError) -> None:
    lab.mirror.hold(ONE)
    lab.mirror.fail(ONE, *[raises(error)] * ATTEMPTS)
    way = route(ONE, "mirror", "origin")
    assert lab.run(way).done == (way,)
    assert lab.stored("a.bin") == ONE
    assert len(lab.mirror.reads) == (ATTEMPTS if error.retryable else 1)


def test_no_place_that_may_be_asked_is_reported(lab: Lab) -> None:
    outcome = lab.run(route(ONE, "origin"), work=replace(lab.work, origin=None))
    assert errors(outcome) == [UnavailableError]


def test_most_telling_error_is_reported(lab: Lab) -> None:
    lab.origin.fail(ONE, raises(NotAllowedError("gated")))
    assert errors(lab.run(route(ONE, "mirror", "origin"))) == [NotAllowedError]


@pytest.mark.parametrize("after", [0, 4, 8, 16])
def test_read_goes_on_where_it_broke_off(lab: Lab, after: int) -> None:
    lab.origin.fail(ONE, raises(UnavailableError("reset"), after=after))
    outcome = lab.run(route(ONE, "origin"))
    assert lab.stored("a.bin") == ONE
    assert lab.origin.reads_of(entry_of("a.bin", ONE)) == [0, after]
    assert outcome.transferred.resent == 0
    assert outcome.transferred.from_origin == len(ONE)


def test_place_that_fails_behind_the_last_byte_is_not_asked_again(lab: Lab) -> None:
    lab.origin.fail(ONE, raises(UnavailableError("reset"), after=len(ONE)))
    lab.run(route(ONE, "origin"))
    assert lab.stored("a.bin") == ONE
    assert lab.origin.reads_of(entry_of("a.bin", ONE)) == [0]


def test_another_place_goes_on_where_the_first_one_broke_off(lab: Lab) -> None:
    lab.mirror.hold(ONE)
    lab.mirror.fail(ONE, raises(UnavailableError("reset"), after=8), *[raises(UnavailableError("x"))] * 9)
    lab.run(route(ONE, "mirror", "origin"))
    assert lab.stored("a.bin") == ONE
    assert lab.origin.reads_of(entry_of("a.bin", ONE)) == [8]


def test_place_that_cannot_go_on_begins_again(lab: Lab) -> None:
    lab.origin.fail(ONE, raises(UnavailableError("reset"), after=8), no_ranges)
    outcome = lab.run(route(ONE, "origin"))
    assert lab.stored("a.bin") == ONE
    assert outcome.transferred.resent == 8
    assert lab.seen.bytes_moved == len(ONE)


def test_file_is_given_up_after_some_attempts_even_with_budget_left(lab: Lab) -> None:
    lab.origin.fail(ONE, *[raises(UnavailableError("down"))] * 50)
    outcome = lab.run(route(ONE, "origin"))
    assert errors(outcome) == [UnavailableError]
    assert len(lab.origin.reads) == ATTEMPTS
    assert lab.budget.left > 0


@pytest.mark.fault(51)
def test_server_is_left_alone_as_long_as_it_asks(lab: Lab) -> None:
    lab.origin.fail(ONE, raises(UnavailableError("slow down", retry_after=60)))
    asked: list[float] = []

    def notes_the_time(reading: Reading) -> Iterator[bytes]:
        asked.append(lab.clock.now())
        return reading.give()

    lab.origin.fail(TWO, notes_the_time)
    lab.jobs, began = 1, lab.clock.now()
    lab.run(route(ONE, "origin"), route(TWO, "origin", to="b.bin"))
    assert asked
    assert asked[0] >= began + 60
    assert lab.stored("a.bin") == ONE


def test_server_is_left_alone_by_those_who_come_from_another_place(lab: Lab) -> None:
    lab.origin.fail(ONE, raises(UnavailableError("slow down", retry_after=60)))
    asked: list[float] = []

    def notes_the_time(reading: Reading) -> Iterator[bytes]:
        asked.append(lab.clock.now())
        return reading.give()

    lab.origin.fail(TWO, notes_the_time)
    lab.jobs, began = 1, lab.clock.now()
    lab.run(route(ONE, "origin"), route(TWO, "mirror", "origin", to="b.bin"))
    assert asked[0] >= began + 60


def test_routes_that_wait_for_a_place_hold_no_part_file(lab: Lab) -> None:
    lab.jobs = 1
    held: list[list[str]] = []

    class Looking(FakeClock):
        def wait(self, changed: threading.Condition, seconds: float) -> None:
            held.append(lab.left_over())
            super().wait(changed, seconds)

    lab.clock = Looking()
    lab.origin.fail(BIG, raises(UnavailableError("slow down", retry_after=60)))
    lab.run(route(BIG, "origin"), route(BIGGER, "origin", to="b.bin"))
    assert held[0] == [f"{entry_of('a.bin', BIG).sha256}.part"]


@pytest.mark.fault(51)
def test_wish_that_does_not_fit_the_run_sends_us_to_the_next_place(lab: Lab) -> None:
    lab.mirror.hold(ONE)
    lab.mirror.fail(ONE, raises(UnavailableError("come back tomorrow", retry_after=86_400)))
    way = route(ONE, "mirror", "origin")
    assert lab.run(way).done == (way,)
    assert lab.clock.waits == []


def test_waiting_for_one_place_blocks_no_other(lab: Lab) -> None:
    lab.jobs = 1
    lab.mirror.hold(TWO)
    lab.origin.fail(ONE, raises(UnavailableError("slow down", retry_after=300)))
    lab.run(route(ONE, "origin", to="slow"), route(TWO, "mirror", to="quick"))
    assert [event.path for event in lab.seen.of(FileDone)] == ["quick", "slow"]


@pytest.mark.fault(46)
def test_stalled_place_does_not_hold_the_other_threads(lab: Lab) -> None:
    quick_is_done = threading.Event()

    def stalled(reading: Reading) -> Iterator[bytes]:
        assert quick_is_done.wait(60)
        raise UnavailableError("no byte for 30 s")

    class Home(FakeHome):
        def publish(self, files: Sequence[Staged]) -> list[LabsyncError | None]:
            errors = super().publish(files)
            quick_is_done.set()
            return errors

    lab.origin.fail(BIG, stalled)
    outcome = lab.run(
        route(BIG, "origin", to="slow"),
        route(BIGGER, "origin", to="quick"),
        work=replace(lab.work, home=Home(lab.root)),
    )
    assert len(outcome.done) == 2


@pytest.mark.fault(49)
def test_retries_have_a_budget_for_the_whole_run(lab: Lab) -> None:
    lab.budget = RetryBudget(10, now=lab.clock.now)
    contents = [b"content %d" % number for number in range(40)]
    lab.origin.contents = FakeReader(contents).contents
    for data in contents:
        lab.origin.fail(data, *[raises(UnavailableError("down"))] * 50)
    outcome = lab.run(*(route(data, "origin", to=f"f{n}") for n, data in enumerate(contents)))
    assert errors(outcome) == [UnavailableError] * 40
    # Small files are tried once together before patience begins.
    assert len(lab.origin.reads) <= 2 * (10 + 1 + lab.jobs)


def test_finished_files_give_retries_back(lab: Lab) -> None:
    lab.jobs = 1
    lab.budget = RetryBudget(1, now=lab.clock.now)
    contents = [b"content %d" % number for number in range(5)]
    lab.origin.contents = FakeReader(contents).contents
    for data in contents:
        lab.origin.fail(data, raises(UnavailableError("reset", retry_after=1)))
    for number, data in enumerate(contents):
        way = route(data, "origin", to=f"f{number}")
        assert lab.run(way).done == (way,)


# A mirror that has not what it was said to have


@pytest.mark.parametrize("fault", [wrong_bytes, raises(NotFoundError("gone")), raises(IntegrityError("cut"))])
def test_content_that_another_place_gave_instead_of_the_mirror_is_told(lab: Lab, fault: Fault) -> None:
    lab.mirror.hold(ONE, TWO)
    lab.mirror.fail(ONE, fault, fault)  # the first one is met by the batch, which leaves it to the carrier
    harmed, whole = route(ONE, "mirror", "origin"), route(TWO, "mirror", "origin", to="b.bin")
    assert lab.run(harmed, whole).damaged == (harmed,)


@pytest.mark.parametrize(
    ("sources", "faults"),
    [
        (("mirror", "origin"), [raises(UnavailableError("down"))] * ATTEMPTS),
        (("mirror", "origin"), [raises(NotAllowedError("no"))]),
        (("mirror",), [wrong_bytes]),  # whole at the second look
        (("mirror",), [wrong_bytes, wrong_bytes]),  # nothing to mend it with
    ],
)
def test_a_mirror_that_only_does_not_answer_is_not_told_to_be_damaged(
    lab: Lab, sources: tuple[Place, ...], faults: list[Fault]
) -> None:
    lab.mirror.hold(ONE)
    lab.mirror.fail(ONE, *faults)
    assert lab.run(route(ONE, *sources)).damaged == ()
