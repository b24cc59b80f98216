"""S3 as it fails: refusals, lost replies, broken listings, wrong bytes, each against a real server."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
import zlib
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from labsync.errors import (
    ChangedError,
    ConflictError,
    DiskError,
    IntegrityError,
    InvalidError,
    LabsyncError,
    NotAllowedError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from labsync.manifest.model import MirrorSpec
from labsync.mirrors.base import HEADS, HeadMovedError, HeadName, Ref
from labsync.mirrors.s3 import S3Mirror
from labsync.mirrors.s3_upload import Sizes
from labsync.names import ArtifactName
from labsync.report import MirrorRequests
from tests.contracts.mirror_contract import NAME, Progress, entry_of, index_of, key_of, nothing, staged
from tests.fakes.s3 import Fault, MotoServer, Seen, aws_env, moto_server

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["aws_env"]  # a fixture
pytestmark = pytest.mark.usefixtures("aws_env")

MIB = 1 << 20
SMALL_PARTS = Sizes(single=6 * MIB, part=5 * MIB)  # 5 MiB is the least that S3 takes
LARGE = bytes(range(256)) * (11 * MIB // 256) + b"the end"


@pytest.fixture(scope="module")
def shared() -> Iterator[MotoServer]:
    with moto_server() as server:
        yield server


@pytest.fixture
def server(shared: MotoServer) -> Iterator[MotoServer]:
    client = shared.client
    client.create_bucket(Bucket="lab")
    shared.app.log.clear()
    yield shared
    shared.app.faults.clear()
    for key in shared.keys("lab"):
        client.delete_object(Bucket="lab", Key=key)
    for upload in open_uploads(shared):
        client.abort_multipart_upload(Bucket="lab", Key=upload["Key"], UploadId=upload["UploadId"])


def open_uploads(server: MotoServer) -> list[dict[str, str]]:
    found: list[dict[str, str]] = server.client.list_multipart_uploads(Bucket="lab").get("Uploads", [])
    return found


@pytest.fixture
def mirror(server: MotoServer) -> S3Mirror:
    return S3Mirror(server.spec("s3://lab/p"), conditional=True, sizes=SMALL_PARTS)


def puts(server: MotoServer) -> list[Seen]:
    return [seen for seen in server.app.log if seen.method == "PUT" and "/p/" in seen.path]


def crc32_of(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


# What is sent.


def test_each_body_travels_with_the_md5_of_what_was_hashed(
    server: MotoServer, mirror: S3Mirror, tmp_path: Path
) -> None:
    for data in (b"", b"small", LARGE):
        mirror.write(key_of(str(len(data))), entry_of("f", data), staged(tmp_path, data), nothing)
    mirror.publish(NAME, index_of("a"), None)
    assert len(puts(server)) == 1 + 1 + 3 + 2
    for seen in puts(server):
        assert base64.b64decode(seen.headers["content-md5"]) == hashlib.md5(seen.body).digest()
        assert "x-amz-trailer" not in seen.headers
        assert "aws-chunked" not in seen.headers.get("content-encoding", "")


@pytest.fixture
def amazon(server: MotoServer) -> S3Mirror:
    """A mirror that takes the server for Amazon's own: its requests are led to the server."""
    mirror = S3Mirror(MirrorSpec("s3://lab/p", region="us-east-1"), sizes=SMALL_PARTS)

    def lead(request: Any, **_: object) -> None:
        parts = urlsplit(request.url)
        request.url = f"{server.url}/lab{parts.path}" + (f"?{parts.query}" if parts.query else "")

    mirror._bucket._client.meta.events.register("before-send.s3", lead)
    return mirror


def test_amazon_gets_a_checksum_of_each_whole_object(
    server: MotoServer, amazon: S3Mirror, tmp_path: Path
) -> None:
    amazon.write(key_of("small"), entry_of("small", b"small"), staged(tmp_path, b"small"), nothing)
    (seen,) = puts(server)
    assert base64.b64decode(seen.headers["x-amz-checksum-sha256"]) == hashlib.sha256(b"small").digest()
    assert seen.headers["if-none-match"] == "*"
    server.app.log.clear()

    amazon.write(key_of("large"), entry_of("large", LARGE), staged(tmp_path, LARGE), nothing)
    for seen in puts(server):
        assert base64.b64decode(seen.headers["x-amz-checksum-crc32"]) == zlib.crc32(seen.body).to_bytes(
            4, "big"
        )
    create, complete = [seen for seen in server.app.log if seen.method == "POST"]
    assert create.headers["x-amz-checksum-algorithm"] == "CRC32"
    assert create.headers["x-amz-checksum-type"] == "FULL_OBJECT"
    assert complete.headers["x-amz-checksum-crc32"] == crc32_of(LARGE)
    assert complete.headers["x-amz-mp-object-size"] == str(len(LARGE))
    assert amazon.requests() == MirrorRequests(PUT=1 + 3, POST=2, HEAD=2)  # no probe


