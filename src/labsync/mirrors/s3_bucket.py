"""One bucket: typed requests, counted, with labsync's errors; knows nothing of mirrors."""

from __future__ import annotations

import base64
import hashlib
import itertools
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from labsync.errors import InvalidError, RefusedError, UnavailableError
from labsync.mirrors.counter import RequestCounter
from labsync.mirrors.s3_answers import (
    Answer,
    MalformedError,
    Part,
    bare_etag,
    check_completed,
    complete_document,
    is_foreign,
    quoted_etag,
    read_page,
    read_parts,
    read_upload_id,
)
from labsync.mirrors.s3_client import Client, Refusal, Reply, Request
from labsync.mirrors.s3_errors import answer_error, listing_error, no_s3
from labsync.mirrors.s3_sign import UNSIGNED, encode_query, payload_hash
from labsync.names import MAX_KEY, escape, path_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from labsync.manifest.model import MirrorSpec
    from labsync.mirrors.s3_answers import ListedObject
    from labsync.mirrors.s3_sign import Headers
    from labsync.places import Buffer

    Sent: TypeAlias = Callable[[int], None] | None

__all__ = ["IF_ABSENT", "Body", "Bucket", "Condition", "Part", "Upload", "Whole", "if_match"]

CONFLICTS = 5  # how often a conditional write is sent again while another one is being decided
COMPLETION = 300.0  # seconds: a server may put the parts together before it answers

Condition: TypeAlias = 'tuple[Literal["if-match", "if-none-match"], str] | None'
IF_ABSENT: Condition = ("if-none-match", "*")


def if_match(etag: str) -> Condition:
    """Return the condition that the object is the one with this ETag."""
    if not (etag.isascii() and etag.isprintable()):
        raise InvalidError("a change mark has a character that no ETag has")
    return ("if-match", quoted_etag(etag))


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload under way."""

    key: str
    id: str


@dataclass(frozen=True, slots=True)
class Whole:
    """What an upload's parts make together: its size, its CRC-32."""

    size: int
    crc32: int


class Body:
    """An answer's bytes and how many (-1: unknown); its ETag without quotes, and its Content-Range."""

    def __init__(self, reply: Reply) -> None:
        self.etag = bare_etag(reply.headers.get("etag", ""))
        self.length = reply.length
        self.content_range = reply.headers.get("content-range", "")
        self._reply = reply

    def blocks(self) -> Generator[memoryview, None, None]:
        """Yield the bytes as they come in, at most 1 MiB at once; a block is valid until the next one.

        Raises UnavailableError when the connection breaks or stalls, or ends before `length` bytes.
        """
        return self._reply.blocks()

    def all(self, limit: int) -> bytes:
        """Return all bytes; InvalidError when there are more than `limit`."""
        return self._reply.all(limit)

    def close(self) -> None:
        """Give the connection back."""
        self._reply.close()


