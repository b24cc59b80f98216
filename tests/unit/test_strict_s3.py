"""The strict server of the tests is strict: what it is there to refuse, it refuses."""

from __future__ import annotations

import base64
import hashlib
import http.client
import zlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from labsync.mirrors.s3_sign import Keys, Signer, payload_hash
from tests.fakes.strict_s3 import Deny, Fault, Limits, Manners, StrictServer, strict_server
from tests.fakes.strict_s3.checks import crc64nvme

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DATA = b"some bytes"
SMALL = Limits(least_part=4, most_parts=3, most_put=64)


@pytest.fixture(scope="module")
def server() -> Iterator[StrictServer]:
    with strict_server(SMALL) as server:
        server.make_bucket("lab")
        yield server


def ask(
    server: StrictServer,
    method: str,
    target: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    payload: str = "",
    secret: str = "testing-secret",
    token: str = "",
    now: float | None = None,
) -> tuple[int, bytes, Mapping[str, str]]:
    """Ask as a client does that signs whatever it is told to."""
    path, _, query = target.partition("?")
    host = urlsplit(server.url).netloc
    clock = {} if now is None else {"now": lambda: now}
    signer = Signer(Keys("testing", secret, token), "us-east-1", host, **clock)
    extra = tuple(sorted((headers or {}).items()))
    lines = signer.headers(method, path, query, extra, payload or payload_hash(body))
    signed = dict(line.split(": ", 1) for line in lines.rstrip("\r\n").split("\r\n"))
    connection = http.client.HTTPConnection(host)
    connection.request(method, target, body, signed)
    answer = connection.getresponse()
    found = answer.status, answer.read(), dict(answer.getheaders())
    connection.close()
    return found


def b64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def test_right_digests_of_every_kind_are_taken(server: StrictServer) -> None:
    right = {
        "content-md5": b64(hashlib.md5(DATA).digest()),
        "x-amz-checksum-sha256": b64(hashlib.sha256(DATA).digest()),
        "x-amz-checksum-crc32": b64(zlib.crc32(DATA).to_bytes(4, "big")),
        "x-amz-checksum-crc64nvme": b64(crc64nvme(DATA)),
    }
    assert ask(server, "PUT", "/lab/right", DATA, right)[0] == 200
    assert ask(server, "GET", "/lab/right")[1] == DATA


def test_the_crc_of_the_catalogue() -> None:
    assert crc64nvme(b"123456789").hex() == "ae8b14860a799888"


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("content-md5", 16),
        ("x-amz-checksum-sha256", 32),
        ("x-amz-checksum-crc32", 4),
        ("x-amz-checksum-crc64nvme", 8),
    ],
)
def test_a_wrong_digest_is_refused_and_nothing_is_stored(server: StrictServer, name: str, size: int) -> None:
    status, body, _ = ask(server, "PUT", "/lab/wrong", DATA, {name: b64(b"\1" * size)})
    assert (status, b"BadDigest" in body) == (400, True)
    assert "wrong" not in server.keys("lab")


def test_a_wrong_payload_hash_is_refused(server: StrictServer) -> None:
    status, body, _ = ask(server, "PUT", "/lab/wrong", DATA, payload="0" * 64)
    assert (status, b"XAmzContentSHA256Mismatch" in body) == (400, True)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"secret": "another"}, b"SignatureDoesNotMatch"),
        ({"now": 1_000_000_000.0}, b"RequestTimeTooSkewed"),
        ({"token": "over"}, b"ExpiredToken"),
    ],
)
def test_who_may_not_is_refused(server: StrictServer, asked: dict[str, str], code: bytes) -> None:
    server.service.expired.add("over")
    status, body, headers = ask(server, "GET", "/lab/x", **asked)  # type: ignore[arg-type]
    assert status in {400, 403}
    assert code in body
    assert headers["Date"].endswith("GMT")


def test_a_right_that_is_denied_is_no_absence(server: StrictServer) -> None:
    server.service.denied = Deny(frozenset({"s3:ListBucket"}))
    try:
        assert ask(server, "GET", "/lab?list-type=2")[0] == 403
        assert ask(server, "GET", "/lab/absent")[0] == 403
    finally:
        server.service.denied = Deny()
    assert ask(server, "GET", "/lab/absent")[0] == 404


def test_conditions_are_kept(server: StrictServer) -> None:
    absent = {"if-none-match": "*"}
    status, _, headers = ask(server, "PUT", "/lab/once", DATA, absent)
    assert status == 200
    assert ask(server, "PUT", "/lab/once", b"other", absent)[0] == 412
    assert ask(server, "PUT", "/lab/once", b"other", {"if-match": '"0"'})[0] == 412
    assert ask(server, "PUT", "/lab/none", b"other", {"if-match": '"0"'})[0] == 404
    assert ask(server, "GET", "/lab/once")[1] == DATA
    assert ask(server, "PUT", "/lab/once", b"other", {"if-match": headers["ETag"]})[0] == 200


