"""What every mirror must do; a mirror passes by naming how to make one (see test_mirrors.py)."""

from __future__ import annotations

import threading
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
from labsync.mirrors.base import HEADS, INDEXES, Head, HeadMovedError, HeadName, Index, Located, Ref
from labsync.mirrors.records import head_bytes
from labsync.names import ArtifactName
from labsync.report import MirrorRequests
from labsync.snapshot import FileEntry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


def staged(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / f"staged-{sha256_bytes(data)[:12]}"
    path.write_bytes(data)
    return path


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


class MirrorContract:
    """Inherit, and give a fixture `bench`."""

    WRITE = MirrorRequests(PUT=1)
    PUBLISH = MirrorRequests(PUT=2)

    @pytest.mark.parametrize("data", [b"", b"x", BIG], ids=["empty", "one byte", "big"])
    def test_what_was_written_is_read_whole(self, bench: Bench, tmp_path: Path, data: bytes) -> None:
        progress, entry = Progress(), entry_of("f", data)
        bench.mirror.write(key_of("f"), entry, staged(tmp_path, data), progress)
        assert sum(progress.counts) == len(data)
        progress = Progress()
        (tmp_path / "out").write_bytes(b"an older and longer file")
        bench.again().read(Ref(key_of("f")), entry, tmp_path / "out", 0, progress)
        assert (tmp_path / "out").read_bytes() == data
        assert sum(progress.counts) == len(data)

    @pytest.mark.parametrize("start", [1, 1 << 20, len(BIG) - 1, len(BIG)])
    def test_a_read_continues_in_the_middle(self, bench: Bench, tmp_path: Path, start: int) -> None:
        bench.mirror.write(key_of("f"), entry_of("f", BIG), staged(tmp_path, BIG), nothing)
        progress, out = Progress(), tmp_path / "out"
        out.write_bytes(BIG[:start])
        bench.mirror.read(Ref(key_of("f")), entry_of("f", BIG), out, start, progress)
        assert out.read_bytes() == BIG
        assert sum(progress.counts) == len(BIG) - start

    @pytest.mark.parametrize("start", [0, 3])
    def test_a_file_inside_a_pack_is_read_by_its_offset(
        self, bench: Bench, tmp_path: Path, start: int
    ) -> None:
        bench.mirror.write(key_of("pack"), entry_of("pack", BIG), staged(tmp_path, BIG), nothing)
        inner, out = BIG[512:1_500_000], tmp_path / "out"
        out.write_bytes(inner[:start])
        ref = Ref(key_of("pack"), offset=512)
        bench.mirror.read(ref, entry_of("inner", inner), out, start, nothing)
        assert out.read_bytes() == inner
        bench.mirror.read(ref, entry_of("empty", b""), out, 0, nothing)
        assert out.read_bytes() == b""

    @pytest.mark.parametrize("path", ODD)
    def test_odd_names_are_carried_as_they_are(self, bench: Bench, tmp_path: Path, path: str) -> None:
        entry = entry_of(path, path.encode())
        bench.mirror.write(key_of(path), entry, staged(tmp_path, path.encode()), nothing)
        assert bench.stored() == [key_of(path)]
        bench.mirror.read(Ref(key_of(path)), entry, tmp_path / "out", 0, nothing)
        assert (tmp_path / "out").read_bytes() == path.encode()

    @pytest.mark.parametrize("key", ["../x", "/etc/x", "a/../../x", "a\nb", "", "x" * 2000])
    def test_a_key_that_could_escape_is_refused(self, bench: Bench, tmp_path: Path, key: str) -> None:
        with pytest.raises(RefusedError):
            bench.mirror.write(key, entry_of("f", b"x"), staged(tmp_path, b"x"), nothing)

    def test_the_same_bytes_may_be_written_twice(self, bench: Bench, tmp_path: Path) -> None:
        for mirror in (bench.mirror, bench.again()):
            mirror.write(key_of("f"), entry_of("f", b"same"), staged(tmp_path, b"same"), nothing)
        assert bench.stored() == [key_of("f")]

    @pytest.mark.parametrize("other", [b"last!", b"longer than the first"])
    def test_other_bytes_never_replace_the_first(self, bench: Bench, tmp_path: Path, other: bytes) -> None:
        first = entry_of("f", b"first")
        bench.mirror.write(key_of("f"), first, staged(tmp_path, b"first"), nothing)
        with pytest.raises(ConflictError):
            bench.mirror.write(key_of("f"), entry_of("f", other), staged(tmp_path, other), nothing)
        bench.mirror.read(Ref(key_of("f")), first, tmp_path / "out", 0, nothing)
        assert (tmp_path / "out").read_bytes() == b"first"

    @pytest.mark.parametrize("now", [b"", b"befor", b"BEFORE", b"before and after"])
    def test_a_file_that_changed_meanwhile_is_not_stored(
        self, bench: Bench, tmp_path: Path, now: bytes
    ) -> None:
        with pytest.raises(ChangedError):
            bench.mirror.write(key_of("f"), entry_of("f", b"before"), staged(tmp_path, now), nothing)
        assert key_of("f") not in bench.stored()
        assert not [key for key in bench.stored() if key.startswith("results/")]

    def test_a_file_that_is_gone_is_not_stored(self, bench: Bench, tmp_path: Path) -> None:
        with pytest.raises(ChangedError):
            bench.mirror.write(key_of("f"), entry_of("f", b"x"), tmp_path / "gone", nothing)
        assert key_of("f") not in bench.stored()

    def test_whoever_reports_progress_may_stop_a_transfer(self, bench: Bench, tmp_path: Path) -> None:
        def stop(count: int) -> None:
            raise InterruptedError("enough")

        bench.mirror.write(key_of("f"), entry_of("f", BIG), staged(tmp_path, BIG), nothing)
        with pytest.raises(InterruptedError):
            bench.mirror.read(Ref(key_of("f")), entry_of("f", BIG), tmp_path / "out", 0, stop)
        assert 0 < (tmp_path / "out").stat().st_size < len(BIG)

    def test_a_stored_file_of_another_length_is_never_taken(self, bench: Bench, tmp_path: Path) -> None:
        bench.mirror.write(key_of("f"), entry_of("f", b"12345"), staged(tmp_path, b"12345"), nothing)
        for wrong in (b"1234", b"123456"):
            bench.overwrite(key_of("f"), wrong)
            (tmp_path / "out").write_bytes(b"12")
            for start in (0, 2):
                with pytest.raises((IntegrityError, UnavailableError)):
                    bench.mirror.read(
                        Ref(key_of("f")), entry_of("f", b"12345"), tmp_path / "out", start, nothing
                    )

    def test_has_tells_a_key_of_the_right_size_by_one_head(self, bench: Bench, tmp_path: Path) -> None:
        assert not bench.mirror.has(key_of("f"), 5)
        bench.mirror.write(key_of("f"), entry_of("f", b"12345"), staged(tmp_path, b"12345"), nothing)
        bench.mirror.write(key_of("sub/e"), entry_of("e", b""), staged(tmp_path, b""), nothing)
        mirror = bench.again()
        assert mirror.has(key_of("f"), 5)
        assert mirror.requests() == MirrorRequests(HEAD=1)
        assert not mirror.has(key_of("f"), 4)
        assert not mirror.has(key_of("f"), 6)
        assert mirror.has(key_of("sub/e"), 0)
        assert not mirror.has(key_of("sub"), 0)

    def test_what_is_missing_is_not_found(self, bench: Bench, tmp_path: Path) -> None:
        bench.mirror.write(key_of("f"), entry_of("f", b"x"), staged(tmp_path, b"x"), nothing)
        for size in (0, 1):
            with pytest.raises(NotFoundError):
                bench.mirror.read(
                    Ref(key_of("g")), FileEntry("g", "0" * 64, size), tmp_path / "out", 0, nothing
                )
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
        bench.overwrite(key, head_bytes(head).replace(b'"version":1', b'"version":2,"new":[]'))
        with pytest.raises(InvalidError, match="version 2"):
            bench.again().head(NAME)

    def test_records_larger_than_records_are_refused(self, bench: Bench) -> None:
        bench.mirror.publish(NAME, index_of("a"), None)
        (key,) = [key for key in bench.stored() if key.startswith(HEADS)]
        bench.overwrite(key, b" " * (1 << 17))
        with pytest.raises(InvalidError):
            bench.again().head(NAME)

    def test_requests_are_counted(self, bench: Bench, tmp_path: Path) -> None:
        mirror = bench.again()
        seen = mirror.requests()
        assert seen == MirrorRequests()

        def cost() -> MirrorRequests:
            nonlocal seen
            before, seen = seen, mirror.requests()
            return MirrorRequests(*(getattr(seen, name) - getattr(before, name) for name in seen.__slots__))

        mirror.heads()
        assert cost() == MirrorRequests(LIST=1)
        mirror.write(key_of("f"), entry_of("f", b"x"), staged(tmp_path, b"x"), nothing)
        assert cost() == self.WRITE
        head = mirror.publish(NAME, index_of("f"), None)
        assert cost() == self.PUBLISH
        mirror.head(NAME)
        mirror.index(head.index)
        mirror.read(Ref(key_of("f")), entry_of("f", b"x"), tmp_path / "out", 0, nothing)
        assert cost() == MirrorRequests(GET=3)


class CompareAndSwapContract(MirrorContract):
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

    def test_of_racing_writers_of_one_key_the_first_bytes_stay(self, bench: Bench, tmp_path: Path) -> None:
        contents = [f"from box {number}".encode() for number in range(4)]
        files = [staged(tmp_path, data) for data in contents]
        barrier, stored = threading.Barrier(4), list[bytes]()
        mirrors = [bench.mirror, bench.mirror, second := bench.again(), second]

        def write(number: int) -> None:
            barrier.wait()
            try:
                mirrors[number].write(key_of("f"), entry_of("f", contents[number]), files[number], nothing)
                stored.append(contents[number])
            except ConflictError:
                pass

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(stored) == 1
        bench.mirror.read(Ref(key_of("f")), entry_of("f", stored[0]), tmp_path / "out", 0, nothing)
        assert (tmp_path / "out").read_bytes() == stored[0]