def test_wrong_bytes_on_the_way_are_noticed_by_the_server(
    server: MotoServer, mirror: S3Mirror, tmp_path: Path
) -> None:
    def flip(request: Any, **_: object) -> None:
        request.body = b"smbll"

    mirror._bucket._client.meta.events.register("before-send.s3.PutObject", flip)
    with pytest.raises(IntegrityError):
        mirror.write(key_of("f"), entry_of("f", b"small"), staged(tmp_path, b"small"), nothing)
    assert server.keys("lab") == []


# Large files.


def test_a_large_file_goes_in_parts(server: MotoServer, mirror: S3Mirror, tmp_path: Path) -> None:
    progress = Progress()
    entry = entry_of("f", LARGE)
    mirror.write(key_of("f"), entry, staged(tmp_path, LARGE), progress)
    assert progress.counts == [5 * MIB, 5 * MIB, MIB + 7]
    assert mirror.requests() == MirrorRequests(HEAD=2, POST=2, PUT=3)
    mirror.read(Ref(key_of("f")), entry, tmp_path / "out", 0, nothing)
    assert (tmp_path / "out").read_bytes() == LARGE
    # Once more: what is there is read back and not sent again.
    mirror.write(key_of("f"), entry, staged(tmp_path, LARGE), progress)
    assert mirror.requests() == MirrorRequests(HEAD=3, POST=2, PUT=3, GET=2)


@pytest.mark.parametrize("now", [LARGE[:-1] + b"D", LARGE + b"!", LARGE[: 6 * MIB]])
def test_a_large_file_that_changed_is_never_completed(
    server: MotoServer, mirror: S3Mirror, tmp_path: Path, now: bytes
) -> None:
    with pytest.raises(ChangedError):
        mirror.write(key_of("f"), entry_of("f", LARGE), staged(tmp_path, now), nothing)
    assert server.keys("lab") == []
    assert open_uploads(server) == []


def test_a_large_file_replaces_no_other_bytes(server: MotoServer, mirror: S3Mirror, tmp_path: Path) -> None:
    other = b"O" + LARGE[1:]
    mirror.write(key_of("f"), entry_of("f", LARGE), staged(tmp_path, LARGE), nothing)
    for data in (other, other + b"!"):
        with pytest.raises(ConflictError):
            mirror.write(key_of("f"), entry_of("f", data), staged(tmp_path, data), nothing)
    assert server.client.get_object(Bucket="lab", Key=f"p/{key_of('f')}")["Body"].read() == LARGE


def test_of_two_large_uploads_the_first_completed_stays(
    server: MotoServer, mirror: S3Mirror, tmp_path: Path
) -> None:
    def rival(count: int) -> None:
        """Another box completes the same key while our parts are under way."""
        server.client.put_object(Bucket="lab", Key=f"p/{key_of('f')}", Body=b"the other box")

    with pytest.raises(ConflictError):
        mirror.write(key_of("f"), entry_of("f", LARGE), staged(tmp_path, LARGE), rival)
    assert server.client.get_object(Bucket="lab", Key=f"p/{key_of('f')}")["Body"].read() == b"the other box"
    assert open_uploads(server) == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault(method="PUT", query="*partNumber=2*", times=-1),
        Fault(method="POST", query="*uploadId=*", times=-1),
        Fault(method="POST", query="*uploadId=*", times=-1, status=200),
    ],
    ids=["a part", "complete", "complete with 200"],
)
def test_a_failed_large_upload_leaves_nothing_and_can_be_repeated(
    server: MotoServer, mirror: S3Mirror, tmp_path: Path, fault: Fault
) -> None:
    server.app.faults.append(fault)
    with pytest.raises(UnavailableError):
        mirror.write(key_of("f"), entry_of("f", LARGE), staged(tmp_path, LARGE), nothing)
    assert server.keys("lab") == []
    assert open_uploads(server) == []
    server.app.faults.clear()
    mirror.write(key_of("f"), entry_of("f", LARGE), staged(tmp_path, LARGE), nothing)


