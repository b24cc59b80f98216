"""A mirror in an S3 bucket: Amazon's, or any server with conditional writes."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from labsync.digest import sha256_bytes
from labsync.errors import (
    IntegrityError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from labsync.mirrors.base import HEADS, Head, HeadMovedError, HeadName, Index
from labsync.mirrors.ranges import Span, counted
from labsync.mirrors.records import (
    MAX_HEAD,
    MAX_STORED,
    head_bytes,
    head_key,
    index_bytes,
    index_key,
    new_head,
    parse_head,
    parse_index,
)
from labsync.mirrors.s3_bucket import IF_ABSENT, Bucket, if_match
from labsync.mirrors.s3_errors import NotImplementedByServerError
from labsync.mirrors.s3_parts import Order
from labsync.mirrors.s3_upload import Sizes, Writer
from labsync.names import escape
from labsync.places import NoRangesError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labsync.manifest.model import MirrorSpec
    from labsync.mirrors.s3_bucket import Body
    from labsync.places import Advance, Blocks, Content, Ref, UploadJournal
    from labsync.report import MirrorRequests
    from labsync.snapshot import FileEntry

_PROBE = ".labsync/probe"
_PROBE_BYTES = b"labsync writes this to learn whether the server has conditional writes\n"
_NO_ETAG = "0" * 32


class S3Mirror:
    """Objects below `s3://bucket/prefix`; a head's mark is its ETag. Safe for several threads and boxes.

    `conditional` says whether the server has conditional writes; while it is None, the first write
    finds out. Amazon's are known; any other server is probed.
    """

    def __init__(
        self, spec: MirrorSpec, *, conditional: bool | None = None, sizes: Sizes | None = None
    ) -> None:
        self.conditional = conditional
        self._spec = spec
        self._sizes = sizes or Sizes()
        self._bucket = Bucket(spec)
        self._writer = Writer(self._bucket, self._sizes)
        self._probing = threading.Lock()

    @property
    def url(self) -> str:
        """The mirror's own address."""
        return self._spec.url

    @property
    def bucket(self) -> Bucket:
        """The bucket below the mirror, for whoever examines it."""
        return self._bucket

    def heads(self) -> Mapping[HeadName, str]:
        """Return every head's name and ETag."""
        found: dict[HeadName, str] = {}
        for key, etag, _ in self._bucket.listing(HEADS, self._sizes.page):
            text = key.removeprefix(HEADS)
            name = HeadName.parse(text.removesuffix(".json")) if text.endswith(".json") else None
            if name:
                found[name] = etag
        return found

    def head(self, name: HeadName) -> Head:
        """Return one head; its mark is the ETag that came with its bytes."""
        with contextlib.closing(self._bucket.get(head_key(name))) as body:
            if not body.etag:
                raise UnavailableError(f"`{self._bucket.address(head_key(name))}` came without an ETag")
            return parse_head(body.all(MAX_HEAD), name, body.etag)

    def index(self, index_id: str) -> Index:
        """Return an index, its bytes checked against its id."""
        with contextlib.closing(self._bucket.get(index_key(index_id))) as body:
            return parse_index(body.all(MAX_STORED), index_id)

    def read(self, ref: Ref, entry: FileEntry, start: int = 0, stop: int | None = None) -> Blocks:
        """Yield the bytes of `entry` from `start` up to `stop`, by one GET."""
        span = Span.of(ref, entry, start, stop)
        if not span.size and not span.whole:  # a range has at least one byte
            return
        with contextlib.closing(self._bucket.get(ref.location, span.asked)) as body:
            self._check_answer(body, span, ref, entry)
            yield from counted(body.blocks(), span.size, entry)

    def _check_answer(self, body: Body, span: Span, ref: Ref, entry: FileEntry) -> None:
        """Take exactly what was asked for; `rclone serve s3` labels even a right range with status 200."""
        if not span.whole and not body.content_range:
            raise NoRangesError(
                f"the server of `{self.url}` ignores ranges: `{escape(entry.path)}` cannot be read in parts",
                hint="use a server that answers `Range` requests",
                path=entry.path,
            )
        total = entry.size if ref.offset is None else -1
        right = span.whole or span.is_range(body.content_range, total)
        if not right or (body.length != span.size and body.length >= 0 <= span.size):
            raise IntegrityError(
                f"`{self._bucket.address(ref.location)}` did not give the bytes asked for of "
                f"`{escape(entry.path)}`, which has {entry.size}",
                path=entry.path,
            )

    def write(self, key: str, content: Content, advance: Advance, journal: UploadJournal) -> None:
        """Store the content under a key that is written once."""
        self._bucket.check_key(key)
        condition = IF_ABSENT if self._may_write() else None
        self._writer.write(Order(key, content, advance, journal), condition)

    def abandon(self, key: str, journal: UploadJournal) -> None:
        """Drop the unfinished upload under the key."""
        self._writer.abandon(key, journal)

    def stored(self, folder: str) -> Mapping[str, int]:
        """Return the size of every object below the folder."""
        return {found.key: found.size for found in self._bucket.listing(folder, self._sizes.page)}

    def publish(self, name: HeadName, index: Index, expected: Head | None) -> Head:
        """Write the index, then move the head by compare-and-swap."""
        conditional = self._may_write()
        data = index_bytes(index)
        head = new_head(name, index, sha256_bytes(data), expected)
        if not conditional:
            self._expect_head(name, expected)
        condition = IF_ABSENT if conditional else None
        if self._bucket.put(index_key(head.index), data, condition, head.index) is None:
            self.index(head.index)
        return self._move(head, expected, conditional=conditional)

    def _move(self, head: Head, expected: Head | None, *, conditional: bool) -> Head:
        key, condition = head_key(head.name), None
        if conditional:
            condition = if_match(expected.mark) if expected else IF_ABSENT
        try:
            etag = self._bucket.put(key, head_bytes(head), condition)
        except UnavailableError:  # the reply may be lost, and the head moved all the same
            if current := self._current_if_mine(head):
                return current
            raise
        if etag:
            return replace(head, mark=etag)
        if current := self._current_if_mine(head):
            return current
        raise _moved(head.name)

    def _current_if_mine(self, head: Head) -> Head | None:
        """Return the head as it is now if it carries our nonce."""
        with contextlib.suppress(NotFoundError, UnavailableError):
            current = self.head(head.name)
            return current if current.nonce == head.nonce else None
        return None

    def _expect_head(self, name: HeadName, expected: Head | None) -> None:
        """Compare without the swap: all that a single writer needs."""
        try:
            mark = self.head(name).mark
        except NotFoundError:
            mark = ""
        if mark != (expected.mark if expected else ""):
            raise _moved(name)

    def _may_write(self) -> bool:
        """Say whether writes are conditional; RefusedError where they cannot be and must be."""
        with self._probing:
            if self.conditional is None:
                self.conditional = self._bucket.is_aws or self.probe()
            conditional = self.conditional
        if not conditional and not self._spec.single_writer:
            raise RefusedError(
                f"the server of `{self.url}` has no conditional writes: two boxes could overwrite each other",
                hint=f"if only one box writes: `mirror: {{url: {self.url}, single_writer: true}}`",
            )
        return conditional

    def probe(self) -> bool:
        """Try conditional writes on a scratch key, which stays; IntegrityError when bytes come back wrong."""
        put = self._bucket.put
        try:
            put(_PROBE, _PROBE_BYTES, IF_ABSENT)
            works = put(_PROBE, _PROBE_BYTES, IF_ABSENT) is None
            works = put(_PROBE, _PROBE_BYTES, if_match(_NO_ETAG)) is None and works
        except NotImplementedByServerError:
            works = False
            put(_PROBE, _PROBE_BYTES)
        with contextlib.closing(self._bucket.get(_PROBE)) as body:
            if body.all(MAX_HEAD) != _PROBE_BYTES:
                raise IntegrityError(
                    f"the server of `{self.url}` does not give back the bytes it was sent",
                    safe="nothing but a scratch key was written",
                )
        self.conditional = works
        return works

    def requests(self) -> MirrorRequests:
        """Return how many requests were sent so far, retries included."""
        return self._bucket.requests.value()


def _moved(name: HeadName) -> HeadMovedError:
    return HeadMovedError(
        f"the head of `{name}` moved meanwhile", safe="nothing was moved", hint="run the same command again"
    )
