"""One bucket through boto3: typed requests, counted, with labsync's errors; knows nothing of mirrors."""

from __future__ import annotations

import base64
import hashlib
import threading
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict
from urllib.parse import urlsplit

from labsync.digest import BLOCK
from labsync.errors import InvalidError, RefusedError, UnavailableError
from labsync.mirrors.counter import Method, RequestCounter
from labsync.mirrors.s3_errors import error_code, s3_errors
from labsync.names import MAX_KEY, escape, path_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import boto3
    from botocore.awsrequest import AWSPreparedRequest
    from botocore.client import BaseClient
    from botocore.response import StreamingBody

    from labsync.manifest.model import MirrorSpec

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 30.0
ATTEMPTS = 2  # the engine retries, with one budget for the whole run
CONNECTIONS = 64
CONFLICTS = 5  # how often a conditional write is sent again while another one is being decided
_AWS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")

Condition: TypeAlias = 'tuple[Literal["IfMatch", "IfNoneMatch"], str] | None'
IF_ABSENT: Condition = ("IfNoneMatch", "*")


def if_match(etag: str) -> Condition:
    """Return the condition that the object is the one with this ETag."""
    return ("IfMatch", etag if etag.startswith("W/") else f'"{etag}"')


def _bare(etag: object) -> str:
    """Return an ETag without its quotes, which `rclone serve s3` leaves out of listings alone."""
    return str(etag or "").removeprefix('"').removesuffix('"') if str(etag)[:2] != "W/" else str(etag)


class _Item(TypedDict, total=False):
    Key: str
    ETag: str


class _Page(TypedDict, total=False):
    Contents: list[_Item]
    IsTruncated: bool
    NextContinuationToken: str


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload under way."""

    key: str
    id: str


@dataclass(frozen=True, slots=True)
class Part:
    """A stored part: its number, its ETag."""

    number: int
    etag: str


@dataclass(frozen=True, slots=True)
class Whole:
    """What an upload's parts make together: its size, its CRC-32."""

    size: int
    crc32: int