def test_progress_that_stops_the_transfer_aborts_the_upload(
    server: MotoServer, mirror: S3Mirror, tmp_path: Path
) -> None:
    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mirror.write(key_of("f"), entry_of("f", LARGE), staged(tmp_path, LARGE), stop)
    assert open_uploads(server) == []


def test_an_upload_that_the_server_forgot_is_tried_again(
    server: MotoServer, mirror: S3Mirror, tmp_path: Path
) -> None:
    server.app.faults.append(Fault(method="PUT", query="*partNumber=2*", status=404, code="NoSuchUpload"))
    with pytest.raises(UnavailableError, match="forgot the upload"):
        mirror.write(key_of("f"), entry_of("f", LARGE), staged(tmp_path, LARGE), nothing)


def test_a_large_upload_whose_last_reply_was_lost_is_success(
    server: MotoServer, mirror: S3Mirror, tmp_path: Path
) -> None:
    server.app.faults.append(Fault(method="POST", query="*uploadId=*", lose_reply=True))
    mirror.write(key_of("f"), entry_of("f", LARGE), staged(tmp_path, LARGE), nothing)
    assert server.keys("lab") == [f"p/{key_of('f')}"]


def test_an_object_that_became_shorter_on_the_way_is_noticed(
    server: MotoServer, mirror: S3Mirror, tmp_path: Path
) -> None:
    def shorten(count: int) -> None:
        server.app.faults[:] = [Fault(method="HEAD", status=200, headers={"Content-Length": "5"})]

    with pytest.raises(IntegrityError):
        mirror.write(key_of("f"), entry_of("f", LARGE), staged(tmp_path, LARGE), shorten)


