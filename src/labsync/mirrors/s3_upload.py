"""How an object is stored: in one request, or in parts that a killed run leaves for the next one."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from labsync.digest import BLOCK, sha256_bytes, sha256_stream
from labsync.errors import ChangedError, IntegrityError, LabsyncError, NotFoundError, RefusedError
from labsync.mirrors.s3_bucket import Upload
from labsync.mirrors.s3_parts import Begun, LostUploadError, Outgoing, PartStore, Room, Sending, let_go
from labsync.mirrors.source import changed, expect_same, other_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from labsync.mirrors.s3_bucket import Condition, Part, Whole
    from labsync.mirrors.s3_parts import Order, Sent
    from labsync.places import Buffer, UnfinishedUpload, UploadJournal

_MIB = 1 << 20
MAX_PARTS = 10_000  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
MAX_SIZE = 5 << 40


@dataclass(frozen=True, slots=True)
class Sizes:
    """Up to `single` bytes go in one request, more in parts of at least `part`; `page` heads per listing.

    All writes of a mirror together hold at most `memory` bytes of content, or one part: those on their way
    from `SENDERS` threads and the one that is read meanwhile. More made nothing faster.
    """

    single: int = 16 * _MIB
    part: int = 8 * _MIB
    memory: int = 40 * _MIB
    page: int = 1000

    def part_of(self, size: int) -> int:
        """Return the part size for a content: never more parts than S3 takes, and whole MiB."""
        if size > MAX_SIZE:
            raise RefusedError(
                f"{size} bytes are more than S3 takes in one object", hint="split the file, or leave it out"
            )
        least = -(-size // MAX_PARTS)
        return self.part if least <= self.part else -(-least // _MIB) * _MIB


class StoredBytes(Protocol):
    """What an object holds."""

    def blocks(self) -> Iterable[Buffer]:
        """Yield the bytes as they arrive."""

    def close(self) -> None:
        """Let go of the connection."""


class ListedPart(Protocol):
    """A part as the server lists it."""

    @property
    def number(self) -> int:
        """Its number, from 1."""

    @property
    def etag(self) -> str:
        """The ETag that storing it gave."""

    @property
    def size(self) -> int:
        """How many bytes it has."""


class ObjectStore(PartStore, Protocol):
    """The part of a bucket that objects are stored with; see `s3_bucket.Bucket`."""

    def get(self, key: str) -> StoredBytes:
        """Ask for an object."""

    def size(self, key: str) -> int | None:
        """Return an object's size, None when it does not exist."""

    def put(
        self,
        key: str,
        data: bytes,
        condition: Condition = None,
        sha256: str = "",
        sent: Callable[[int], None] | None = None,
    ) -> str | None:
        """Store an object; None when the condition fails."""

    def start_upload(self, key: str) -> Upload:
        """Begin an upload in parts."""

    def list_parts(self, upload: Upload) -> Iterable[ListedPart]:
        """Return the parts that the server has; NotFoundError when it does not know the upload."""

    def complete(self, upload: Upload, parts: Sequence[Part], whole: Whole, condition: Condition) -> bool:
        """Make the object visible; False when the condition fails."""

    def abort(self, upload: Upload) -> None:
        """Drop an upload and its parts."""


