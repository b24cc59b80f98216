"""Uploads in parts against a store in memory that can fail at every step."""

from __future__ import annotations

import hashlib
import itertools
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import pytest

from labsync.errors import (
    ChangedError,
    ConflictError,
    IntegrityError,
    LabsyncError,
    NotAllowedError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from labsync.mirrors import s3_parts
from labsync.mirrors.base import OtherBytesError
from labsync.mirrors.s3_bucket import IF_ABSENT, Condition, Part, Upload, Whole
from labsync.mirrors.s3_errors import NotImplementedByServerError
from labsync.mirrors.s3_parts import SENDERS, WINDOW, Begun, Order, Outgoing, Room, Sending
from labsync.mirrors.s3_upload import Sizes, Writer
from labsync.places import StoredPart
from tests.fakes.contents import FakeContent, changed, failing, right, unknown
from tests.fakes.journal import MemoryJournal

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

MIB = 1 << 20
PART = 1000
SMALL = Sizes(single=1500, part=PART, memory=4 * PART)
DATA = bytes(range(256)) * 40 + b"the end"  # ten parts and a short one
KEY = "results/runs/batch/f"
PARTS = 11


@dataclass(frozen=True)
class Listed:
    number: int
    etag: str
    size: int


@dataclass(frozen=True)
class Stored:
    data: bytes

    def blocks(self) -> Iterator[bytes]:
        yield self.data

    def close(self) -> None:
        pass


OnPart: TypeAlias = "Callable[[int, Callable[[int], None]], None]"


def quiet(number: int, sent: Callable[[int], None]) -> None:
    """Let a part pass."""


class MemoryStore:
    """What `s3_bucket.Bucket` does, in memory; `on_part` is called in the middle of each part."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.sent: list[int] = []
        self.sizes_asked = 0
        self.is_aws = False
        self.whole: Whole | None = None
        self.on_part: OnPart = quiet
        self.complete_faults: list[Exception] = []
        self.lose_reply = False
        self.abort_fault: Exception | None = None
        self._ids = itertools.count()
        self._mutex = threading.Lock()

    def address(self, key: str = "") -> str:
        return f"s3://bucket/{key}"

    def get(self, key: str) -> Stored:
        return Stored(self.objects[key])

    def size(self, key: str) -> int | None:
        self.sizes_asked += 1
        return len(self.objects[key]) if key in self.objects else None

    def put(
        self,
        key: str,
        data: bytes,
        condition: Condition = None,
        sha256: str = "",
        sent: Callable[[int], None] | None = None,
    ) -> str | None:
        assert sha256 in {"", hashlib.sha256(data).hexdigest()}
        if condition and key in self.objects:
            return None
        if sent:
            sent(len(data))
        self.objects[key] = data
        return "etag"

    def start_upload(self, key: str) -> Upload:
        upload = Upload(key, f"upload-{next(self._ids)}")
        self.uploads[upload.id] = {}
        return upload

    def put_part(
        self, upload: Upload, number: int, data: bytes, sent: Callable[[int], None] | None = None
    ) -> Part:
        if upload.id not in self.uploads:
            raise NotFoundError("no such upload")
        half = len(data) // 2
        assert sent
        sent(half)
        self.on_part(number, sent)
        sent(len(data) - half)
        with self._mutex:
            self.uploads[upload.id][number] = bytes(bytearray(data))  # its own copy
            self.sent.append(number)
        return Part(number, hashlib.md5(data).hexdigest())

    def list_parts(self, upload: Upload) -> list[Listed]:
        if upload.id not in self.uploads:
            raise NotFoundError("no such upload")
        return [
            Listed(number, hashlib.md5(data).hexdigest(), len(data))
            for number, data in self.uploads[upload.id].items()
        ]

    def complete(self, upload: Upload, parts: Sequence[Part], whole: Whole, condition: Condition) -> bool:
        if self.complete_faults:
            raise self.complete_faults.pop()
        if upload.id not in self.uploads:
            raise NotFoundError("no such upload")
        assert [part.number for part in parts] == list(range(1, len(parts) + 1))
        if condition and upload.key in self.objects:
            return False
        stored = self.uploads.pop(upload.id)
        for part in parts:
            assert hashlib.md5(stored[part.number]).hexdigest() == part.etag
        self.objects[upload.key] = b"".join(stored[part.number] for part in parts)
        self.whole = whole
        if self.lose_reply:
            raise UnavailableError("the connection broke")
        return True

    def abort(self, upload: Upload) -> None:
        if self.abort_fault:
            raise self.abort_fault
        if self.uploads.pop(upload.id, None) is None:
            raise NotFoundError("no such upload")


class Lab:
    """A store, a journal that outlives writers, and what `advance` was told."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.journal = MemoryJournal()
        self.counts: list[int] = []

    def write(
        self,
        content: FakeContent,
        *,
        condition: Condition = IF_ABSENT,
        advance: Callable[[int], None] | None = None,
        sizes: Sizes = SMALL,
    ) -> list[int]:
        """Write the content by a writer of its own, as a new run does; the numbers of the parts sent."""
        del self.store.sent[:]

        def note(count: int) -> None:
            self.counts.append(count)
            if advance:
                advance(count)

        Writer(self.store, sizes).write(Order(KEY, content, note, self.journal), condition)
        return sorted(self.store.sent)

    @property
    def stored(self) -> bytes | None:
        return self.store.objects.get(KEY)


@pytest.fixture
def lab() -> Lab:
    return Lab()


def fail_at(wanted: int, error: BaseException) -> OnPart:
    def on_part(number: int, sent: Callable[[int], None]) -> None:
        if number == wanted:
            raise error

    return on_part


ONE_BY_ONE = Sizes(single=1500, part=PART, memory=1)


def kill(lab: Lab, after: int, data: bytes = DATA) -> None:
    """Let a write end as a killed one does, after so many parts, sent one by one."""

    class Killed(BaseException):
        pass

    lab.store.on_part = fail_at(after + 1, Killed())
    with pytest.raises(Killed):
        lab.write(right(data), sizes=ONE_BY_ONE)
    assert sorted(lab.store.sent) == list(range(1, after + 1))
    lab.store.on_part = quiet
    del lab.counts[:]


# One upload.


@pytest.mark.parametrize("size", [1501, 2000, 2001, 10 * PART, len(DATA)])
@pytest.mark.parametrize("content", [right, unknown], ids=["known", "digest unknown"])
def test_a_large_content_goes_in_parts(lab: Lab, size: int, content: Callable[[bytes], FakeContent]) -> None:
    data = DATA[:size]
    assert lab.write(content(data)) == list(range(1, -(-size // PART) + 1))
    assert lab.stored == data
    assert sum(lab.counts) == size
    assert lab.store.uploads == {}
    assert lab.journal.uploads == {}


@pytest.mark.parametrize("size", [0, 1, 1500])
def test_a_small_content_goes_in_one_request(lab: Lab, size: int) -> None:
    for content in (right(DATA[:size]), unknown(DATA[:size])):
        assert lab.write(content, condition=None) == []
        assert lab.stored == DATA[:size]
    assert sum(lab.counts) == 2 * size
    assert lab.journal.begun == lab.store.sizes_asked == 0


def test_the_upload_is_journalled_before_its_first_part_and_each_part_after_it(lab: Lab) -> None:
    seen: list[tuple[str, ...]] = []

    def look(number: int, sent: Callable[[int], None]) -> None:
        unfinished = lab.journal.unfinished(KEY)
        assert unfinished
        assert unfinished.part_size == PART
        assert unfinished.id in lab.store.uploads
        seen.append(tuple(part.prefix for part in unfinished.parts))

    lab.store.on_part = look
    lab.write(right(DATA), sizes=ONE_BY_ONE)
    ends = [hashlib.sha256(DATA[: number * PART]).hexdigest() for number in range(1, PARTS)]
    assert seen == [tuple(ends[:number]) for number in range(PARTS)]


def test_amazon_gets_the_checksum_of_the_whole(lab: Lab) -> None:
    lab.store.is_aws = True
    kill(lab, 4)
    lab.write(right(DATA))
    assert lab.store.whole == Whole(len(DATA), zlib.crc32(DATA))


def test_what_a_client_took_back_is_not_taken_back_twice() -> None:
    counts: list[int] = []

    def advance(count: int) -> None:
        counts.append(count)

    outgoing = Outgoing(advance)
    for count in (600, 400, -1000, 600):
        outgoing(count)
    outgoing.take_back()
    outgoing.take_back()
    assert counts == [600, 400, -1000, 600, -600]


# A run that ended in the middle, and the next one.


@pytest.mark.parametrize("after", range(PARTS))
def test_the_next_run_sends_only_what_is_missing(lab: Lab, after: int) -> None:
    kill(lab, after)
    assert lab.write(right(DATA)) == list(range(after + 1, PARTS + 1))
    assert lab.stored == DATA
    assert sum(lab.counts) == len(DATA) - after * PART
    assert lab.journal.uploads == {}
    assert lab.journal.begun == 1


@pytest.mark.parametrize("condition", [IF_ABSENT, None], ids=["conditional", "single writer"])
@pytest.mark.parametrize("error", [UnavailableError("no"), NotAllowedError("no"), IntegrityError("no")])
def test_a_part_that_fails_is_sent_by_the_next_attempt(
    lab: Lab, error: LabsyncError, condition: Condition
) -> None:
    lab.store.on_part = fail_at(3, error)
    with pytest.raises(type(error)):
        lab.write(right(DATA), condition=condition)
    kept = sorted(lab.store.sent)
    assert 3 not in kept
    assert sum(lab.counts) == PART * len(kept)
    lab.store.on_part = quiet
    assert lab.write(right(DATA), condition=condition) == sorted(set(range(1, PARTS + 1)) - set(kept))
    assert lab.stored == DATA
    assert sum(lab.counts) == len(DATA)


def test_a_hole_alone_is_filled(lab: Lab) -> None:
    kill(lab, 6)
    del lab.store.uploads["upload-0"][2]
    del lab.journal.uploads[KEY].parts[4]
    assert lab.write(right(DATA)) == [2, 4, 7, 8, 9, 10, 11]
    assert lab.stored == DATA


@pytest.mark.parametrize("other", [b"OTHER" + DATA[5 + PART :], b""], ids=["size", "empty"])
def test_a_part_that_the_server_has_otherwise_is_sent_again(lab: Lab, other: bytes) -> None:
    kill(lab, 6)
    lab.store.uploads["upload-0"][3] = other[:PART]
    assert lab.write(right(DATA)) == [3, 7, 8, 9, 10, 11]
    assert lab.stored == DATA


def test_a_part_of_another_size_is_sent_again_though_its_etag_is_right(lab: Lab) -> None:
    kill(lab, 6)
    short = DATA[2 * PART : 2 * PART + 10]
    lab.store.uploads["upload-0"][3] = short
    part = lab.journal.uploads[KEY].parts[3]
    lab.journal.uploads[KEY].parts[3] = StoredPart(3, hashlib.md5(short).hexdigest(), part.prefix)
    assert lab.write(right(DATA)) == [3, 7, 8, 9, 10, 11]
    assert lab.stored == DATA


@pytest.mark.parametrize("longer", [b"", b" and more" * 200])
def test_from_the_first_other_byte_on_everything_is_sent_again(lab: Lab, longer: bytes) -> None:
    kill(lab, 6)
    now = DATA[:2500] + b"!" + DATA[2501:] + longer
    assert lab.write(right(now))[:5] == [3, 4, 5, 6, 7]
    assert lab.stored == now


def test_a_shorter_content_leaves_the_later_parts_out(lab: Lab) -> None:
    kill(lab, 6)
    assert lab.write(right(DATA[:2500])) == [3]
    assert lab.stored == DATA[:2500]


def test_the_part_size_is_the_one_that_was_begun_with(lab: Lab) -> None:
    kill(lab, 4)
    assert lab.write(right(DATA), sizes=Sizes(single=1500, part=5000)) == list(range(5, PARTS + 1))


def test_a_part_size_too_small_for_the_content_is_given_up(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    kill(lab, 4)
    monkeypatch.setattr("labsync.mirrors.s3_upload.MAX_PARTS", 10)
    lab.write(right(DATA), sizes=Sizes(single=1500, part=5000))
    assert lab.stored == DATA
    assert lab.store.uploads == {}
    assert lab.journal.begun == 2


def test_a_server_that_cannot_replace_a_part_gets_a_new_upload(lab: Lab) -> None:
    kill(lab, 4)
    lab.store.on_part = fail_at(2, NotImplementedByServerError("cannot be replaced"))
    now = DATA[:PART] + b"!" + DATA[PART + 1 :]
    with pytest.raises(UnavailableError):
        lab.write(right(now))
    assert not lab.store.uploads
    assert not lab.journal.uploads
    lab.store.on_part = quiet
    assert lab.write(right(now)) == list(range(1, PARTS + 1))


def test_a_server_that_takes_no_parts_is_not_asked_again(lab: Lab) -> None:
    lab.store.on_part = fail_at(1, NotImplementedByServerError("no parts"))
    with pytest.raises(NotImplementedByServerError):
        lab.write(right(DATA))


@pytest.mark.fault(67)
def test_an_upload_that_the_server_dropped_is_begun_anew(lab: Lab) -> None:
    kill(lab, 4)
    lab.store.uploads.clear()
    assert lab.write(right(DATA)) == list(range(1, PARTS + 1))
    assert lab.stored == DATA
    assert lab.journal.begun == 2


def test_an_upload_that_the_server_drops_meanwhile_is_begun_anew_by_the_next_attempt(lab: Lab) -> None:
    lab.store.on_part = lambda number, sent: lab.store.uploads.clear() if number == 3 else None
    with pytest.raises((UnavailableError, KeyError)):
        lab.write(right(DATA), sizes=ONE_BY_ONE)
    lab.store.on_part = quiet
    assert lab.write(right(DATA)) == list(range(1, PARTS + 1))


# Its end.


@pytest.mark.parametrize("condition", [IF_ABSENT, None], ids=["conditional", "single writer"])
def test_what_was_completed_before_the_run_was_killed_is_not_sent_again(
    lab: Lab, condition: Condition
) -> None:
    lab.store.lose_reply = True
    with pytest.raises(UnavailableError):
        lab.write(right(DATA), condition=condition)
    assert lab.journal.uploads
    for _ in range(2 if condition else 1):
        assert lab.write(right(DATA), condition=condition) == []
        assert lab.journal.uploads == {}
    assert lab.stored == DATA


@pytest.mark.fault(66)
def test_a_lost_reply_that_the_client_repeats_is_success(lab: Lab) -> None:
    def complete_then_forget(number: int, sent: Callable[[int], None]) -> None:
        lab.store.objects[KEY] = DATA
        lab.store.complete_faults = [NotFoundError("no such upload")]

    lab.store.on_part = complete_then_forget
    lab.write(right(DATA))
    assert lab.journal.uploads == {}


def test_a_completion_without_an_upload_is_a_failure(lab: Lab) -> None:
    lab.store.complete_faults = [NotFoundError("no such upload")]
    with pytest.raises(UnavailableError, match="cannot be continued"):
        lab.write(right(DATA))
    assert lab.journal.uploads == {}


@pytest.mark.parametrize("error", [IntegrityError("crc"), RefusedError("too small")])
def test_parts_that_are_never_taken_are_dropped(lab: Lab, error: LabsyncError) -> None:
    lab.store.complete_faults = [error]
    with pytest.raises(type(error)):
        lab.write(right(DATA))
    assert not lab.journal.uploads
    assert not lab.store.uploads


def test_a_server_that_does_not_answer_at_the_end_is_asked_once_more_by_the_next_attempt(lab: Lab) -> None:
    lab.store.complete_faults = [UnavailableError("no")]
    with pytest.raises(UnavailableError):
        lab.write(right(DATA))
    assert lab.write(right(DATA)) == []
    assert lab.stored == DATA


def test_a_rival_with_other_bytes_wins_and_nothing_is_left(lab: Lab) -> None:
    lab.store.on_part = lambda number, sent: lab.store.objects.update({KEY: b"the other box"})
    with pytest.raises(ConflictError):
        lab.write(unknown(DATA))
    assert lab.stored == b"the other box"
    assert not lab.store.uploads
    assert not lab.journal.uploads


def test_a_rival_with_the_same_bytes_is_welcome(lab: Lab) -> None:
    lab.store.on_part = lambda number, sent: lab.store.objects.update({KEY: DATA})
    lab.write(unknown(DATA))
    assert not lab.store.uploads
    assert not lab.journal.uploads


def test_a_single_writer_does_not_look(lab: Lab) -> None:
    lab.store.objects[KEY] = b"other bytes"
    lab.write(right(DATA), condition=None)
    assert lab.stored == DATA
    assert lab.store.sizes_asked == 1  # the look at what was stored


# Contents that fail.


@pytest.mark.parametrize(
    "content",
    [
        changed(DATA, DATA[:-1] + b"!"),
        changed(DATA, DATA[:5000]),
        changed(DATA, DATA + b"!"),
        changed(DATA, DATA + DATA),
        failing(DATA, IntegrityError("no")),
        FakeContent(DATA, len(DATA), "0" * 64),
    ],
    ids=["other", "shorter", "longer", "much longer", "integrity", "another digest"],
)
def test_a_content_that_is_not_right_leaves_nothing(lab: Lab, content: FakeContent) -> None:
    with pytest.raises((ChangedError, IntegrityError)):
        lab.write(content)
    assert lab.stored is None
    assert not lab.store.uploads
    assert not lab.journal.uploads


class Careless(FakeContent):
    """Does not prove itself."""

    def blocks(self, size: int) -> Generator[bytes, None, None]:
        yield from (self.data[at : at + size] for at in range(0, len(self.data), size))


@pytest.mark.parametrize(
    "content",
    [
        Careless(DATA, len(DATA), "0" * 64),
        Careless(DATA, len(DATA) - 1, ""),
        Careless(DATA, len(DATA) + 1, ""),
        Careless(DATA[:100], 101, ""),
        Careless(DATA[:100], 99, ""),
        Careless(b"", 1, ""),
    ],
)
def test_what_is_easily_seen_is_seen_even_where_the_content_forgot_to_look(
    lab: Lab, content: FakeContent
) -> None:
    with pytest.raises(ChangedError):
        lab.write(content)
    assert lab.stored is None
    assert not lab.store.uploads
    assert not lab.journal.uploads


def test_a_content_that_cannot_be_read_now_is_continued_later(lab: Lab) -> None:
    with pytest.raises(UnavailableError):
        lab.write(failing(DATA, UnavailableError("the origin broke")))
    assert lab.stored is None
    kept = set(lab.journal.uploads[KEY].parts)
    assert set(lab.write(right(DATA))) == set(range(1, PARTS + 1)) - kept
    assert lab.stored == DATA


def test_an_upload_that_cannot_be_dropped_now_stays_in_the_journal(lab: Lab) -> None:
    lab.store.abort_fault = UnavailableError("no")
    with pytest.raises(ChangedError):
        lab.write(changed(DATA, DATA[:-1]))
    assert list(lab.journal.uploads) == [KEY]
    writer = Writer(lab.store, SMALL)
    with pytest.raises(UnavailableError):
        writer.abandon(KEY, lab.journal)
    lab.store.abort_fault = None
    for _ in range(2):
        writer.abandon(KEY, lab.journal)
    assert not lab.store.uploads
    assert not lab.journal.uploads


def test_an_upload_that_cannot_be_journalled_is_dropped(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(*_: object) -> None:
        raise RefusedError("the disk is full")

    monkeypatch.setattr(lab.journal, "begin", begin)
    with pytest.raises(RefusedError):
        lab.write(right(DATA))
    assert lab.store.uploads == {}


# Threads and memory.


def test_a_failure_stops_the_reading_and_leaves_no_thread(lab: Lab) -> None:
    read: list[int] = []

    class Counting(FakeContent):
        def blocks(self, size: int) -> Generator[bytes, None, None]:
            for block in super().blocks(size):
                read.append(len(block))
                yield block

    lab.store.on_part = fail_at(1, UnavailableError("no"))
    before = threading.active_count()
    with pytest.raises(UnavailableError):
        lab.write(Counting(DATA, len(DATA), ""), sizes=ONE_BY_ONE)
    assert len(read) <= 2
    assert threading.active_count() == before


def test_a_content_that_fails_stops_those_who_are_sending(lab: Lab) -> None:
    sending = threading.Event()

    class Failing(FakeContent):
        def blocks(self, size: int) -> Generator[bytes, None, None]:
            yield self.data[:size]
            sending.wait()
            raise ChangedError("it changed")

    def send_for_ever(number: int, sent: Callable[[int], None]) -> None:
        sending.set()
        while True:
            sent(0)

    lab.store.on_part = send_for_ever
    with pytest.raises(ChangedError):
        lab.write(Failing(DATA, len(DATA), ""))
    assert sum(lab.counts) == 0
    assert not lab.store.uploads
    assert not lab.journal.uploads


class StoppedError(Exception):
    """What `advance` raises once the run is to stop."""


def test_a_run_that_stops_leaves_those_alone_who_hang(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_parts, "GRACE", 0.0)
    monkeypatch.setattr(s3_parts, "POLL", 0.01)
    hanging, server = threading.Semaphore(0), threading.Event()
    daemons: list[bool] = []

    def hang(number: int, sent: Callable[[int], None]) -> None:
        daemons.append(threading.current_thread().daemon)
        hanging.release()
        server.wait()

    def stop(count: int) -> None:
        lab.counts.append(count)
        if not count:
            for _ in range(SENDERS):
                hanging.acquire()
            raise StoppedError

    lab.store.on_part = hang
    before = set(threading.enumerate())
    writer = Writer(lab.store, SMALL)
    with pytest.raises(StoppedError):
        writer.write(Order(KEY, right(DATA), stop, lab.journal), None)
    assert daemons == [True] * SENDERS
    assert sum(lab.counts) == 0
    told = list(lab.counts)
    left = set(threading.enumerate()) - before
    assert len(left) == SENDERS
    server.set()
    for thread in left:
        thread.join()
    assert lab.counts == told
    assert lab.journal.uploads[KEY].parts == {}
    assert writer._room._used == 0


@pytest.mark.parametrize("condition", [IF_ABSENT, None], ids=["conditional", "single writer"])
def test_a_content_whose_digest_nobody_knows_is_compared_with_what_is_there(
    lab: Lab, condition: Condition
) -> None:
    lab.store.lose_reply = True
    with pytest.raises(UnavailableError):
        lab.write(unknown(DATA), condition=condition)
    with pytest.raises(OtherBytesError):
        lab.write(unknown(DATA[:-1] + b"!"), condition=condition)
    assert lab.stored == DATA
    assert lab.write(unknown(DATA), condition=condition) == []
    assert lab.journal.uploads == {}


def test_a_content_that_fails_when_it_is_compared_leaves_no_upload(lab: Lab) -> None:
    kill(lab, 3)
    lab.store.objects[KEY] = DATA
    with pytest.raises(ChangedError):
        lab.write(FakeContent(DATA, len(DATA), "", failure=ChangedError("it changed")))
    assert not lab.store.uploads
    assert not lab.journal.uploads


class Block(bytes):
    """A block that is counted while it lives."""

    live = 0
    most = 0
    mutex = threading.Lock()

    def __init__(self, data: bytes) -> None:
        with self.mutex:
            Block.live += len(data)
            Block.most = max(Block.most, Block.live)

    def __del__(self) -> None:
        with self.mutex:
            Block.live -= len(self)


class Counted(FakeContent):
    def blocks(self, size: int) -> Generator[bytes, None, None]:
        for at in range(0, len(self.data), size):
            yield Block(self.data[at : at + size])


@pytest.mark.parametrize("fails", [False, True])
def test_all_writes_together_hold_no_more_than_the_memory_they_share(lab: Lab, fails: bool) -> None:
    Block.live = Block.most = 0
    store, journal = lab.store, MemoryJournal()
    writer = Writer(store, Sizes(single=1500, part=PART, memory=5 * PART))

    def in_part(number: int, sent: Callable[[int], None]) -> None:
        if fails and number == 7:
            raise UnavailableError("no")

    store.on_part = in_part

    def write(number: int) -> None:
        size = len(DATA) if number % 2 else 1200
        order = Order(f"{KEY}{number}", Counted(DATA[:size], size, ""), lambda count: None, journal)
        try:
            writer.write(order, None)
        except UnavailableError as error:
            kept.append(error)  # as a report keeps it

    kept = list[LabsyncError]()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(32)))
    assert len(kept) == 16 * fails
    assert Block.live == 0
    assert 4 * PART <= Block.most <= 5 * PART


def test_parts_that_are_not_sent_take_no_more_memory_than_others(lab: Lab) -> None:
    kill(lab, 8)
    Block.live = Block.most = 0
    lab.write(Counted(DATA, len(DATA), ""), sizes=ONE_BY_ONE)
    assert Block.live == 0
    assert Block.most == PART


def test_an_error_that_somebody_keeps_holds_no_content(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(*_: object) -> str:
        raise UnavailableError("no")

    data = bytes(1000)
    content = unknown(data)
    monkeypatch.setattr(lab.store, "put", put)
    before = sys.getrefcount(data)
    with pytest.raises(UnavailableError) as kept:
        lab.write(content)
    assert kept.value
    assert sys.getrefcount(data) == before


@pytest.mark.parametrize("ends", ["answered", "failed"])
def test_no_part_is_sent_far_ahead_of_one_without_an_answer(lab: Lab, ends: str) -> None:
    order = Order(KEY, right(DATA), lambda count: None, lab.journal)
    sending = Sending(lab.store, order, Begun(Upload(KEY, "id"), PART), Room(PART))
    sending._unanswered = {3, 5}
    sending._await_turn(2 + WINDOW)
    waiting = threading.Thread(target=sending._await_turn, args=(3 + WINDOW,), daemon=True)
    waiting.start()
    while waiting.is_alive() and not sending._changed._waiters:  # type: ignore[attr-defined]
        pass
    assert waiting.is_alive()
    with sending._changed:
        if ends == "answered":
            sending._unanswered.remove(3)
        else:
            sending._failure = UnavailableError("no")
        sending._changed.notify_all()
    waiting.join(10)
    assert not waiting.is_alive()


def test_the_failure_of_one_write_leaves_the_others_alone(lab: Lab) -> None:
    writer, journal = Writer(lab.store, SMALL), MemoryJournal()
    contents = {f"{KEY}{number}": DATA[number:] for number in range(6)}

    def write(key: str) -> None:
        content = changed(contents[key], b"!") if key == f"{KEY}3" else right(contents[key])
        try:
            writer.write(Order(key, content, lambda count: None, journal), IF_ABSENT)
        except ChangedError:
            assert key == f"{KEY}3"

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, contents))
    del contents[f"{KEY}3"]
    assert lab.store.objects == contents
    assert not lab.store.uploads
    assert not journal.uploads


def test_room_is_given_in_the_order_of_asking_and_to_a_giant_alone() -> None:
    room, got = Room(10), list[str]()
    room.take(6, lambda: None)

    def take(name: str, count: int) -> None:
        room.take(count, lambda: None)
        got.append(name)
        room.give(count)

    threads = []
    for name, count in (("giant", 100), ("dwarf", 1)):
        thread = threading.Thread(target=take, args=(name, count), daemon=True)
        thread.start()
        threads.append(thread)
        while len(room._waiting) < len(threads) and not got:
            pass
    assert got == []
    room.give(6)
    for thread in threads:
        thread.join()
    assert got == ["giant", "dwarf"]
    assert room._used == 0


# Sizes.


@pytest.mark.fault(71)
@pytest.mark.parametrize(
    ("size", "part"),
    [
        (1, Sizes().part),
        (10_000 * Sizes().part, Sizes().part),
        (10_000 * Sizes().part + 1, Sizes().part + MIB),
        (640_001 * MIB, 65 * MIB),
        (5 << 40, 525 * MIB),
    ],
)
def test_part_sizes_keep_below_ten_thousand_parts(size: int, part: int) -> None:
    assert Sizes().part_of(size) == part
    assert -(-size // part) <= 10_000
    assert part >= 5 * MIB  # the least that S3 takes


@pytest.mark.fault(71)
def test_what_s3_cannot_hold_is_refused_before_anything_is_sent(lab: Lab) -> None:
    with pytest.raises(RefusedError, match="more than S3 takes"):
        lab.write(FakeContent(b"", (5 << 40) + 1, "0" * 64))
    assert lab.store.uploads == {}