@pytest.mark.parametrize(
    ("size", "part"),
    [(65 * MIB, 64 * MIB), (640_000 * MIB, 64 * MIB), (640_001 * MIB, 65 * MIB), (5 << 40, 525 * MIB)],
)
def test_part_sizes_keep_below_ten_thousand_parts(size: int, part: int) -> None:
    assert Sizes().part_of(size) == part
    assert -(-size // part) <= 10_000


# Lost replies and races.


@pytest.mark.parametrize("times", [1, 2], ids=["noticed by the repeated request", "noticed by asking"])
@pytest.mark.parametrize("first", [True, False], ids=["first head", "next head"])
def test_a_publication_whose_reply_was_lost_is_success(
    server: MotoServer, mirror: S3Mirror, times: int, first: bool
) -> None:
    expected = None if first else mirror.publish(NAME, index_of("a"), None)
    server.app.faults.append(Fault(method="PUT", path=f"*{HEADS}*", lose_reply=True, times=times))
    head = mirror.publish(NAME, index_of("b"), expected)
    assert head.snapshot == index_of("b").snapshot.id
    assert mirror.head(NAME) == head
    assert mirror.heads() == {NAME: head.mark}


def test_a_publication_that_did_not_happen_is_a_failure(server: MotoServer, mirror: S3Mirror) -> None:
    first = mirror.publish(NAME, index_of("a"), None)
    server.app.faults.append(Fault(method="PUT", path=f"*{HEADS}*", times=-1))
    with pytest.raises(UnavailableError):
        mirror.publish(NAME, index_of("b"), first)
    assert mirror.head(NAME) == first


def test_a_lost_race_is_not_taken_for_a_lost_reply(server: MotoServer, mirror: S3Mirror) -> None:
    first = mirror.publish(NAME, index_of("a"), None)
    other = mirror.publish(NAME, index_of("b"), first)
    server.app.faults.append(Fault(method="PUT", path=f"*{HEADS}*", lose_reply=True))
    with pytest.raises(HeadMovedError):
        mirror.publish(NAME, index_of("c"), first)
    assert mirror.head(NAME) == other


def test_a_write_whose_reply_was_lost_is_success(
    server: MotoServer, mirror: S3Mirror, tmp_path: Path
) -> None:
    server.app.faults.append(Fault(method="PUT", lose_reply=True))
    mirror.write(key_of("f"), entry_of("f", b"x"), staged(tmp_path, b"x"), nothing)
    assert server.keys("lab") == [f"p/{key_of('f')}"]


def test_a_race_that_s3_has_not_decided_is_repeated(server: MotoServer, mirror: S3Mirror) -> None:
    server.app.faults.append(
        Fault(method="PUT", path=f"*{HEADS}*", status=409, code="ConditionalRequestConflict")
    )
    head = mirror.publish(NAME, index_of("a"), None)
    assert mirror.head(NAME) == head
    server.app.faults.append(Fault(method="PUT", status=409, code="ConditionalRequestConflict", times=-1))
    with pytest.raises(UnavailableError):
        mirror.publish(NAME, index_of("b"), head)


def test_a_head_that_vanished_is_a_moved_head(server: MotoServer, mirror: S3Mirror) -> None:
    first = mirror.publish(NAME, index_of("a"), None)
    server.client.delete_object(Bucket="lab", Key=f"p/{HEADS}results/runs.json")
    with pytest.raises((HeadMovedError, NotFoundError)):
        mirror.publish(NAME, index_of("b"), first)
    assert mirror.heads() == {}


# Listings.


def test_heads_on_several_pages(server: MotoServer) -> None:
    mirror = S3Mirror(server.spec("s3://lab/p"), conditional=True, sizes=Sizes(page=2))
    marks = {}
    for number in range(5):
        name = HeadName(ArtifactName(f"results/run-{number}"))
        marks[name] = mirror.publish(name, replace(index_of("a"), artifact=name.artifact), None).mark
    before = mirror.requests().LIST
    assert mirror.heads() == marks
    assert mirror.requests().LIST - before == 3


def test_what_others_put_among_the_heads_is_ignored(server: MotoServer, mirror: S3Mirror) -> None:
    head = mirror.publish(NAME, index_of("a"), None)
    for key in ("", "README.txt", "results/", "results/Runs.json"):
        server.client.put_object(Bucket="lab", Key=f"p/{HEADS}{key}", Body=b"")
    assert mirror.heads() == {NAME: head.mark}


def page(inner: str) -> bytes:
    return f"<?xml version='1.0'?><ListBucketResult><Name>lab</Name>{inner}</ListBucketResult>".encode()


ITEM = f"<Contents><Key>p/{HEADS}results/runs.json</Key><ETag>1</ETag></Contents>"
MORE = "<IsTruncated>true</IsTruncated>"


@pytest.mark.parametrize(
    "body",
    [
        page(ITEM + MORE),
        page(ITEM + MORE + "<NextContinuationToken>again</NextContinuationToken>"),
        page("<Contents><Key>elsewhere/x.json</Key><ETag>1</ETag></Contents>"),
        page(f"<Contents><Key>p/{HEADS}results/runs.json</Key></Contents>"),
        page(ITEM)[:-10],
    ],
    ids=["no token", "repeated token", "another folder", "no mark", "cut off"],
)
def test_a_listing_that_is_not_right_is_no_answer(server: MotoServer, mirror: S3Mirror, body: bytes) -> None:
    server.app.faults.append(Fault(method="GET", query="*list-type=2*", times=-1, status=200, body=body))
    with pytest.raises(UnavailableError):
        mirror.heads()


def test_an_error_on_the_second_page_is_no_shorter_listing(server: MotoServer) -> None:
    mirror = S3Mirror(server.spec("s3://lab/p"), conditional=True, sizes=Sizes(page=1))
    for number in range(3):
        name = HeadName(ArtifactName(f"results/run-{number}"))
        mirror.publish(name, replace(index_of("a"), artifact=name.artifact), None)
    server.app.faults.append(Fault(query="*continuation-token=*", times=-1, status=503, code="SlowDown"))
    with pytest.raises(UnavailableError):
        mirror.heads()


# Refusals.


@pytest.mark.parametrize(
    ("status", "code", "headers", "error", "words"),
    [
        (403, "AccessDenied", {}, NotAllowedError, "AccessDenied"),
        (403, "InvalidAccessKeyId", {}, NotAllowedError, "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", {}, NotAllowedError, "secret key"),
        (400, "ExpiredToken", {}, NotAllowedError, "expired"),
        (403, "RequestTimeTooSkewed", {"Date": formatdate(0)}, NotAllowedError, "clock is wrong by +"),
        (404, "NoSuchBucket", {}, NotFoundError, "bucket"),
        (301, "PermanentRedirect", {"x-amz-bucket-region": "us-east-1"}, NotFoundError, "region: us-east-1"),
        (503, "SlowDown", {"Retry-After": "0"}, UnavailableError, "SlowDown"),
        (500, "InternalError", {}, UnavailableError, "InternalError"),
        (400, "RequestTimeout", {}, UnavailableError, "RequestTimeout"),
        (507, "XMinioStorageFull", {}, DiskError, "full"),
        (400, "EntityTooLarge", {}, RefusedError, "EntityTooLarge"),
    ],
)
def test_every_refusal_has_its_error(  # noqa: PLR0917  a table
    server: MotoServer, mirror: S3Mirror, tmp_path: Path, status: int, code: str,
    headers: dict[str, str], error: type[LabsyncError], words: str,
) -> None:  # fmt: skip
    server.app.faults.append(Fault(times=-1, status=status, code=code, headers=headers))
    calls = (
        mirror.heads,
        lambda: mirror.head(NAME),
        lambda: mirror.read(Ref(key_of("f")), entry_of("f", b"x"), tmp_path / "out", 0, nothing),
        lambda: mirror.write(key_of("f"), entry_of("f", b"x"), staged(tmp_path, b"x"), nothing),
        lambda: mirror.publish(NAME, index_of("a"), None),
    )
    for call in calls:
        with pytest.raises(error) as caught:
            call()
        assert words in f"{caught.value.what} {caught.value.hint}"
        assert "testing" not in f"{caught.value.what} {caught.value.hint}"


def test_how_long_to_wait_is_what_the_server_asks(server: MotoServer, mirror: S3Mirror) -> None:
    server.app.faults.append(Fault(times=-1, status=503, code="SlowDown", headers={"Retry-After": "17"}))
    with pytest.raises(UnavailableError) as caught:
        mirror.heads()
    assert caught.value.retry_after == 17


def test_a_head_request_that_is_refused_is_not_absence(
    server: MotoServer, mirror: S3Mirror, tmp_path: Path
) -> None:
    server.app.faults.append(Fault(method="HEAD", times=-1, status=403))
    with pytest.raises(NotAllowedError):
        mirror.write(key_of("f"), entry_of("f", LARGE), staged(tmp_path, LARGE), nothing)


def test_a_missing_bucket_is_not_found(server: MotoServer, tmp_path: Path) -> None:
    mirror = S3Mirror(server.spec("s3://no-such-bucket/p"))
    with pytest.raises(NotFoundError, match="bucket"):
        mirror.heads()
    with pytest.raises(NotFoundError, match="bucket"):
        mirror.write(key_of("f"), entry_of("f", b"x"), staged(tmp_path, b"x"), nothing)


def test_a_dead_endpoint_is_unavailable() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        spec = MirrorSpec(
            "s3://lab/p", endpoint=f"http://127.0.0.1:{closed.getsockname()[1]}", region="us-east-1"
        )
        mirror = S3Mirror(spec)
        with pytest.raises(UnavailableError, match="does not answer"):
            mirror.heads()
    assert mirror.requests().LIST == 2  # the one repetition is counted


def test_missing_credentials_are_named(server: MotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(NotAllowedError) as caught:
        S3Mirror(server.spec("s3://lab/p")).heads()
    assert "AWS_SECRET_ACCESS_KEY" in caught.value.hint


def test_a_missing_profile_and_a_wrong_endpoint_are_named(server: MotoServer) -> None:
    with pytest.raises(NotAllowedError, match="profile"):
        S3Mirror(replace(server.spec("s3://lab/p"), profile="nobody")).heads()
    with pytest.raises(InvalidError, match="endpoint"):
        S3Mirror(replace(server.spec("s3://lab/p"), endpoint="no address")).heads()
    with pytest.raises(InvalidError):
        S3Mirror(replace(server.spec("s3://lab/p"), url="s3://not a bucket/p")).heads()


def test_the_endpoint_may_come_from_the_environment(
    server: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
    assert S3Mirror(MirrorSpec("s3://lab")).heads() == {}
    assert server.app.log[-1].path == "/lab"


# Conditional writes.


def test_the_first_write_probes_once(server: MotoServer, tmp_path: Path) -> None:
    mirror = S3Mirror(server.spec("s3://lab/p"))
    for name in "ab":
        mirror.write(key_of(name), entry_of(name, b"x"), staged(tmp_path, b"x"), nothing)
    assert mirror.requests() == MirrorRequests(PUT=3 + 2, GET=1)
    assert mirror.conditional is True


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(method="PUT", path="*/probe", times=-1, status=501, code="NotImplemented")],
        [Fault(method="PUT", path="*/probe", times=-1, status=200, body=b"")],
    ],
    ids=["not known", "ignored"],
)
def test_a_server_that_does_not_take_conditions_is_found(
    server: MotoServer, tmp_path: Path, faults: list[Fault]
) -> None:
    server.client.put_object(
        Bucket="lab",
        Key="p/.labsync/probe",
        Body=b"labsync writes this to learn whether the server has conditional writes\n",
    )
    faults[0].times = 3 if faults[0].status == 200 else 1
    server.app.faults.extend(faults)
    assert not S3Mirror(server.spec("s3://lab/p")).probe()


