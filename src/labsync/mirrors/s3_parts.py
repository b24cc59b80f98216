"""The parts of one upload: read and hashed in order by one thread, sent by several, bounded in memory."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
import time
import traceback
import zlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from labsync.errors import (
    ChangedError,
    IntegrityError,
    InterruptedRunError,
    LabsyncError,
    NotFoundError,
    UnavailableError,
)
from labsync.mirrors.s3_bucket import Part, Upload, Whole
from labsync.mirrors.s3_errors import NotImplementedByServerError
from labsync.mirrors.source import changed
from labsync.places import StoredPart

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from labsync.places import Advance, Content, Running, UploadJournal

SENDERS = 4  # per upload; `Room` bounds what all uploads of a mirror have under way together
# How many parts the last one sent may be ahead of the first one that has no answer. `rclone serve s3`
# passes parts on in their order, and answers a request late whose thread does so for those behind it.
WINDOW = 16
POLL = 0.2  # seconds after which who waits asks whether the run is to stop
GRACE = 1.0  # seconds in which those who are sending stop, or are left alone; the engine gives us three

_Job: TypeAlias = "tuple[int, list[bytes], str]"


class LostUploadError(UnavailableError):
    """The upload cannot be continued; a new one can be begun.

    The server does not know it any more (it was completed, or removed by one of the bucket's rules),
    or has other bytes for a part and, like `rclone serve s3`, cannot replace a part.
    """

    def __init__(self, address: str) -> None:
        super().__init__(f"the upload of `{address}` cannot be continued and begins anew", path=address)


class PartStore(Protocol):
    """The part of a bucket that takes parts."""

    @property
    def is_aws(self) -> bool:
        """Say whether the CRC-32 of the whole object is wanted."""

    def address(self, key: str = "") -> str:
        """Return the address of a key, for people."""

    def put_part(
        self, upload: Upload, number: int, data: bytes, sent: Callable[[int], None] | None = None
    ) -> Part:
        """Store one part; `sent` hears of the bytes that go out, of -n when n have to go out again."""


@dataclass(frozen=True, slots=True)
class Order:
    """What `Mirror.write` was asked to do."""

    key: str
    content: Content
    advance: Advance
    journal: UploadJournal


@dataclass(frozen=True, slots=True)
class Begun:
    """An upload that the server and the journal know; when it goes on, with the parts both have alike."""

    upload: Upload
    part_size: int
    stored: Mapping[int, StoredPart] = field(default_factory=dict)
    again: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """Every part of a content is on the server; what they make together, and its SHA-256."""

    parts: tuple[Part, ...]
    whole: Whole
    sha256: str


class Room:
    """The memory that all writes of a mirror share, in bytes; first come, first served.

    What is larger than all of it is let in alone. Safe for several threads.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    def take(self, count: int, check: Callable[[], None]) -> None:
        """Wait until `count` bytes may be held; every `take` is followed by a `give`.

        `check` is called now and then meanwhile, and may raise to end the wait.
        """
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                while not self._changed.wait_for(
                    lambda: self._waiting[0] is turn and self._fits(count), POLL
                ):
                    check()
                self._used += count
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()

    def give(self, count: int) -> None:
        """Say that as many bytes are held no longer."""
        with self._changed:
            self._used -= count
            self._changed.notify_all()

    def _fits(self, count: int) -> bool:
        return not self._used or self._used + count <= self._size


class Outgoing:
    """Tells `advance` about the bytes of one request, and takes them back when it fails."""

    def __init__(self, advance: Advance, check: Callable[[], None] | None = None) -> None:
        self._advance = advance
        self._check = check
        self._count = 0
        self._is_over = False
        self._mutex = threading.Lock()

    def __call__(self, count: int) -> None:
        """Take note of `count` bytes that went out; negative when they have to go out again."""
        with self._mutex:
            if self._is_over:
                raise InterruptedRunError("this request was given up")
            self._count += count
            self._advance(count)
        if self._check:
            self._check()

    def take_back(self) -> None:
        """Say that the request failed: what went out has to go out again."""
        with self._mutex:
            count, self._count = self._count, 0
            if count:
                self._advance(-count)

    def give_up(self) -> None:
        """Take the request for failed; from now on nothing is heard of it, also when it goes on."""
        with self._mutex:
            self._is_over = True
        self.take_back()


class Sending:
    """Sends one content into one upload; used once.

    `content_failed` says, after `run` has raised, that the content is not what it should be.
    """

    def __init__(self, store: PartStore, order: Order, begun: Begun, room: Room) -> None:
        self.content_failed = False
        self._store = store
        self._order = order
        self._begun = begun
        self._room = room
        self._parts: dict[int, Part] = {}
        self._digest = hashlib.sha256()
        self._crc32 = 0
        self._failure: BaseException | None = None
        self._halted = self._abandoned = False
        self._unanswered: set[int] = set()
        self._outgoing: set[Outgoing] = set()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._changed = threading.Condition()

    def run(self) -> Sent:
        """Return when every part is stored; the first failure of any thread is raised, after all ended.

        `advance` hears of 0 bytes now and then while nothing moves, and may raise. Who then hangs in a
        server that fell silent is left alone: it is a daemon, which keeps no process from ending, and
        neither `advance` nor the journal hears of it any more.
        """
        senders: list[threading.Thread] = []
        try:
            for _ in range(SENDERS):
                sender = threading.Thread(target=self._live, name="labsync-upload", daemon=True)
                sender.start()
                senders.append(sender)
            self._read()
            self._wait(lambda: not self._unanswered)
        except BaseException:
            self._halted = True  # those who are sending stop at their next slice
            raise
        finally:
            self._dismiss(senders)
        if self._failure:
            raise self._failure
        parts = tuple(self._parts[number] for number in sorted(self._parts))
        return Sent(parts, Whole(self._order.content.size, self._crc32), self._running.hexdigest())

    def _live(self) -> None:
        while job := self._jobs.get():
            self._send(*job)
            del job  # or an idle thread would hold a part's box

    def _wait(self, is_reached: Callable[[], object]) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(is_reached, POLL):
                    return
            self._look_up()

    def _look_up(self) -> None:
        self._order.advance(0)

    def _dismiss(self, senders: list[threading.Thread]) -> None:
        for _ in senders:
            self._jobs.put(None)
        until = time.monotonic() + GRACE
        for sender in senders:
            sender.join(max(0.0, until - time.monotonic()))
        if any(sender.is_alive() for sender in senders):
            self._abandon()

    def _abandon(self) -> None:
        with self._changed:
            self._halted = self._abandoned = True
            outgoing = list(self._outgoing)
        for request in outgoing:
            with contextlib.suppress(LabsyncError):
                request.give_up()
        with contextlib.suppress(queue.Empty):
            while True:
                if job := self._jobs.get_nowait():
                    self._send(*job)  # which gives its room back, and no more
        for _ in range(SENDERS):
            self._jobs.put(None)  # for those who come back after all

    def _read(self) -> None:
        size, left, number = self._begun.part_size, self._order.content.size, 0
        with contextlib.closing(self._order.content.blocks(size)) as blocks:
            while left and not self._failure:
                number, length = number + 1, min(size, left)
                left -= length
                self._await_turn(number)
                self._room.take(length, self._look_up)
                taken = False
                try:
                    taken = self._hand_over(number, [self._next(blocks, length)])
                finally:
                    if not taken:
                        self._room.give(length)
            if not self._failure:
                self._expect_end(blocks)

    def _await_turn(self, number: int) -> None:
        def is_near() -> bool:
            return number - min(self._unanswered, default=number) < WINDOW

        self._wait(lambda: self._failure or is_near())

    def _next(self, blocks: Generator[bytes, None, None], length: int) -> bytes:
        """Return the content's next block, hashed; empty at its end, which is the content's own proof."""
        try:
            data = next(blocks, b"")
            if len(data) != length:
                raise changed(self._order.key)
        except (ChangedError, IntegrityError):
            self.content_failed = True
            raise
        if self._order.content.running is None:
            self._digest.update(data)
        if self._store.is_aws:
            self._crc32 = zlib.crc32(data, self._crc32)
        return data

    @property
    def _running(self) -> Running:
        return self._order.content.running or self._digest

    def _expect_end(self, blocks: Generator[bytes, None, None]) -> None:
        self._next(blocks, 0)
        if self._order.content.sha256 not in {"", self._running.hexdigest()}:
            self.content_failed = True
            raise changed(self._order.key)

    def _hand_over(self, number: int, box: list[bytes]) -> bool:
        """Give the part to a sender, who then gives its room back; False when the server has it.

        The bytes travel in a box that the sender empties, so that no frame keeps them any longer.
        """
        prefix = self._running.copy().hexdigest()
        stored = self._begun.stored.get(number)
        if stored and stored.prefix == prefix:
            self._parts[number] = Part(number, stored.etag)
            return False
        with self._changed:
            self._unanswered.add(number)
        self._jobs.put((number, box, prefix))
        return True

    def _send(self, number: int, box: list[bytes], prefix: str) -> None:
        data = box.pop()
        length = len(data)
        try:
            if not self._failure and not self._halted:
                self._put(number, data, prefix)
        except BaseException as error:  # noqa: BLE001  `run` raises it
            self._fail(error)
            let_go(error)
        finally:
            del data
            self._room.give(length)
            with self._changed:
                self._unanswered.remove(number)
                self._changed.notify_all()

    def _put(self, number: int, data: bytes, prefix: str) -> None:
        outgoing = Outgoing(self._order.advance, self._check)
        with self._changed:
            self._outgoing.add(outgoing)
        try:
            part = self._store.put_part(self._begun.upload, number, data, outgoing)
        except BaseException as error:
            self._fail(self._meaning(error))  # before `advance` can raise something else
            outgoing.take_back()
            raise
        with self._changed:
            if self._abandoned:
                return
            self._outgoing.remove(outgoing)
            self._order.journal.add(self._order.key, StoredPart(number, part.etag, prefix))
            self._parts[number] = part

    def _meaning(self, error: BaseException) -> BaseException:
        cannot_replace = isinstance(error, NotImplementedByServerError) and self._begun.again
        if not isinstance(error, NotFoundError) and not cannot_replace:
            return error
        lost = LostUploadError(self._store.address(self._order.key))
        lost.__cause__ = error
        return lost

    def _check(self) -> None:
        if self._halted:
            raise InterruptedRunError(f"the upload of `{self._store.address(self._order.key)}` was stopped")

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._failure = self._failure or error


def let_go(error: BaseException) -> None:
    """Free what the frames below hold, and would hold for as long as somebody keeps the error."""
    link: BaseException | None = error
    while link:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
