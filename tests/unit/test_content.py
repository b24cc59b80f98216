"""Contents to store: whatever happens to their source, they end only when every byte was right."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labsync.digest import sha256_bytes
from labsync.errors import (
    ChangedError,
    IntegrityError,
    InterruptedRunError,
    LabsyncError,
    NotAllowedError,
    NotFoundError,
    UnavailableError,
)
from labsync.places import Place, Ref
from labsync.transfer.content import FileContent, StreamContent
from labsync.transfer.ledger import Ledger
from labsync.transfer.pace import Pace
from labsync.transfer.parts import Stages
from labsync.transfer.retry import ATTEMPTS, Limiter, RetryBudget
from labsync.transfer.run import Run
from labsync.transfer.supply import Supply
from labsync.transfer.verify import UnreadableError
from tests.fakes.engine_lab import NAME
from tests.fakes.places import FakeReader, Reading, no_ranges, raises, too_long, too_short, wrong_bytes
from tests.fakes.recorder import FakeClock, Recorder
from tests.strategies import entry_of

DATA = bytes(range(256)) * 4  # 1,024 bytes
ENTRY = entry_of("a.bin", DATA)


# Files


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.bin"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize("size", [1, 7, 1000, 1024, 5000])
def test_file_is_given_in_blocks_of_the_size_that_is_asked_for(path: Path, size: int) -> None:
    content = FileContent(path, ENTRY)
    blocks = list(content.blocks(size))
    assert b"".join(blocks) == DATA
    assert {len(block) for block in blocks[:-1]} <= {size}
    assert (content.size, content.sha256, content.file) == (1024, ENTRY.sha256, path)
    assert list(content.blocks(size)) == blocks, "every call reads anew"


def test_empty_file_has_no_blocks(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert list(FileContent(tmp_path / "empty", entry_of("empty", b"")).blocks(7)) == []


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"?")


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def truncate(path: Path) -> None:
    os.truncate(path, 900)


def replace_alike(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(DATA)
    os.replace(other, path)


def touch(path: Path) -> None:
    os.utime(path, (1, 1))


def change_mode(path: Path) -> None:
    path.chmod(0o600)


def write_the_same(path: Path) -> None:
    """Restore bytes and mtime: only ctime tells."""
    before = path.stat()
    path.write_bytes(DATA)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.fault(32)
@pytest.mark.parametrize(
    "change", [rewrite, grow, truncate, Path.unlink, replace_alike, touch, change_mode, write_the_same]
)
def test_file_that_changes_while_it_is_read_never_ends(path: Path, change: Callable[[Path], None]) -> None:
    blocks = FileContent(path, ENTRY).blocks(100)
    next(blocks)
    change(path)
    with pytest.raises(ChangedError):
        list(blocks)


@pytest.mark.parametrize("change", [rewrite, grow, truncate, Path.unlink])
def test_file_that_changed_before_is_not_given(path: Path, change: Callable[[Path], None]) -> None:
    change(path)
    with pytest.raises(ChangedError):
        list(FileContent(path, ENTRY).blocks(100))


@pytest.mark.fault(34)
def test_file_that_has_become_shorter_is_noticed_at_its_new_end(path: Path) -> None:
    blocks = FileContent(path, ENTRY).blocks(100)
    next(blocks)
    os.truncate(path, 250)
    next(blocks)
    with pytest.raises(ChangedError):
        next(blocks)


@pytest.mark.fault(35)
def test_file_that_cannot_be_read_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError):
        list(FileContent(tmp_path, ENTRY).blocks(100))


# Streams


class Box:
    """A run whose time is not real, and places to stream from."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.seen = Recorder()
        self.ledger = Ledger()
        self.stop = threading.Event()
        self.limiter = Limiter(self.clock.now)
        self.origin, self.mirror = FakeReader([DATA]), FakeReader([DATA])
        self.budget = RetryBudget(now=self.clock.now)

    def check(self) -> None:
        if self.stop.is_set():
            raise InterruptedRunError("stopped")

    def content(self, *places: Place) -> StreamContent:
        run = Run(
            self.ledger, Stages(), self.seen, self.budget, self.limiter, Pace(), lambda: 0.5, self.check,
            self.clock,
        )  # fmt: skip
        readers = {"origin": self.origin, "mirror": self.mirror}
        return StreamContent(run, NAME, ENTRY, [Supply(place, Ref("u"), readers[place]) for place in places])

    def read(self, *places: Place, size: int = 100) -> bytes:
        return b"".join(self.content(*places).blocks(size))