class Bucket:
    """The part of a bucket below a prefix; keys are relative to it. Safe for several threads.

    A write may reach the server twice, when the reply to the first was lost: a conditional one then
    fails although it was carried out, and an upload may be gone because it was completed.
    """

    def __init__(self, spec: MirrorSpec) -> None:
        bucket, _, prefix = spec.url.removeprefix("s3://").strip("/").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._url = f"s3://{bucket}/{self._prefix}"
        self.requests = RequestCounter()
        self._client = Client(spec, bucket, self.address(), self.requests)

    @property
    def is_aws(self) -> bool:
        """Say whether this is Amazon's own S3: then checksums and conditional writes are known to work."""
        return self._client.place.is_aws

    @property
    def region(self) -> str:
        """Return the region that requests go to: the bucket's own, once the server has told it."""
        return self._client.place.region

    def clock_offset(self) -> float | None:
        """Return how many seconds the server's clock is ahead of this machine's; None where it is not told.

        By the date of one listing, so the time it was under way is in it.
        """
        try:
            reply = self._client.send(self._page("", 1, ""), self.address())
            self._drain(reply)
            headers = reply.headers
        except Refusal as refusal:  # which has a date, too
            headers = refusal.answer.headers
        import email.utils

        parsed = email.utils.parsedate_tz(headers.get("date", ""))
        return email.utils.mktime_tz(parsed) - time.time() if parsed else None

    def address(self, key: str = "") -> str:
        """Return the address of a key, for people."""
        text = f"{self._url}{key}"
        return text if text.isprintable() else escape(text)

    def check_key(self, key: str) -> None:
        """Raise RefusedError (12) for a key that S3 or another mirror could not hold."""
        full = self._prefix + key
        problem = path_problem(key)
        if problem is None and len(full.encode()) > MAX_KEY:
            problem = f"is longer than {MAX_KEY} bytes with the mirror's prefix"
        if problem:
            raise RefusedError(f"the key `{escape(full)}` {problem}", path=escape(key))

    def listing(self, folder: str, page: int) -> Iterator[ListedObject]:
        """Yield every object below `folder`, or raise: never fewer of them."""
        token, seen = "", {""}
        while True:
            answer = self._whole(self._page(folder, page, token), folder)
            try:
                found = read_page(answer.body)
            except MalformedError as error:
                if is_foreign(answer.body):
                    raise no_s3(self.address(folder)) from error
                raise self._broken_listing(folder) from error
            for item in found.items:
                if not item.key.startswith(self._prefix + folder) or not item.etag:
                    raise self._broken_listing(folder)
                yield item._replace(key=item.key.removeprefix(self._prefix))
            token = found.more
            if not token:
                return
            if token in seen:
                raise self._broken_listing(folder)
            seen.add(token)

    def _page(self, folder: str, page: int, token: str) -> Request:
        asked = [
            ("list-type", "2"),
            ("prefix", self._prefix + folder),
            ("max-keys", str(page)),
            ("encoding-type", "url"),  # or XML could not carry every key
        ]
        if token:
            asked.append(("continuation-token", token))
        return Request("LIST", query=encode_query(asked))

    def _broken_listing(self, folder: str) -> UnavailableError:
        return UnavailableError(
            f"the listing of `{self.address(folder)}` is not consistent",
            safe="it was not taken for an answer",
        )

    def get(self, key: str, span: tuple[int, int] | None = None) -> Body:
        """Ask for an object, or for the bytes from the first to the last of `span`."""
        more: Headers = (("range", f"bytes={span[0]}-{span[1]}"),) if span else ()
        return Body(self._ask(Request("GET", self._prefix + key, headers=more), key))

    def size(self, key: str) -> int | None:
        """Return an object's size by a HEAD request, None when it does not exist."""
        try:
            reply = self._client.send(Request("HEAD", self._prefix + key), self.address(key))
        except Refusal as refusal:
            if refusal.answer.problem.code in {"404", "NoSuchKey"}:
                return None
            raise answer_error(refusal.answer, self.address(key)) from refusal
        self._drain(reply)
        length = reply.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            raise UnavailableError(f"the server of `{self.address(key)}` does not tell its size")
        return int(length)

    def put(
        self, key: str, data: Buffer, condition: Condition = None, sha256: str = "", sent: Sent = None
    ) -> str | None:
        """Store an object whose bytes the server checks; its ETag, None when the condition fails.

        `sha256` is the digest of `data` in hex, where the caller has it. `sent` hears of the bytes as
        they go out, and of -n when n of them do not count because the request failed or is repeated.
        """
        payload = sha256 or payload_hash(data)
        if self.is_aws:
            checks: Headers = (("x-amz-checksum-sha256", _base64(bytes.fromhex(payload))),)
        else:
            checks = (("content-md5", _md5(data)),)

        def send(headers: Headers) -> str:
            request = Request(
                "PUT", self._prefix + key, headers=checks + headers, body=data, payload=payload, sent=sent
            )
            reply = self._client.send(request, self.address(key))
            self._drain(reply)
            return bare_etag(reply.headers.get("etag", ""))

        return self._conditionally(condition, key, send)

    def start_upload(self, key: str) -> Upload:
        """Begin a multipart upload; nothing is visible before `complete`."""
        more: Headers = ()
        if self.is_aws:
            more = (("x-amz-checksum-algorithm", "CRC32"), ("x-amz-checksum-type", "FULL_OBJECT"))
        request = Request("POST", self._prefix + key, query=encode_query([("uploads", "")]), headers=more)
        answer = self._whole(request, key)
        try:
            return Upload(key, read_upload_id(answer.body))
        except MalformedError as error:
            raise self._unreadable(key) from error

    def put_part(self, upload: Upload, number: int, data: Buffer, sent: Sent = None) -> Part:
        """Store one part whose bytes the server checks; `sent` as in `put`."""
        if self.is_aws:
            checks: Headers = (("x-amz-checksum-crc32", _crc32(zlib.crc32(data))),)
        else:
            checks = (("content-md5", _md5(data)),)
        request = Request(
            "PUT",
            self._prefix + upload.key,
            query=encode_query([("partNumber", str(number)), ("uploadId", upload.id)]),
            headers=checks,
            body=data,
            payload=UNSIGNED,  # `checks` does for the part what signing its digest would, and is cheaper
            sent=sent,
        )
        reply = self._ask(request, upload.key)
        self._drain(reply)
        etag = bare_etag(reply.headers.get("etag", ""))
        if not etag:
            raise self._unreadable(upload.key)
        return Part(number, etag, len(data))

    def list_parts(self, upload: Upload) -> list[Part]:
        """Return all parts that the server has of an upload, in their order.

        NotFoundError when there is no such upload (any more); a listing that is cut raises.
        """
        parts: list[Part] = []
        marker = 0
        while True:
            asked = [("uploadId", upload.id), ("part-number-marker", str(marker))]
            request = Request(
                "GET", self._prefix + upload.key, query=encode_query(asked if marker else asked[:1])
            )
            answer = self._whole(request, upload.key)
            try:
                found = read_parts(answer.body)
            except MalformedError as error:
                raise self._broken_listing(upload.key) from error
            numbers = [marker, *(part.number for part in found.parts)]
            if any(after <= before for before, after in itertools.pairwise(numbers)):
                raise self._broken_listing(upload.key)
            parts += found.parts
            if not found.more:
                return parts
            if found.more != numbers[-1] or len(numbers) == 1:
                raise self._broken_listing(upload.key)
            marker = found.more

    def complete(self, upload: Upload, parts: Sequence[Part], whole: Whole, condition: Condition) -> bool:
        """Make the object visible; False when the condition fails.

        Amazon compares the CRC-32 of the whole object and its size with ours
        (https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html).
        """
        checks: Headers = ()
        if self.is_aws:
            checks = (
                ("x-amz-checksum-crc32", _crc32(whole.crc32)),
                ("x-amz-checksum-type", "FULL_OBJECT"),
                ("x-amz-mp-object-size", str(whole.size)),
            )
        body = complete_document(parts)

        def send(headers: Headers) -> str:
            request = Request(
                "POST",
                self._prefix + upload.key,
                query=encode_query([("uploadId", upload.id)]),
                headers=(*checks, ("content-type", "application/xml"), *headers),
                body=body,
                payload=payload_hash(body),
                silence=COMPLETION,
            )
            reply = self._client.send(request, self.address(upload.key))
            answer = Answer(reply.status, reply.headers, reply.all())
            if answer.has_problem:
                raise Refusal(answer)
            try:
                check_completed(answer.body)
            except MalformedError as error:
                raise self._unreadable(upload.key) from error
            return "completed"

        return self._conditionally(condition, upload.key, send) is not None

    def abort(self, upload: Upload) -> None:
        """Drop a multipart upload and its parts; NotFoundError when there is none."""
        query = encode_query([("uploadId", upload.id)])
        self._drain(self._ask(Request("DELETE", self._prefix + upload.key, query=query), upload.key))

    def _ask(self, request: Request, key: str) -> Reply:
        at = self.address(key)
        try:
            return self._client.send(request, at)
        except Refusal as refusal:
            meaning = listing_error if request.method == "LIST" else answer_error
            raise meaning(refusal.answer, at) from refusal

    def _whole(self, request: Request, key: str) -> Answer:
        reply = self._ask(request, key)
        return Answer(reply.status, reply.headers, reply.all())

    def _drain(self, reply: Reply) -> None:
        """Read an answer that says nothing more, so that its connection can be used again."""
        reply.all()

    def _unreadable(self, key: str) -> UnavailableError:
        return UnavailableError(f"the answer of the server of `{self.address(key)}` cannot be read")

    def _conditionally(self, condition: Condition, key: str, send: Callable[[Headers], str]) -> str | None:
        """Send a write under a condition; None when it fails. A race that S3 wants repeated is repeated."""
        failed: set[str] = set()
        if condition:
            failed = {"PreconditionFailed", "412"}
            failed |= {"NoSuchKey", "404"} if condition[0] == "if-match" else set()
        for left in reversed(range(CONFLICTS)):
            try:
                return send((condition,) if condition else ())
            except Refusal as refusal:
                code = refusal.answer.problem.code
                if code in failed:
                    return None
                if not condition or code != "ConditionalRequestConflict" or not left:
                    raise answer_error(refusal.answer, self.address(key)) from refusal
        raise AssertionError("unreachable: the last attempt returns or raises")


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _md5(data: Buffer) -> str:
    return _base64(hashlib.md5(data, usedforsecurity=False).digest())


def _crc32(value: int) -> str:
    return _base64(value.to_bytes(4, "big"))
