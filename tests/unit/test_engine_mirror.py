"""The transfer engine from one place into the mirror: nothing lies on the disk on the way."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from labsync.errors import ChangedError, IntegrityError, NotAllowedError, NotFoundError, UnavailableError
from labsync.packing import layout
from labsync.places import Advance, Content, Ref, StoredPart, UploadJournal
from labsync.plan import Member, Pack, Source
from labsync.transfer import workload
from labsync.transfer.retry import ATTEMPTS, RetryBudget
from tests.fakes.engine_lab import BIG, BIGGER, NAME, ONE, TWO, Lab, errors, route
from tests.fakes.journal import MemoryJournal
from tests.fakes.places import FakeMirror, raises, wrong_bytes
from tests.strategies import entry_of


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_content_streams_without_a_stage(lab: Lab) -> None:
    way = route(BIG, "origin", to="", key="k")
    outcome = lab.run(way, work=replace(lab.work, home=None))
    assert outcome.done == outcome.written == (way,)
    assert lab.mirror.keys == {"k": BIG}
    assert lab.mirror.writes == [("k", None)]
    assert lab.on_written == ["k"]
    assert list(lab.root.iterdir()) == []
    assert workload([way]) == (1, lab.seen.bytes_moved)
    assert outcome.transferred.from_origin == outcome.transferred.to_mirror == len(BIG)


def test_stream_goes_on_where_its_place_broke_off(lab: Lab) -> None:
    lab.origin.fail(BIG, raises(UnavailableError("reset"), after=1 << 19))
    way = route(BIG, "origin", to="", key="k")
    outcome = lab.run(way)
    assert outcome.done
    assert lab.origin.reads_of(way.entry) == [0, 1 << 19]
    assert len(lab.mirror.writes) == 1
    assert outcome.transferred.resent == 0


def test_stream_of_wrong_bytes_is_fetched_once_more_from_another_place(lab: Lab) -> None:
    lab.mirror.hold(BIG)
    lab.mirror.fail(BIG, wrong_bytes)
    way = route(BIG, "mirror", "origin", to="", key="k")
    outcome = lab.run(way)
    assert lab.mirror.keys == {"k": BIG}
    assert outcome.done == outcome.damaged == (way,)
    assert outcome.transferred.from_origin == len(BIG)
    assert workload([way]) == (1, lab.seen.bytes_moved)


def test_stream_of_wrong_bytes_comes_once_more_from_its_only_place(lab: Lab) -> None:
    lab.origin.fail(BIG, wrong_bytes)
    assert lab.run(route(BIG, "origin", to="", key="k")).done
    assert lab.mirror.keys == {"k": BIG}


def test_bytes_that_are_wrong_twice_are_never_visible(lab: Lab) -> None:
    lab.origin.always = wrong_bytes
    outcome = lab.run(route(BIG, "origin", to="", key="k"))
    assert errors(outcome) == [IntegrityError]
    assert lab.mirror.keys == {}
    assert lab.origin.given[entry_of("a", BIG).sha256] == 2 * len(BIG)


def test_wrong_bytes_that_nobody_else_has_are_reported(lab: Lab) -> None:
    fetched = lab.root / "fetched"
    fetched.mkdir()
    (fetched / entry_of("a", BIG).sha256).write_bytes(BIG.swapcase())
    outcome = lab.run(
        route(BIG, "origin", to="", key="k"), work=replace(lab.work, origin=None, fetched=fetched)
    )
    assert errors(outcome) == [IntegrityError]
    assert lab.mirror.keys == {}
    assert list(fetched.iterdir()) == []


def test_origin_that_does_not_answer_is_not_the_mirrors_fault(lab: Lab) -> None:
    lab.jobs = 1
    lab.budget = RetryBudget(2, now=lab.clock.now)
    lab.origin.fail(BIG, *[raises(UnavailableError("down"))] * ATTEMPTS)
    lab.home.put("mine", BIGGER)
    own = replace(route(BIGGER, to="", key="k2"), sources=(Source("disk", Ref("", path="mine")),))
    outcome = lab.run(route(BIG, "origin", to="", key="k"), own)
    assert errors(outcome) == [UnavailableError]
    assert outcome.done == (own,)
    assert [key for key, _ in lab.mirror.writes] == ["k", "k2"]


@pytest.mark.parametrize("error", [NotFoundError("gone"), NotAllowedError("no")])
def test_stream_reports_what_its_only_place_says(lab: Lab, error: NotFoundError) -> None:
    lab.origin.fail(BIG, raises(error, after=1 << 18))
    outcome = lab.run(route(BIG, "origin", to="", key="k"))
    assert errors(outcome) == [type(error)]
    assert lab.mirror.keys == {}


def test_stream_is_read_again_when_the_mirror_fails(lab: Lab) -> None:
    lab.mirror.write_faults.extend([UnavailableError("down"), IntegrityError("bad digest")])
    way = route(BIG, "origin", to="", key="k")
    outcome = lab.run(way)
    assert outcome.done
    assert lab.mirror.keys == {"k": BIG}
    assert workload([way]) == (1, lab.seen.bytes_moved)


def test_users_file_that_changed_is_streamed_from_where_it_is_whole(lab: Lab) -> None:
    lab.home.put("a.bin", BIG.swapcase())
    way = route(BIG, "disk", "origin", to="", key="k")
    assert lab.run(way).done
    assert lab.mirror.keys == {"k": BIG}
    assert errors(lab.run(route(BIG, "disk", to="", key="k2"))) == [ChangedError]


def test_parts_that_the_server_has_are_no_work(lab: Lab) -> None:
    journal = MemoryJournal()
    journal.begin("k", "", "id", 1 << 19)
    journal.add("k", StoredPart(1, "e", "p"))
    journal.add("k", StoredPart(3, "e", "p"))  # the last one: 17 bytes
    way = route(BIG, "origin", to="", key="k")
    work = {NAME: replace(lab.work, journal=journal)}
    assert workload([way], (), work) == (1, 2 * len(BIG) - (1 << 19) - (len(BIG) - (1 << 20)))


def test_parts_that_were_stored_before_the_mirror_failed_are_sent_once(lab: Lab) -> None:
    half = 1 << 19
    journal = MemoryJournal()

    class Mirror(FakeMirror):
        def write(self, key: str, content: Content, advance: Advance, journal: UploadJournal) -> None:
            if not journal.unfinished(key):
                journal.begin(key, content.sha256, "id", half)
                advance(half)
                journal.add(key, StoredPart(1, "e", "p"))
                advance(half // 2)
                raise UnavailableError("reset")
            self.keys[key] = b"".join(content.blocks(half))
            advance(content.size - half)
            journal.end(key)

    lab.mirror = mirror = Mirror()
    lab.home.put("mine", BIG)
    own = replace(route(BIG, to="", key="k"), sources=(Source("disk", Ref("", path="mine")),))
    outcome = lab.run(own, work=replace(lab.work, journal=journal))
    assert mirror.keys == {"k": BIG}
    assert outcome.transferred.resent == half // 2
    assert lab.seen.bytes_moved == len(BIG)


# Packs


def pack(lab: Lab, files: dict[str, bytes], place: str = "disk") -> Pack:
    (shard,) = layout([entry_of(path, data) for path, data in files.items()])
    members = tuple(
        Member(entry, offset, (Source(place, Ref("here", path=entry.path)),))  # type: ignore[arg-type]
        for entry, offset in shard.members
    )
    return Pack(NAME, f"batch/{shard.name}", shard.size, members)


def test_packs_are_written_after_the_routes_whose_files_they_read(lab: Lab) -> None:
    one = pack(lab, {"a.bin": ONE, "b.bin": TWO})
    ways = (route(ONE, "origin"), route(TWO, "origin", to="b.bin"))
    outcome = lab.run(*ways, packs=(one,))
    assert outcome.packed == (one,)
    assert outcome.done == ways
    assert outcome.failures == ()
    with tarfile.open(fileobj=io.BytesIO(lab.mirror.keys[one.key])) as tar:
        assert {name: tar.extractfile(name).read() for name in tar.getnames()} == {  # type: ignore[union-attr]
            "a.bin": ONE,
            "b.bin": TWO,
        }
    assert workload(ways, (one,)) == (4, lab.seen.bytes_moved)
    assert outcome.transferred.files == 2
    assert lab.on_written == [one.key]


def test_failed_pack_is_told_as_such(lab: Lab) -> None:
    bad, good = pack(lab, {"absent": ONE}), replace(pack(lab, {"here": TWO}), key="batch/other.tar")
    lab.home.put("here", TWO)
    outcome = lab.run(packs=(bad, good))
    assert outcome.packed == (good,)
    assert [failure.item for failure in outcome.failures] == [bad]
    assert len(outcome.errors(NAME)) == 1


def test_bytes_that_come_from_afar_into_a_pack_are_work(lab: Lab) -> None:
    one = pack(lab, {"a": ONE, "b": ONE, "c": TWO}, place="origin")
    assert lab.run(packs=(one,)).packed == (one,)
    assert workload((), (one,)) == (3, lab.seen.bytes_moved)
