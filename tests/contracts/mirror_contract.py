"""What every mirror must do; a mirror passes by naming how to make one (see test_mirrors.py)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from labsync.digest import sha256_bytes
from labsync.errors import (
    ChangedError,
    ConflictError,
    IntegrityError,
    InvalidError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from labsync.mirrors.base import (
    HEADS,
    INDEXES,
    Head,
    HeadMovedError,
    HeadName,
    Index,
    Located,
    OtherBytesError,
    Ref,
)
from labsync.mirrors.records import head_bytes
from labsync.names import ArtifactName
from labsync.report import MirrorRequests
from labsync.snapshot import FileEntry
from tests.fakes.contents import FakeContent, changed, failing, right, unknown
from tests.fakes.journal import MemoryJournal

if TYPE_CHECKING:
    from collections.abc import Callable

    from labsync.mirrors.base import Mirror

RUNS = ArtifactName("results/runs")
NAME = HeadName(RUNS)
BATCH = "results/runs/20261120T101500Z-1a2b3c4d"
BIG = bytes(range(256)) * 12_345  # several blocks, and no round number of them
ODD = ("-dash.txt", "50%20.txt", "a b+c&d=e.txt", "#?.txt", "Grüße/世界.txt", "quote'\".json", "[x]*.txt")


@dataclass(frozen=True)
class Bench:
    """A mirror that does not exist yet, another view of it, and a way behind its back."""

    mirror: Mirror
    again: Callable[[], Mirror]
    stored: Callable[[], list[str]]
    overwrite: Callable[[str, bytes], None]


def entry_of(path: str, data: bytes) -> FileEntry:
    return FileEntry(path, sha256_bytes(data), len(data))


def key_of(path: str) -> str:
    return f"{BATCH}/{path}"


def write(mirror: Mirror, key: str, data: bytes) -> None:
    mirror.write(key, right(data), nothing, MemoryJournal())


def read(mirror: Mirror, ref: Ref, entry: FileEntry, start: int = 0, stop: int | None = None) -> bytes:
    data = bytearray()
    for block in mirror.read(ref, entry, start, stop):
        assert 1 <= len(block) <= 1 << 20
        data += block
    return bytes(data)


def index_of(*texts: str, parent: str = "") -> Index:
    files = (Located(entry_of(text, text.encode()), key_of(text)) for text in texts)
    return Index(RUNS, tuple(files), parent=parent, time="2026-11-20T10:15:00Z", host="box-a")


def nothing(count: int) -> None:
    """Take no note of progress."""


class Progress:
    def __init__(self) -> None:
        self.counts: list[int] = []

    def __call__(self, count: int) -> None:
        self.counts.append(count)


class EnoughError(Exception):
    """What a test ends a write with."""


class StopAfter:
    """Ends a write after this many bytes."""

    def __init__(self, left: int) -> None:
        self._left = left

    def __call__(self, count: int) -> None:
        self._left -= max(0, count)
        if self._left <= 0 < count:
            raise EnoughError


class MirrorContract:
    """Inherit, and give a fixture `bench`."""

    WRITE = MirrorRequests(PUT=1)
    PUBLISH = MirrorRequests(PUT=2)

    @pytest.mark.fault(70)
    @pytest.mark.parametrize("data", [b"", b"x", BIG], ids=["empty", "one byte", "big"])
    @pytest.mark.parametrize("content", [right, unknown], ids=["known", "digest unknown"])
    def test_what_was_written_is_read_whole(
        self, bench: Bench, data: bytes, content: Callable[[bytes], FakeContent]
    ) -> None:
        progress, journal = Progress(), MemoryJournal()
        bench.mirror.write(key_of("f"), content(data), progress, journal)
        assert sum(progress.counts) == len(data)
        assert journal.uploads == {}
        assert read(bench.again(), Ref(key_of("f")), entry_of("f", data)) == data

    @pytest.mark.parametrize(
        ("start", "stop"),
        [
            (1, None), (1 << 20, None), (len(BIG) - 1, None), (len(BIG), None), (0, 1), (0, len(BIG)),
            (5, 6), (77, 2_000_000), (9, 9), (0, 0),
        ],
    )  # fmt: skip
    def test_a_part_is_read(self, bench: Bench, start: int, stop: int | None) -> None:
        write(bench.mirror, key_of("f"), BIG)
        assert read(bench.mirror, Ref(key_of("f")), entry_of("f", BIG), start, stop) == BIG[start:stop]

    @pytest.mark.parametrize(("start", "stop"), [(0, None), (3, None), (3, 1_200_000), (0, 1), (4, 4)])
    def test_a_file_inside_a_pack_is_read_by_its_offset(
        self, bench: Bench, start: int, stop: int | None
    ) -> None:
        write(bench.mirror, key_of("pack"), BIG)
        inner, ref = BIG[512:1_500_000], Ref(key_of("pack"), offset=512)
        assert read(bench.mirror, ref, entry_of("inner", inner), start, stop) == inner[start:stop]
        assert read(bench.mirror, ref, entry_of("empty", b"")) == b""

    def test_a_file_of_unknown_size_is_read_to_its_end(self, bench: Bench) -> None:
        write(bench.mirror, key_of("f"), BIG)
        assert read(bench.mirror, Ref(key_of("f")), FileEntry("f", "", -1)) == BIG

    def test_a_read_asks_for_nothing_before_its_first_block_and_may_end_early(self, bench: Bench) -> None:
        write(bench.mirror, key_of("f"), BIG)
        mirror = bench.again()
        for _ in range(3):
            before = mirror.requests().GET
            blocks = mirror.read(Ref(key_of("f")), entry_of("f", BIG))
            assert before == mirror.requests().GET
            assert BIG.startswith(bytes(next(blocks)))
            assert before + 1 == mirror.requests().GET
            blocks.close()
        assert read(mirror, Ref(key_of("f")), entry_of("f", BIG)) == BIG

    def test_reads_at_once_do_not_mix(self, bench: Bench) -> None:
        contents = {f"f{number}": bytes([number]) * 2_500_000 for number in range(3)}
        for path, data in contents.items():
            write(bench.mirror, key_of(path), data)
        running = {
            path: bench.mirror.read(Ref(key_of(path)), entry_of(path, data))
            for path, data in contents.items()
        }
        seen = dict.fromkeys(contents, b"")
        while running:
            for path, blocks in list(running.items()):
                if block := next(blocks, b""):
                    seen[path] += bytes(block)
                else:
                    del running[path]
        assert seen == contents

    @pytest.mark.fault(72)
    @pytest.mark.parametrize("path", ODD)
    def test_odd_names_are_carried_as_they_are(self, bench: Bench, path: str) -> None:
        write(bench.mirror, key_of(path), path.encode())
        assert bench.stored() == [key_of(path)]
        assert read(bench.mirror, Ref(key_of(path)), entry_of(path, path.encode())) == path.encode()

    @pytest.mark.fault(75)
    @pytest.mark.parametrize("key", ["../x", "/etc/x", "a/../../x", "a\nb", "", "x" * 2000])
    def test_a_key_that_could_escape_is_refused(self, bench: Bench, key: str) -> None:
        with pytest.raises(RefusedError):
            write(bench.mirror, key, b"x")

    @pytest.mark.parametrize("data", [b"same", BIG], ids=["small", "big"])
    def test_the_same_bytes_may_be_written_twice(self, bench: Bench, data: bytes) -> None:
        for content in (right(data), unknown(data)):
            for mirror in (bench.mirror, bench.again()):
                mirror.write(key_of("f"), content, nothing, MemoryJournal())
        assert bench.stored() == [key_of("f")]
        assert read(bench.mirror, Ref(key_of("f")), entry_of("f", data)) == data

    @pytest.mark.parametrize("before", [b"before", BIG], ids=["small", "big"])
    @pytest.mark.parametrize(
        "change",
        [lambda _: b"", lambda data: data[:-1], lambda data: b"!" + data[1:], lambda data: data + b"!"],
        ids=["empty", "shorter", "other", "longer"],
    )
    def test_a_content_that_changed_meanwhile_is_not_stored(
        self, bench: Bench, before: bytes, change: Callable[[bytes], bytes]
    ) -> None:
        journal = MemoryJournal()
        with pytest.raises(ChangedError):
            bench.mirror.write(key_of("f"), changed(before, change(before)), nothing, journal)
        assert not [key for key in bench.stored() if key.startswith("results/")]
        assert journal.uploads == {}

    @pytest.mark.parametrize("data", [b"x", BIG], ids=["small", "big"])
    @pytest.mark.parametrize(
        "failure",
        [ChangedError("no"), IntegrityError("no"), UnavailableError("no"), KeyboardInterrupt()],
        ids=lambda failure: type(failure).__name__,
    )
    def test_a_content_that_fails_at_its_end_is_not_visible(
        self, bench: Bench, data: bytes, failure: BaseException
    ) -> None:
        journal = MemoryJournal()
        with pytest.raises(type(failure)):
            bench.mirror.write(key_of("f"), failing(data, failure), nothing, journal)
        assert not [key for key in bench.stored() if key.startswith("results/")]
        if isinstance(failure, ChangedError | IntegrityError):
            assert journal.uploads == {}
        bench.mirror.write(key_of("f"), right(data), nothing, journal)
        assert journal.uploads == {}
        assert read(bench.mirror, Ref(key_of("f")), entry_of("f", data)) == data

    @pytest.mark.parametrize("data", [b"small", BIG], ids=["small", "big"])
    def test_whoever_reports_progress_may_stop_a_write(self, bench: Bench, data: bytes) -> None:
        progress, journal = StopAfter(len(data) // 2), MemoryJournal()
        with pytest.raises(EnoughError):
            bench.mirror.write(key_of("f"), right(data), progress, journal)
        bench.mirror.write(key_of("f"), right(data), nothing, journal)
        assert journal.uploads == {}
        assert read(bench.mirror, Ref(key_of("f")), entry_of("f", data)) == data

    def test_an_upload_may_be_abandoned(self, bench: Bench) -> None:
        journal = MemoryJournal()
        bench.mirror.abandon(key_of("f"), journal)
        with pytest.raises(EnoughError):
            bench.mirror.write(key_of("f"), right(BIG), StopAfter(len(BIG) // 2), journal)
        bench.again().abandon(key_of("f"), journal)
        assert journal.uploads == {}
        bench.again().abandon(key_of("f"), journal)
        assert bench.stored() in ([], [key_of("f")])

    def test_several_keys_are_written_at_once(self, bench: Bench) -> None:
        contents = {f"f{number}": bytes([number]) * (1_700_000 + number) for number in range(6)}
        journal = MemoryJournal()

        def store(path: str) -> None:
            bench.mirror.write(key_of(path), right(contents[path]), nothing, journal)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(store, contents))
        assert journal.uploads == {}
        for path, data in contents.items():
            assert read(bench.mirror, Ref(key_of(path)), entry_of(path, data)) == data

    def test_a_stored_file_of_another_length_is_never_taken(self, bench: Bench) -> None:
        write(bench.mirror, key_of("f"), b"12345")
        for wrong in (b"1234", b"123456"):
            bench.overwrite(key_of("f"), wrong)
            for start, stop in ((0, None), (2, None), (0, 2), (1, 3)):
                with pytest.raises((IntegrityError, UnavailableError)):
                    read(bench.mirror, Ref(key_of("f")), entry_of("f", b"12345"), start, stop)

    def test_stored_tells_the_sizes_of_a_batch_by_one_listing(self, bench: Bench) -> None:
        assert dict(bench.mirror.stored(f"{BATCH}/")) == {}
        write(bench.mirror, key_of("f"), b"12345")
        write(bench.mirror, key_of("sub/e"), b"")
        write(bench.mirror, f"{BATCH}-2/f", b"1")
        mirror = bench.again()
        assert dict(mirror.stored(f"{BATCH}/")) == {key_of("f"): 5, key_of("sub/e"): 0}
        assert mirror.requests() == MirrorRequests(LIST=1)

    def test_what_is_missing_is_not_found(self, bench: Bench) -> None:
        write(bench.mirror, key_of("f"), b"x")
        for size, start in ((0, 0), (1, 0), (2, 1)):
            with pytest.raises(NotFoundError):
                read(bench.mirror, Ref(key_of("g")), FileEntry("g", "0" * 64, size), start)
        with pytest.raises(NotFoundError):
            bench.mirror.head(NAME)
        with pytest.raises(NotFoundError):
            bench.mirror.index("0" * 64)

    def test_a_new_mirror_has_no_heads(self, bench: Bench) -> None:
        assert dict(bench.mirror.heads()) == {}
        assert bench.stored() == []

    def test_the_first_head_and_the_next(self, bench: Bench) -> None:
        mirror = bench.mirror
        first = mirror.publish(NAME, index_of("a"), None)
        assert mirror.head(NAME) == first == bench.again().head(NAME)
        assert mirror.heads() == {NAME: first.mark}
        assert mirror.index(first.index) == index_of("a")
        assert first.snapshot == index_of("a").snapshot.id
        assert (first.parent, first.time, first.host) == ("", "2026-11-20T10:15:00Z", "box-a")

        second = mirror.publish(NAME, index_of("a", "b", parent=first.index), first)
        assert second.parent == first.snapshot
        assert second.mark != first.mark
        assert bench.again().heads() == {NAME: second.mark}
        assert bench.again().head(NAME) == second
        assert mirror.index(first.index) == index_of("a")

    def test_many_next_heads_stay_in_order(self, bench: Bench) -> None:
        head: Head | None = None
        for number in range(12):
            head = bench.mirror.publish(NAME, index_of(str(number)), head)
        assert bench.again().head(NAME) == head

    def test_heads_of_every_kind_live_beside_each_other(self, bench: Bench) -> None:
        index = index_of("a")
        sourced = replace(index, artifact=ArtifactName("models/m.000001"))
        snapshot = index.snapshot.id
        names = {
            NAME: index,
            HeadName.conflict(RUNS, snapshot): index,
            HeadName.sourced(sourced.artifact, snapshot): sourced,
            HeadName.sourced(ArtifactName("models/m"), snapshot): replace(
                sourced, artifact=ArtifactName("models/m")
            ),
        }
        marks = {name: bench.mirror.publish(name, index, None).mark for name, index in names.items()}
        assert bench.again().heads() == marks
        for name in names:
            assert bench.again().head(name).snapshot == snapshot

    def test_a_stale_expectation_moves_nothing(self, bench: Bench) -> None:
        first = bench.mirror.publish(NAME, index_of("a"), None)
        second = bench.mirror.publish(NAME, index_of("b"), first)
        for expected in (None, first):
            with pytest.raises(HeadMovedError):
                bench.again().publish(NAME, index_of("c"), expected)
        assert bench.mirror.head(NAME) == second
        assert bench.mirror.heads() == {NAME: second.mark}

    def test_an_expected_head_that_is_not_there_moves_nothing(self, bench: Bench) -> None:
        first = bench.mirror.publish(NAME, index_of("a"), None)
        other = HeadName(ArtifactName("results/other"))
        with pytest.raises(HeadMovedError):
            bench.mirror.publish(other, replace(index_of("b"), artifact=other.artifact), first)
        assert bench.mirror.heads() == {NAME: first.mark}

    def test_a_damaged_index_is_found(self, bench: Bench) -> None:
        head = bench.mirror.publish(NAME, index_of("a"), None)
        (key,) = [key for key in bench.stored() if key.startswith(INDEXES)]
        bench.overwrite(key, b"damaged")
        with pytest.raises(IntegrityError):
            bench.again().index(head.index)

    def test_a_head_of_a_newer_version_is_not_guessed_at(self, bench: Bench) -> None:
        head = bench.mirror.publish(NAME, index_of("a"), None)
        (key,) = [key for key in bench.stored() if key.startswith(HEADS)]
        fields = head_bytes(head).partition(b',"sha256"')[0] + b"}\n"
        bench.overwrite(key, fields.replace(b'"version":1', b'"version":2,"new":[]'))
        with pytest.raises(InvalidError, match="version 2"):
            bench.again().head(NAME)

    def test_records_larger_than_records_are_refused(self, bench: Bench) -> None:
        bench.mirror.publish(NAME, index_of("a"), None)
        (key,) = [key for key in bench.stored() if key.startswith(HEADS)]
        bench.overwrite(key, b" " * (1 << 17))
        with pytest.raises(InvalidError):
            bench.again().head(NAME)

    def test_requests_are_counted(self, bench: Bench) -> None:
        mirror = bench.again()
        seen = mirror.requests()
        assert seen == MirrorRequests()

        def cost() -> MirrorRequests:
            nonlocal seen
            before, seen = seen, mirror.requests()
            return MirrorRequests(*(getattr(seen, name) - getattr(before, name) for name in seen.__slots__))

        mirror.heads()
        assert cost() == MirrorRequests(LIST=1)
        write(mirror, key_of("f"), b"x")
        assert cost() == self.WRITE
        head = mirror.publish(NAME, index_of("f"), None)
        assert cost() == self.PUBLISH
        mirror.head(NAME)
        mirror.index(head.index)
        read(mirror, Ref(key_of("f")), entry_of("f", b"x"))
        assert cost() == MirrorRequests(GET=3)


class WrittenOnceContract(MirrorContract):
    """Besides, for mirrors that look before they write a key."""

    @pytest.mark.parametrize("first", [b"first", BIG], ids=["small", "big"])
    @pytest.mark.parametrize("content", [right, unknown], ids=["known", "digest unknown"])
    def test_other_bytes_never_replace_the_first(
        self, bench: Bench, first: bytes, content: Callable[[bytes], FakeContent]
    ) -> None:
        write(bench.mirror, key_of("f"), first)
        journal = MemoryJournal()
        for other in (b"!" + first[1:], first[:-1] + b"!", first + b"!"):
            with pytest.raises(OtherBytesError):
                bench.mirror.write(key_of("f"), content(other), nothing, journal)
        assert read(bench.mirror, Ref(key_of("f")), entry_of("f", first)) == first
        assert journal.uploads == {}


class CompareAndSwapContract(WrittenOnceContract):
    """Besides, for mirrors that several boxes may write to."""

    def test_conditional_writes_are_found(self, bench: Bench) -> None:
        assert bench.again().probe()

    def test_of_racing_publishers_exactly_one_wins(self, bench: Bench) -> None:
        head: Head | None = None
        mirrors = [bench.mirror, bench.mirror, second := bench.again(), second]
        for round_number in range(5):
            head = self._race(mirrors, head, round_number)
            assert bench.mirror.head(NAME) == head

    def _race(self, mirrors: list[Mirror], expected: Head | None, round_number: int) -> Head:
        barrier, won, lost = threading.Barrier(4), list[Head](), list[HeadMovedError]()

        def publish(number: int) -> None:
            barrier.wait()
            try:
                won.append(mirrors[number].publish(NAME, index_of(f"{round_number}-{number}"), expected))
            except HeadMovedError as error:
                lost.append(error)

        threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert len(lost) == 3
        return won[0]

    @pytest.mark.parametrize("size", [10, 1_500_000], ids=["small", "big"])
    def test_of_racing_writers_of_one_key_the_first_bytes_stay(self, bench: Bench, size: int) -> None:
        contents = [f"from box {number}".encode() * (size // 10) for number in range(4)]
        barrier, stored = threading.Barrier(4), list[bytes]()
        mirrors = [bench.again() for _ in contents]

        def store(number: int) -> None:
            barrier.wait()
            try:
                write(mirrors[number], key_of("f"), contents[number])
                stored.append(contents[number])
            except ConflictError:
                pass

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(store, range(4)))
        assert len(stored) == 1
        assert read(bench.mirror, Ref(key_of("f")), entry_of("f", stored[0])) == stored[0]