def test_a_server_that_stores_other_bytes_is_found(server: MotoServer) -> None:
    server.client.put_object(Bucket="lab", Key="p/.labsync/probe", Body=b"5;chunk-signature=0\r\nhello\r\n0")
    with pytest.raises(IntegrityError, match="does not give back"):
        S3Mirror(server.spec("s3://lab/p")).probe()


# Reading.


def test_a_server_that_ignores_ranges_begins_again(
    server: MotoServer, mirror: S3Mirror, tmp_path: Path
) -> None:
    out, progress = tmp_path / "out", Progress()
    out.write_bytes(b"WRONG")
    server.app.faults.append(Fault(method="GET", status=200, body=b"0123456789", times=-1))
    mirror.read(Ref(key_of("f")), entry_of("f", b"0123456789"), out, 5, progress)
    assert out.read_bytes() == b"0123456789"
    assert progress.counts == [-5, 10]
    with pytest.raises(RefusedError, match="ranges"):
        mirror.read(Ref(key_of("f"), offset=2), entry_of("f", b"234"), out, 0, nothing)


def test_another_range_than_was_asked_for_is_not_taken(
    server: MotoServer, mirror: S3Mirror, tmp_path: Path
) -> None:
    server.app.faults.append(
        Fault(method="GET", status=206, body=b"01234", headers={"Content-Range": "bytes 0-4/10"}, times=-1)
    )
    (tmp_path / "out").write_bytes(b"01234")
    with pytest.raises(IntegrityError):
        mirror.read(Ref(key_of("f")), entry_of("f", b"0123456789"), tmp_path / "out", 5, nothing)