class Writer:
    """Stores contents under keys that are written once. Safe for several threads.

    A `condition` says that the server refuses to replace an object. Without one, nothing looks
    whether there is an object already, unless an earlier attempt may have made it.
    """

    def __init__(self, store: ObjectStore, sizes: Sizes) -> None:
        self._store = store
        self._sizes = sizes
        self._room = Room(sizes.memory)

    def write(self, order: Order, condition: Condition) -> None:
        """Store the content as `Mirror.write` says."""
        try:
            if order.content.size > self._sizes.single:
                self._write_parts(order, condition)
            else:
                self._write_single(order, condition)
        except BaseException as error:
            let_go(error)
            raise

    def abandon(self, key: str, journal: UploadJournal) -> None:
        """Drop the unfinished upload under the key, on the server and in the journal."""
        if unfinished := journal.unfinished(key):
            with contextlib.suppress(NotFoundError):
                self._store.abort(Upload(key, unfinished.id))
            journal.end(key)

    def _write_single(self, order: Order, condition: Condition) -> None:
        size = order.content.size
        self._room.take(size, lambda: order.advance(0))
        try:
            data = b"".join(order.content.blocks(max(size, 1)))
            if len(data) != size:
                raise changed(order.key)
            self._put(order, data, condition)
        finally:
            self._room.give(size)

    def _put(self, order: Order, data: bytes, condition: Condition) -> None:
        outgoing = Outgoing(order.advance)
        try:
            etag = self._store.put(order.key, data, condition, order.content.sha256, outgoing)
        except BaseException:
            outgoing.take_back()
            raise
        if etag is None:
            self._expect_same(order, order.content.sha256 or sha256_bytes(data))

    def _write_parts(self, order: Order, condition: Condition) -> None:
        unfinished = order.journal.unfinished(order.key)
        if (condition or unfinished) and self._is_written(order, order.content.sha256):
            self.abandon(order.key, order.journal)
            return
        begun = self._continued(order, unfinished) if unfinished else None
        if begun is None:
            begun = self._begun(order)
        self._complete(order, begun.upload, self._send(order, begun), condition)

    def _continued(self, order: Order, unfinished: UnfinishedUpload) -> Begun | None:
        """Return the earlier upload with the parts that both sides know alike, None when it is gone."""
        size, part_size = order.content.size, unfinished.part_size
        upload = Upload(order.key, unfinished.id)
        if part_size < 1 or part_size * MAX_PARTS < size:
            self.abandon(order.key, order.journal)
            return None
        try:
            listed = {part.number: part for part in self._store.list_parts(upload)}
        except NotFoundError:
            return None
        stored = {
            part.number: part
            for part in unfinished.parts
            if (found := listed.get(part.number))
            and found.etag == part.etag
            and found.size == min(part_size, size - (part.number - 1) * part_size)
        }
        return Begun(upload, part_size, stored, again=True)

    def _begun(self, order: Order) -> Begun:
        part_size = self._sizes.part_of(order.content.size)
        upload = self._store.start_upload(order.key)
        try:
            order.journal.begin(order.key, order.content.sha256, upload.id, part_size)
        except BaseException:
            with contextlib.suppress(LabsyncError):
                self._store.abort(upload)
            raise
        return Begun(upload, part_size)

    def _send(self, order: Order, begun: Begun) -> Sent:
        sending = Sending(self._store, order, begun, self._room)
        try:
            return sending.run()
        except BaseException as error:
            if sending.content_failed or isinstance(error, LostUploadError):
                with contextlib.suppress(LabsyncError):  # the first failure is the one to tell
                    self.abandon(order.key, order.journal)
            raise

    def _complete(self, order: Order, upload: Upload, sent: Sent, condition: Condition) -> None:
        key, journal = order.key, order.journal
        try:
            done = self._store.complete(upload, sent.parts, sent.whole, condition)
        except NotFoundError as error:
            # Completed by an attempt whose reply was lost, or removed by a lifecycle rule.
            written = self._is_written(order, sent.sha256)
            journal.end(key)
            if not written:
                raise LostUploadError(self._store.address(key)) from error
            return
        except (IntegrityError, RefusedError):  # these parts will never be taken
            with contextlib.suppress(LabsyncError):
                self.abandon(key, journal)
            raise
        if not done:
            self.abandon(key, journal)
            self._expect_same(order, sent.sha256)
            return
        size = self._store.size(key)
        journal.end(key)
        if size != sent.whole.size:
            raise IntegrityError(
                f"`{self._store.address(key)}` holds {size} bytes after {sent.whole.size} were sent", path=key
            )

    def _is_written(self, order: Order, sha256: str) -> bool:
        """Say whether the key holds these bytes already; OtherBytesError when it holds others."""
        size = self._store.size(order.key)
        if size is None:
            return False
        if size != order.content.size:
            raise other_bytes(order.key)
        self._expect_same(order, sha256 or self._own_digest(order))
        return True

    def _own_digest(self, order: Order) -> str:
        """Return the digest of the content, read to its end: then it has proved itself."""
        try:
            with contextlib.closing(order.content.blocks(BLOCK)) as blocks:
                sha256, size = sha256_stream(blocks)
            if size != order.content.size:
                raise changed(order.key)
        except (ChangedError, IntegrityError):
            with contextlib.suppress(LabsyncError):
                self.abandon(order.key, order.journal)
            raise
        return sha256

    def _expect_same(self, order: Order, sha256: str) -> None:
        with contextlib.closing(self._store.get(order.key)) as body:
            expect_same(body.blocks(), sha256, order.content.size, order.key)