class Body:
    """An answer's bytes and how many; its ETag without quotes, and its Content-Range."""

    def __init__(self, etag: str, length: int, content_range: str, stream: StreamingBody, at: str) -> None:
        self.etag = etag
        self.length = length
        self.content_range = content_range
        self._stream = stream
        self._at = at

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes as they arrive; UnavailableError when the connection breaks or stalls."""
        while True:
            with s3_errors(self._at):
                try:
                    block = self._stream.read(BLOCK)
                except OSError as error:
                    raise UnavailableError(f"the connection to the server of `{self._at}` broke") from error
            if not block:
                return
            yield block

    def all(self, limit: int) -> bytes:
        """Return all bytes; InvalidError when there are more than `limit`."""
        parts: list[bytes] = []
        for block in self.blocks():
            parts.append(block)
            limit -= len(block)
            if limit < 0:
                raise InvalidError(f"`{self._at}` is larger than labsync's records can be")
        return b"".join(parts)

    def close(self) -> None:
        """Give the connection back."""
        self._stream.close()


class Bucket:
    """The part of a bucket below a prefix; keys are relative to it. Safe for several threads."""

    def __init__(self, spec: MirrorSpec) -> None:
        self._spec = spec
        self._bucket, _, prefix = spec.url.removeprefix("s3://").strip("/").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._url = f"s3://{self._bucket}/{self._prefix}"
        self._made: BaseClient | None = None
        self._mutex = threading.Lock()
        self.requests = RequestCounter()

    @property
    def is_aws(self) -> bool:
        """Say whether this is Amazon's own S3: then checksums and conditional writes are known to work."""
        return _is_aws(self._client)

    def address(self, key: str = "") -> str:
        """Return the address of a key, for people."""
        return escape(f"{self._url}{key}")

    def check_key(self, key: str) -> None:
        """Raise RefusedError (12) for a key that S3 or another mirror could not hold."""
        full = self._prefix + key
        problem = path_problem(key)
        if problem is None and len(full.encode()) > MAX_KEY:
            problem = f"is longer than {MAX_KEY} bytes with the mirror's prefix"
        if problem:
            raise RefusedError(f"the key `{escape(full)}` {problem}", path=escape(key))

    def listing(self, folder: str, page: int) -> Iterator[tuple[str, str]]:
        """Yield the key and the ETag of every object below `folder`, or raise: never fewer of them."""
        token, seen = "", {""}
        while True:
            answer = self._page(folder, page, token)
            for item in answer.get("Contents", []):
                key, etag = item.get("Key", ""), _bare(item.get("ETag"))
                if not key.startswith(self._prefix + folder) or not etag:
                    raise self._broken_listing(folder)
                yield key.removeprefix(self._prefix), etag
            if not answer.get("IsTruncated", False):
                return
            token = answer.get("NextContinuationToken", "")
            if token in seen:
                raise self._broken_listing(folder)
            seen.add(token)

    def _page(self, folder: str, page: int, token: str) -> _Page:
        more = {"ContinuationToken": token} if token else {}
        with s3_errors(self.address(folder)):
            answer: _Page = self._client.list_objects_v2(
                Bucket=self._bucket, Prefix=self._prefix + folder, MaxKeys=page, **more
            )
        return answer

    def _broken_listing(self, folder: str) -> UnavailableError:
        return UnavailableError(
            f"the listing of `{self.address(folder)}` is not consistent",
            safe="it was not taken for an answer",
        )

    def get(self, key: str, span: tuple[int, int] | None = None) -> Body:
        """Ask for an object, or for the bytes from the first to the last of `span`."""
        more = {"Range": f"bytes={span[0]}-{span[1]}"} if span else {}
        with s3_errors(self.address(key)):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key, **more)
        return Body(
            etag=_bare(answer.get("ETag")),
            length=int(answer.get("ContentLength", -1)),
            content_range=str(answer.get("ContentRange", "")),
            stream=answer["Body"],
            at=self.address(key),
        )

    def size(self, key: str) -> int | None:
        """Return an object's size by a HEAD request, None when it does not exist."""
        from botocore.exceptions import ClientError

        with s3_errors(self.address(key)):
            try:
                return int(
                    self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)["ContentLength"]
                )
            except ClientError as error:
                if error_code(error) in {"404", "NoSuchKey"}:
                    return None
                raise

    def put(self, key: str, data: bytes, condition: Condition = None) -> str | None:
        """Store an object whose bytes the server checks; its ETag, None when the condition fails."""
        if self.is_aws:
            checks = {"ChecksumSHA256": _base64(hashlib.sha256(data).digest())}
        else:
            checks = {"ContentMD5": _md5(data)}

        def send(headers: Mapping[str, str]) -> str:
            answer = self._client.put_object(
                Bucket=self._bucket, Key=self._prefix + key, Body=data, **checks, **headers
            )
            return _bare(answer.get("ETag"))

        with s3_errors(self.address(key)):
            return _conditionally(condition, send)

    def start_upload(self, key: str) -> Upload:
        """Begin a multipart upload; nothing is visible before `complete`."""
        more = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"} if self.is_aws else {}
        with s3_errors(self.address(key)):
            answer = self._client.create_multipart_upload(Bucket=self._bucket, Key=self._prefix + key, **more)
        return Upload(key, str(answer["UploadId"]))

    def put_part(self, upload: Upload, number: int, data: bytes) -> Part:
        """Store one part whose bytes the server checks."""
        checks = {"ChecksumCRC32": _crc32(zlib.crc32(data))} if self.is_aws else {"ContentMD5": _md5(data)}
        with s3_errors(self.address(upload.key)):
            answer = self._client.upload_part(**self._of(upload), PartNumber=number, Body=data, **checks)
        return Part(number, str(answer["ETag"]))

    def complete(self, upload: Upload, parts: Sequence[Part], whole: Whole, condition: Condition) -> bool:
        """Make the object visible; False when the condition fails.

        Amazon compares the CRC-32 of the whole object and its size with ours. (Botocore computes the
        CRC-64/NVME only with a compiled extra package; both are checksums of the full object:
        https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html)
        """
        checks: dict[str, str | int] = {}
        if self.is_aws:
            checks = {
                "ChecksumCRC32": _crc32(whole.crc32),
                "ChecksumType": "FULL_OBJECT",
                "MpuObjectSize": whole.size,
            }
        listed = {"Parts": [{"PartNumber": part.number, "ETag": part.etag} for part in parts]}

        def send(headers: Mapping[str, str]) -> str:
            answer = self._client.complete_multipart_upload(
                **self._of(upload), MultipartUpload=listed, **checks, **headers
            )
            return str(answer.get("ETag", ""))

        with s3_errors(self.address(upload.key)):
            return _conditionally(condition, send) is not None

    def abort(self, upload: Upload) -> None:
        """Drop a multipart upload and its parts."""
        with s3_errors(self.address(upload.key)):
            self._client.abort_multipart_upload(**self._of(upload))

    def _of(self, upload: Upload) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + upload.key, "UploadId": upload.id}

    @property
    def _client(self) -> BaseClient:
        with self._mutex:
            if self._made is None:
                self._made = self._connect()
            return self._made

    def _connect(self) -> BaseClient:
        import boto3

        with s3_errors(self.address()):
            try:
                session = boto3.Session(
                    profile_name=self._spec.profile or None, region_name=self._spec.region or None
                )
                client = self._make_client(session, "auto")
                if not _is_aws(client):
                    client = self._make_client(session, "path")
            except ValueError as error:  # botocore's answer to an endpoint that is no URL
                raise InvalidError(
                    f"the endpoint of `{self.address()}` is no address", hint="write `endpoint: https://host`"
                ) from error
        client.meta.events.register("before-send.s3", self._count)
        return client

    def _make_client(self, session: boto3.Session, addressing: str) -> BaseClient:
        from botocore.config import Config

        config = Config(
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=CONNECTIONS,
            tcp_keepalive=True,
            s3={"addressing_style": addressing},
            # We send our own checksums, of the bytes that were hashed. Botocore's default frames the body
            # (aws-chunked), and some servers store the frames: https://github.com/boto/boto3/issues/4435
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        return session.client("s3", endpoint_url=self._spec.endpoint or None, config=config)

    def _count(self, request: AWSPreparedRequest, event_name: str, **_: object) -> None:
        """Count each request that is sent, botocore's own retries among them."""
        method: Method = "LIST" if event_name.endswith(".ListObjectsV2") else request.method
        self.requests.add(method)


def _is_aws(client: BaseClient) -> bool:
    return (urlsplit(str(client.meta.endpoint_url)).hostname or "").endswith(_AWS)


def _conditionally(condition: Condition, send: Callable[[Mapping[str, str]], str]) -> str | None:
    """Send a write under a condition; None when it fails. A race that S3 wants repeated is repeated."""
    from botocore.exceptions import ClientError

    if condition is None:
        return send({})
    name, value = condition
    failed = {"PreconditionFailed", "412", *(("NoSuchKey", "404") if name == "IfMatch" else ())}
    for left in reversed(range(CONFLICTS)):
        try:
            return send({name: value})
        except ClientError as error:
            if error_code(error) in failed:
                return None
            if error_code(error) != "ConditionalRequestConflict" or not left:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _md5(data: bytes) -> str:
    return _base64(hashlib.md5(data, usedforsecurity=False).digest())


def _crc32(value: int) -> str:
    return _base64(value.to_bytes(4, "big"))