@pytest.mark.parametrize("size", [1, 7, 1000, 1024, 5000])
def test_stream_is_given_in_blocks_of_the_size_that_is_asked_for(size: int) -> None:
    content = Box().content("origin")
    blocks = list(content.blocks(size))
    assert b"".join(blocks) == DATA
    assert {len(block) for block in blocks[:-1]} <= {size}
    assert all(type(block) is bytes for block in blocks)
    assert content.giver == "origin"


@given(st.lists(st.integers(0, len(DATA)), max_size=4).map(sorted), st.integers(1, 300))
def test_stream_goes_on_at_the_byte_it_reached(breaks: list[int], size: int) -> None:
    box = Box()
    box.origin.fail(DATA, *(raises(UnavailableError("reset"), after=at) for at in breaks))
    assert box.read("origin", size=size) == DATA
    assert box.origin.given[ENTRY.sha256] == len(DATA)
    assert box.seen.bytes_moved == len(DATA)
    assert len(box.clock.waits) >= len(set(breaks) - {len(DATA)})


def test_another_place_goes_on_with_the_stream() -> None:
    box = Box()
    box.origin.fail(DATA, raises(NotAllowedError("no"), after=300))
    content = box.content("origin", "mirror")
    assert b"".join(content.blocks(100)) == DATA
    assert box.mirror.reads_of(ENTRY) == [300]
    assert content.giver is None
    assert content.lacking == set()


def test_stream_of_a_place_without_ranges_drops_what_it_had() -> None:
    box = Box()
    box.origin.fail(DATA, raises(UnavailableError("reset"), after=300), no_ranges, no_ranges)
    assert box.read("origin", size=256) == DATA
    assert box.ledger.transferred().from_origin == 300 + len(DATA)
    assert box.ledger.transferred().resent == 300
    assert box.seen.bytes_moved == len(DATA)


@pytest.mark.parametrize("fault", [wrong_bytes, too_long])
def test_stream_of_wrong_bytes_never_ends(fault: Callable[[Reading], object]) -> None:
    box = Box()
    box.origin.fail(DATA, fault)  # type: ignore[arg-type]
    content = box.content("origin")
    with pytest.raises(IntegrityError) as caught:
        list(content.blocks(100))
    assert content.failure is caught.value


def test_stream_that_ends_early_goes_on() -> None:
    box = Box()
    box.origin.fail(DATA, too_short)
    assert box.read("origin") == DATA


def test_stream_that_is_read_again_counts_what_travels_twice() -> None:
    box = Box()
    content = box.content("origin")
    blocks = content.blocks(100)
    next(blocks)
    blocks.close()
    came = box.seen.bytes_moved
    assert b"".join(content.blocks(100)) == DATA
    assert box.seen.bytes_moved == len(DATA)
    assert box.ledger.transferred().resent == came


@pytest.mark.parametrize("error", [UnavailableError("down"), NotFoundError("gone"), NotAllowedError("no")])
def test_stream_that_nobody_can_give_fails_with_what_the_place_says(error: LabsyncError) -> None:
    box = Box()
    box.origin.fail(DATA, *[raises(error)] * ATTEMPTS)
    content = box.content("origin")
    with pytest.raises(type(error)):
        list(content.blocks(100))
    assert isinstance(content.failure, type(error))
    assert content.lacking == ({"origin"} if isinstance(error, NotFoundError) else set())


def test_place_is_left_alone_as_long_as_it_asks() -> None:
    box = Box()
    began = box.clock.now()
    box.origin.fail(DATA, raises(UnavailableError("slow down", retry_after=60)))
    assert box.read("origin") == DATA
    assert box.clock.now() >= began + 60


def test_stop_ends_a_stream_that_waits() -> None:
    box = Box()
    box.origin.fail(DATA, raises(UnavailableError("slow down", retry_after=60), after=300))

    class Stopping(FakeClock):
        def wait(self, changed: threading.Condition, seconds: float) -> None:
            box.stop.set()

    box.clock = Stopping()
    with pytest.raises(InterruptedRunError):
        box.read("origin")


def test_stream_that_is_left_lets_go_of_its_connection() -> None:
    box, closed = Box(), threading.Event()

    def connection(reading: Reading) -> object:
        try:
            yield from reading.give()
        finally:
            closed.set()

    box.origin.always = connection  # type: ignore[assignment]
    blocks = box.content("origin").blocks(100)
    next(blocks)
    blocks.close()
    assert closed.is_set()


def test_digest_of_a_stream_is_the_entrys() -> None:
    assert Box().content("origin").sha256 == sha256_bytes(DATA)