def test_a_connection_that_ends_early_keeps_what_arrived(
    server: MotoServer, mirror: S3Mirror, tmp_path: Path
) -> None:
    server.app.faults.append(
        Fault(method="GET", status=200, body=b"01234", headers={"Content-Length": "10"}, times=-1)
    )
    progress = Progress()
    with pytest.raises(UnavailableError):
        mirror.read(Ref(key_of("f")), entry_of("f", b"0123456789"), tmp_path / "out", 0, progress)
    assert (tmp_path / "out").read_bytes() == b"01234"[: sum(progress.counts)]


def test_a_disk_that_cannot_be_written_is_a_disk_error(mirror: S3Mirror, tmp_path: Path) -> None:
    mirror.write(key_of("f"), entry_of("f", b"x"), staged(tmp_path, b"x"), nothing)
    with pytest.raises(DiskError):
        mirror.read(Ref(key_of("f")), entry_of("f", b"x"), tmp_path, 0, nothing)


def test_one_client_serves_all_threads(server: MotoServer, tmp_path: Path) -> None:
    mirror, data = S3Mirror(server.spec("s3://lab/p")), staged(tmp_path, b"x")
    barrier, errors = threading.Barrier(8), list[LabsyncError]()

    def write(number: int) -> None:
        barrier.wait()
        try:
            mirror.write(key_of(str(number)), entry_of("f", b"x"), data, nothing)
        except LabsyncError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert mirror.requests() == MirrorRequests(PUT=3 + 8, GET=1)


def test_a_key_too_long_with_the_prefix_is_refused(server: MotoServer, tmp_path: Path) -> None:
    mirror = S3Mirror(server.spec("s3://lab/" + "p" * 200), conditional=True)
    with pytest.raises(RefusedError, match="longer than 1024"):
        mirror.write("/".join(["k" * 100] * 10), entry_of("f", b"x"), staged(tmp_path, b"x"), nothing)
    assert server.app.log == []
