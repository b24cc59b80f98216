"""The transfer engine between a fake origin, a fake mirror and a folder on the disk."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from labsync.errors import (
    ChangedError,
    ConflictError,
    DiskError,
    IntegrityError,
    InterruptedRunError,
    LabsyncError,
    NotAllowedError,
    NotFoundError,
    UnavailableError,
)
from labsync.events import FileDone
from labsync.names import ArtifactName
from labsync.places import Place, Ref, Replace
from labsync.plan import Goal, Publication, Route, Source, make_plan
from labsync.report import Transferred
from labsync.snapshot import FileEntry
from labsync.transfer import Engine, Outcome, Work, workload
from labsync.transfer.engine import overtaken
from labsync.transfer.retry import ATTEMPTS, RetryBudget
from labsync.transfer.verify import UnreadableError
from tests.fakes.places import (
    FakeHome,
    FakeMirror,
    FakeReader,
    Reading,
    begins_again,
    raises,
    too_long,
    too_short,
    wrong_bytes,
)
from tests.fakes.recorder import FakeClock, Recorder
from tests.strategies import DATA, entry_of, goals

NAME = ArtifactName("datasets/pens")
ONE, TWO = b"the first content", b"the second one"


class Lab:
    """One artifact with its three places, and an engine whose time is not real."""

    def __init__(self, root: Path, jobs: int = 2) -> None:
        self.home = FakeHome(root)
        self.origin = FakeReader([ONE, TWO])
        self.mirror = FakeMirror()
        self.seen = Recorder()
        self.clock = FakeClock()
        self.stop = threading.Event()
        self.on_written: list[str] = []
        self.jobs = jobs
        self.budget = RetryBudget(now=self.clock.now)
        self.root = root

    @property
    def work(self) -> Work:
        return Work(
            self.root / "own-stage", self.home, self.origin, self.mirror,
            lambda route: self.on_written.append(route.key),
        )  # fmt: skip

    def run(self, *routes: Route, work: Work | None = None) -> Outcome:
        engine = Engine(
            jobs=self.jobs, observer=self.seen, budget=self.budget, clock=self.clock, stop=self.stop
        )
        return engine.execute(routes, {NAME: work or self.work})

    def stored(self, path: str) -> bytes:
        return (self.home.path / path).read_bytes()

    def left_over(self) -> list[str]:
        return [p.name for stage in ("stage", "own-stage") for p in (self.root / stage).glob("*")]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def route(
    data: bytes, *places: Place, to: str = "a.bin", key: str = "", replacing: Replace = "nothing"
) -> Route:
    """Return a route of a content from these places, in order; `to` is empty to publish nothing."""
    entry = entry_of(to or "a.bin", data)
    sources = tuple(Source(place, Ref("here", path=entry.path)) for place in places)
    publications = (Publication(entry, replacing, "behind"),) if to else ()
    return Route(NAME, entry, sources, publications, key)


def full(code: int = errno.ENOSPC) -> DiskError:
    error = DiskError("no space left")
    error.__cause__ = OSError(code, "no space left")
    return error


def errors(outcome: Outcome) -> list[type[LabsyncError]]:
    return [type(failure.error) for failure in outcome.failures]


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
        def publish(self, entry: FileEntry, staged: Path, replace: Replace) -> None:
            order.append("disk")
            super().publish(entry, staged, replace)

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
    lab.origin.fail(ONE, raises(NotFoundError("gone")))
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
    assert not lab.work.stage.exists()


def test_file_that_changed_before_the_push_is_reported_before_a_byte_is_sent(lab: Lab) -> None:
    lab.home.put("a.bin", ONE + b" grown")
    outcome = lab.run(mine(ONE))
    assert errors(outcome) == [ChangedError]
    assert (lab.mirror.writes, lab.mirror.keys) == ([], {})


def test_file_that_disappeared_before_the_push_is_reported(lab: Lab) -> None:
    assert errors(lab.run(mine(ONE))) == [ChangedError]


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


# No byte is trusted


@pytest.mark.parametrize("fault", [wrong_bytes, too_short, too_long])
def test_wrong_bytes_are_fetched_once_more_from_the_same_place(lab: Lab, fault: object) -> None:
    lab.origin.fail(ONE, fault)  # type: ignore[arg-type]
    outcome = lab.run(route(ONE, "origin", key="k"))
    assert lab.stored("a.bin") == lab.mirror.keys["k"] == ONE
    assert lab.origin.reads_of(entry_of("a.bin", ONE)) == [0, 0]
    assert outcome.transferred.resent > 0
    assert lab.seen.bytes_moved == 2 * len(ONE)


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


def test_place_that_fails_behind_the_last_byte_is_not_asked_for_nothing(lab: Lab) -> None:
    lab.origin.fail(ONE, raises(UnavailableError("reset"), after=len(ONE)))
    lab.run(route(ONE, "origin"))
    assert lab.stored("a.bin") == ONE
    assert lab.origin.reads_of(entry_of("a.bin", ONE)) == [0, 0]


def test_another_place_goes_on_where_the_first_one_broke_off(lab: Lab) -> None:
    lab.mirror.hold(ONE)
    lab.mirror.fail(ONE, raises(UnavailableError("reset"), after=8), *[raises(UnavailableError("x"))] * 9)
    lab.run(route(ONE, "mirror", "origin"))
    assert lab.stored("a.bin") == ONE
    assert lab.origin.reads_of(entry_of("a.bin", ONE)) == [8]


def test_place_that_cannot_go_on_begins_again(lab: Lab) -> None:
    lab.origin.fail(ONE, raises(UnavailableError("reset"), after=8), begins_again)
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


def test_server_is_left_alone_as_long_as_it_asks(lab: Lab) -> None:
    lab.origin.fail(ONE, raises(UnavailableError("slow down", retry_after=60)))
    asked: list[float] = []

    def notes_the_time(reading: Reading) -> None:
        asked.append(lab.clock.now())
        reading.send()

    lab.origin.fail(TWO, notes_the_time)
    lab.jobs, began = 1, lab.clock.now()
    lab.run(route(ONE, "origin"), route(TWO, "origin", to="b.bin"))
    assert asked
    assert asked[0] >= began + 60
    assert lab.stored("a.bin") == ONE


def test_server_is_left_alone_by_those_who_come_from_another_place(lab: Lab) -> None:
    lab.origin.fail(ONE, raises(UnavailableError("slow down", retry_after=60)))
    asked: list[float] = []
    lab.origin.fail(TWO, lambda reading: asked.append(lab.clock.now()), Reading.send)
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
    lab.origin.fail(ONE, raises(UnavailableError("slow down", retry_after=60)))
    lab.run(route(ONE, "origin"), route(TWO, "origin", to="b.bin"))
    assert held[0] == [f"{entry_of('a.bin', ONE).sha256}.part"]


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


def test_stalled_place_does_not_hold_the_other_threads(lab: Lab) -> None:
    quick_is_done = threading.Event()

    def stalled(reading: Reading) -> None:
        assert quick_is_done.wait(60)
        raise UnavailableError("no byte for 30 s")

    class Home(FakeHome):
        def publish(self, entry: FileEntry, staged: Path, replace: Replace) -> None:
            super().publish(entry, staged, replace)
            quick_is_done.set()

    lab.origin.fail(ONE, stalled)
    outcome = lab.run(
        route(ONE, "origin", to="slow"),
        route(TWO, "origin", to="quick"),
        work=replace(lab.work, home=Home(lab.root)),
    )
    assert len(outcome.done) == 2


def test_retries_have_a_budget_for_the_whole_run(lab: Lab) -> None:
    lab.budget = RetryBudget(10, now=lab.clock.now)
    contents = [b"content %d" % number for number in range(40)]
    lab.origin.contents = FakeReader(contents).contents
    for data in contents:
        lab.origin.fail(data, *[raises(UnavailableError("down"))] * 50)
    outcome = lab.run(*(route(data, "origin", to=f"f{n}") for n, data in enumerate(contents)))
    assert errors(outcome) == [UnavailableError] * 40
    assert len(lab.origin.reads) <= 10 + 1 + lab.jobs


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


# The disk


def test_full_disk_is_permanent_and_no_further_route_begins_on_it(lab: Lab) -> None:
    lab.jobs = 1
    lab.origin.fail(ONE, raises(full(), after=8))
    outcome = lab.run(
        route(ONE, "origin"), route(TWO, "origin", to="b"), route(TWO, "origin", to="c", key="k")
    )
    assert errors(outcome) == [DiskError] * 3
    assert [failure.route.publications[0].entry.path for failure in outcome.failures] == ["a.bin", "b", "c"]
    assert len(lab.origin.reads) == 1
    assert lab.clock.waits == []
    assert lab.left_over() == []


def test_disk_that_fills_up_while_publishing_stops_it_as_well(lab: Lab) -> None:
    lab.jobs = 1
    lab.home.publish_faults["a.bin"] = full(errno.EDQUOT)
    outcome = lab.run(route(ONE, "origin"), route(TWO, "origin", to="b"))
    assert errors(outcome) == [DiskError] * 2
    assert len(lab.origin.reads) == 1


def test_one_forbidden_folder_does_not_stop_the_disk(lab: Lab) -> None:
    lab.jobs = 1
    lab.home.publish_faults["a.bin"] = full(errno.EACCES)
    good = route(TWO, "origin", to="b")
    assert lab.run(route(ONE, "origin"), good).done == (good,)


def test_full_mirror_does_not_stop_the_disk(lab: Lab) -> None:
    lab.jobs = 1
    lab.mirror.write_faults.append(full())
    outcome = lab.run(route(ONE, "origin", key="k1"), route(TWO, "origin", to="b", key="k2"))
    assert errors(outcome) == [DiskError] * 2
    assert len(lab.mirror.writes) == 1
    assert (lab.stored("a.bin"), lab.stored("b")) == (ONE, TWO)


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
    push = replace(mine(ONE), sources=(Source("disk", Ref("", path="a")),))
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

    def stops(reading: Reading) -> None:
        reading.send(8)
        lab.stop.set()
        reading.send()

    third = b"the third one, never begun"
    lab.origin.hold(third)
    lab.origin.fail(TWO, stops)
    with pytest.raises(InterruptedRunError):
        lab.run(route(ONE, "origin"), route(TWO, "origin", to="b"), route(third, "origin", to="c"))
    assert lab.home.published == ["a.bin"]
    assert len(lab.origin.reads) == 2
    assert lab.seen.bytes_moved == len(ONE) + 12
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

    def interrupts(reading: Reading) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            while True:
                reading.advance(0)
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
    (lab.home.stage / f"{entry_of('a.bin', ONE).sha256}.part").symlink_to(victim)
    outcome = lab.run(route(ONE, "origin"))
    os.close(folder)
    assert errors(outcome) == [DiskError]
    assert victim.read_bytes() == b"precious"


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