def test_listings_have_two_keys_a_page(server: StrictServer) -> None:
    for name in ("p/a", "p/b", "p/c"):
        ask(server, "PUT", f"/lab/{name}", DATA)
    first = ask(server, "GET", "/lab?list-type=2&max-keys=1000&prefix=p%2F")[1]
    assert first.count(b"<Contents>") == 2
    assert b"<IsTruncated>true" in first
    again = ask(server, "GET", "/lab?continuation-token=p%2Fb&list-type=2&prefix=p%2F")[1]
    assert (again.count(b"<Contents>"), b"p/c" in again) == (1, True)


def _upload(server: StrictServer, *parts: bytes) -> tuple[str, str]:
    begun = ask(server, "POST", "/lab/big?uploads=")[1].decode()
    upload_id = begun.partition("<UploadId>")[2].partition("<")[0]
    listed = ""
    for number, data in enumerate(parts, 1):
        status, body, headers = ask(server, "PUT", f"/lab/big?partNumber={number}&uploadId={upload_id}", data)
        if status != 200:
            return upload_id, body.decode()
        etag = headers["ETag"].replace('"', "&quot;")
        listed += f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
    return upload_id, f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>"


@pytest.mark.parametrize(
    ("parts", "headers", "code"),
    [
        ((b"abc", b"d"), {}, "EntityTooSmall"),
        ((b"abcd", b"e"), {"x-amz-mp-object-size": "4"}, "InvalidRequest"),
        ((b"abcd", b"e"), {"x-amz-checksum-crc32": "AAAAAA=="}, "BadDigest"),
    ],
)
def test_an_upload_that_is_not_right_is_not_completed(
    server: StrictServer, parts: tuple[bytes, ...], headers: dict[str, str], code: str
) -> None:
    upload_id, body = _upload(server, *parts)
    answer = ask(server, "POST", f"/lab/big?uploadId={upload_id}", body.encode(), headers)
    assert (answer[0], code.encode() in answer[1]) == (400, True)
    assert "big" not in server.keys("lab")


def test_there_are_no_more_parts_and_bytes_than_the_limits_say(server: StrictServer) -> None:
    assert "InvalidArgument" in _upload(server, *[b"abcd"] * 4)[1]
    assert b"EntityTooLarge" in ask(server, "PUT", "/lab/huge", b"x" * 65)[1]


@pytest.mark.parametrize(
    ("fault", "status", "is_there"),
    [
        (Fault("PUT", code="SlowDown", status=503), 503, False),
        (Fault("PUT", late_error=True), 200, True),
        (Fault("PUT", flip_up=True), 400, False),
    ],
)
def test_faults_do_what_they_say(server: StrictServer, fault: Fault, status: int, *, is_there: bool) -> None:
    server.service.buckets["lab"].objects.pop("faulty", None)
    server.service.faults = [fault]
    assert ask(server, "PUT", "/lab/faulty", DATA)[0] == status
    assert ("faulty" in server.keys("lab")) == is_there
    assert fault.times == 0
    assert ask(server, "PUT", "/lab/faulty", DATA)[0] == 200


def test_a_lost_reply_is_lost_after_the_deed(server: StrictServer) -> None:
    server.service.faults = [Fault("PUT", lose_reply=True)]
    with pytest.raises(http.client.RemoteDisconnected):
        ask(server, "PUT", "/lab/done", DATA)
    assert ask(server, "GET", "/lab/done")[1] == DATA


FRAMES = b"a;chunk-signature=0\r\nsome bytes\r\n0\r\nx-amz-checksum-crc32:%s\r\n\r\n"


@pytest.mark.parametrize("chunked", [True, False])
def test_a_store_that_does_not_know_frames_keeps_them(*, chunked: bool) -> None:
    body = FRAMES % b64(zlib.crc32(DATA).to_bytes(4, "big")).encode()
    headers = {"content-encoding": "aws-chunked", "x-amz-decoded-content-length": str(len(DATA))}
    headers["x-amz-meta-who"] = "me"
    with strict_server(SMALL, Manners(chunked=chunked, metadata=chunked)) as server:
        server.make_bucket("lab")
        payload = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        if chunked:
            status, _, _ = ask(
                server, "PUT", "/lab/framed", body.replace(b"some", b"same"), headers, payload=payload
            )
            assert status == 400
        server.service.limits = Limits()
        assert ask(server, "PUT", "/lab/framed", body, headers, payload=payload)[0] == 200
        _, stored, answered = ask(server, "GET", "/lab/framed")
        assert stored == (DATA if chunked else body)
        assert answered.get("x-amz-meta-who") == ("me" if chunked else None)
