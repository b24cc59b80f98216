"""The parts of one upload: read and hashed in order by one thread, sent by several, bounded in memory."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import traceback
import zlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from labsync.errors import ChangedError, IntegrityError, InterruptedRunError, NotFoundError, UnavailableError
from labsync.mirrors.s3_bucket import Part, Upload, Whole
from labsync.mirrors.s3_errors import NotImplementedByServerError
from labsync.mirrors.source import changed
from labsync.places import StoredPart

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from concurrent.futures import Executor

    from labsync.places import Advance, Content, UploadJournal

SENDERS = 4  # per upload; `Room` bounds what all uploads of a mirror have under way together
# How many parts the last one sent may be ahead of the first one that has no answer. `rclone serve s3`
# passes parts on in their order, and answers a request late whose thread does so for those behind it.
WINDOW = 16


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

    def take(self, count: int) -> None:
        """Wait until `count` bytes may be held; every `take` is followed by a `give`."""
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is turn and self._fits(count))
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

    def __call__(self, count: int) -> None:
        """Take note of `count` bytes that went out; negative when they have to go out again."""
        self._count += count
        self._advance(count)
        if self._check:
            self._check()

    def take_back(self) -> None:
        """Say that the request failed: what went out has to go out again."""
        count, self._count = self._count, 0
        if count:
            self._advance(-count)


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
        self._halted = False
        self._unanswered: set[int] = set()
        self._changed = threading.Condition()

    def run(self) -> Sent:
        """Return when every part is stored; the first failure of any thread is raised, after all ended."""
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(SENDERS, "labsync-upload") as senders:
            try:
                self._read(senders)
            except BaseException:
                self._halted = True  # those who are sending stop at their next slice
                raise
        if self._failure:
            raise self._failure
        parts = tuple(self._parts[number] for number in sorted(self._parts))
        return Sent(parts, Whole(self._order.content.size, self._crc32), self._digest.hexdigest())

    def _read(self, senders: Executor) -> None:
        size, left, number = self._begun.part_size, self._order.content.size, 0
        with contextlib.closing(self._order.content.blocks(size)) as blocks:
            while left and not self._failure:
                number, length = number + 1, min(size, left)
                left -= length
                self._await_turn(number)
                self._room.take(length)
                taken = False
                try:
                    taken = self._hand_over(number, [self._next(blocks, length)], senders)
                finally:
                    if not taken:
                        self._room.give(length)
            if not self._failure:
                self._expect_end(blocks)

    def _await_turn(self, number: int) -> None:
        def is_near() -> bool:
            return number - min(self._unanswered, default=number) < WINDOW

        with self._changed:
            self._changed.wait_for(lambda: self._failure or is_near())

    def _next(self, blocks: Generator[bytes, None, None], length: int) -> bytes:
        """Return the content's next block, hashed; empty at its end, which is the content's own proof."""
        try:
            data = next(blocks, b"")
            if len(data) != length:
                raise changed(self._order.key)
        except (ChangedError, IntegrityError):
            self.content_failed = True
            raise
        self._digest.update(data)
        if self._store.is_aws:
            self._crc32 = zlib.crc32(data, self._crc32)
        return data

    def _expect_end(self, blocks: Generator[bytes, None, None]) -> None:
        self._next(blocks, 0)
        if self._order.content.sha256 not in {"", self._digest.hexdigest()}:
            self.content_failed = True
            raise changed(self._order.key)

    def _hand_over(self, number: int, box: list[bytes], senders: Executor) -> bool:
        """Give the part to a sender, who then gives its room back; False when the server has it.

        The bytes travel in a box that the sender empties, so that no frame keeps them any longer.
        """
        prefix = self._digest.copy().hexdigest()
        stored = self._begun.stored.get(number)
        if stored and stored.prefix == prefix:
            self._keep(Part(number, stored.etag))
            return False
        with self._changed:
            self._unanswered.add(number)
        senders.submit(self._send, number, box, prefix)
        return True

    def _keep(self, part: Part) -> None:
        with self._changed:
            self._parts[part.number] = part

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
        try:
            part = self._store.put_part(self._begun.upload, number, data, outgoing)
        except BaseException as error:
            self._fail(self._meaning(error))  # before `advance` can raise something else
            outgoing.take_back()
            raise
        self._order.journal.add(self._order.key, StoredPart(number, part.etag, prefix))
        self._keep(part)

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
