"""S3 as it fails: refusals, lost replies, broken listings, wrong bytes, each against a real server."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

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
from labsync.mirrors.s3_connection import Connection
from labsync.mirrors.s3_upload import Sizes
from labsync.names import ArtifactName
from labsync.places import NoRangesError
from labsync.report import MirrorRequests
from tests.contracts.mirror_contract import (
    NAME,
    EnoughError,
    Progress,
    StopAfter,
    entry_of,
    index_of,
    key_of,
    nothing,
    read,
    write,
)
from tests.fakes.contents import changed, right
from tests.fakes.journal import MemoryJournal
from tests.fakes.s3 import LEAST_PART, Fault, MotoServer, Seen, aws_env, moto_server

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["aws_env"]  # a fixture
pytestmark = pytest.mark.usefixtures("aws_env")

SMALL_PARTS = Sizes(single=LEAST_PART + 1, part=LEAST_PART, memory=2 * LEAST_PART)
LARGE = bytes(range(256)) * (4 * LEAST_PART // 256) + b"the end"
PARTS = 5


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
    for upload in client.list_multipart_uploads(Bucket="lab").get("Uploads", []):
        client.abort_multipart_upload(Bucket="lab", Key=upload["Key"], UploadId=upload["UploadId"])


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
def mirror(server: MotoServer) -> S3Mirror:
    return S3Mirror(server.spec("s3://lab/p"), conditional=True, sizes=SMALL_PARTS)


def puts(server: MotoServer) -> list[Seen]:
    return [seen for seen in server.app.log if seen.method == "PUT" and "/p/" in seen.path]


def crc32_of(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


# What is sent.


def test_each_body_travels_with_the_md5_of_what_was_hashed(server: MotoServer, mirror: S3Mirror) -> None:
    for data in (b"", b"small", LARGE):
        write(mirror, key_of(str(len(data))), data)
    mirror.publish(NAME, index_of("a"), None)
    assert len(puts(server)) == 1 + 1 + PARTS + 2
    for seen in puts(server):
        assert base64.b64decode(seen.headers["content-md5"]) == hashlib.md5(seen.body).digest()
        assert "x-amz-trailer" not in seen.headers
        assert "aws-chunked" not in seen.headers.get("content-encoding", "")


@pytest.fixture
def amazon(server: MotoServer) -> S3Mirror:
    """A mirror that takes the server for Amazon's own."""
    mirror = S3Mirror(server.spec("s3://lab/p"), sizes=SMALL_PARTS)
    client = mirror._bucket._client
    client._place = replace(client.place, is_aws=True)
    return mirror


def test_amazon_gets_a_checksum_of_each_whole_object(server: MotoServer, amazon: S3Mirror) -> None:
    write(amazon, key_of("small"), b"small")
    (seen,) = puts(server)
    assert base64.b64decode(seen.headers["x-amz-checksum-sha256"]) == hashlib.sha256(b"small").digest()
    assert seen.headers["if-none-match"] == "*"
    server.app.log.clear()

    write(amazon, key_of("large"), LARGE)
    for seen in puts(server):
        assert base64.b64decode(seen.headers["x-amz-checksum-crc32"]) == zlib.crc32(seen.body).to_bytes(
            4, "big"
        )
    create, complete = [seen for seen in server.app.log if seen.method == "POST"]
    assert create.headers["x-amz-checksum-algorithm"] == "CRC32"
    assert create.headers["x-amz-checksum-type"] == "FULL_OBJECT"
    assert complete.headers["x-amz-checksum-crc32"] == crc32_of(LARGE)
    assert complete.headers["x-amz-mp-object-size"] == str(len(LARGE))
    assert amazon.requests() == MirrorRequests(PUT=1 + PARTS, POST=2, HEAD=2)  # no probe


@pytest.mark.fault(43)
@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("checked", [True, False], ids=["amazon", "any"])
def test_wrong_bytes_on_the_way_are_noticed_by_the_server(
    server: MotoServer, monkeypatch: pytest.MonkeyPatch, data: bytes, checked: bool,
    amazon: S3Mirror, mirror: S3Mirror,
) -> None:  # fmt: skip
    send = Connection.send

    def flip(self: Connection, head: bytes, body: bytes, *rest: Any) -> None:
        send(self, head, body[:-1] + b"?" if head.startswith(b"PUT") else body, *rest)

    monkeypatch.setattr(Connection, "send", flip)
    with pytest.raises(IntegrityError):
        write(amazon if checked else mirror, key_of("f"), data)
    assert server.keys("lab") == []


@pytest.mark.fault(43)
def test_wrong_parts_together_are_noticed_by_amazon(
    server: MotoServer, amazon: S3Mirror, journal: MemoryJournal
) -> None:
    """A part that was damaged after the server had taken it, or before the journal was written."""
    with pytest.raises(EnoughError):
        amazon.write(key_of("f"), right(LARGE), StopAfter(3 * LEAST_PART), journal)
    (wanted,) = {number for _, number in server.app.parts} & {1}
    for upload, number in server.app.parts:
        if number == wanted:
            server.app.parts[upload, number] = b"!" * LEAST_PART
    with pytest.raises(IntegrityError):
        amazon.write(key_of("f"), right(LARGE), nothing, journal)
    assert server.keys("lab") == []
    assert server.uploads("lab") == []
    assert journal.uploads == {}
    amazon.write(key_of("f"), right(LARGE), nothing, journal)


# Large files.


def test_a_large_file_goes_in_parts(server: MotoServer, mirror: S3Mirror, journal: MemoryJournal) -> None:
    progress = Progress()
    mirror.write(key_of("f"), right(LARGE), progress, journal)
    assert sum(progress.counts) == len(LARGE)
    assert sorted(len(seen.body) for seen in puts(server)) == [7, *[LEAST_PART] * 4]
    assert mirror.requests() == MirrorRequests(HEAD=2, POST=2, PUT=PARTS)
    assert read(mirror, Ref(key_of("f")), entry_of("f", LARGE)) == LARGE
    # Once more: what is there is read back and not sent again.
    mirror.write(key_of("f"), right(LARGE), progress, journal)
    assert mirror.requests() == MirrorRequests(HEAD=3, POST=2, PUT=PARTS, GET=2)


@pytest.mark.fault(32, 33, 34)
@pytest.mark.parametrize("now", [LARGE[:-1] + b"D", LARGE + b"!", LARGE[:-8]])
def test_a_large_file_that_changed_is_never_completed(
    server: MotoServer, mirror: S3Mirror, journal: MemoryJournal, now: bytes
) -> None:
    with pytest.raises(ChangedError):
        mirror.write(key_of("f"), changed(LARGE, now), nothing, journal)
    assert server.keys("lab") == []
    assert server.uploads("lab") == []


def test_of_two_large_uploads_the_first_completed_stays(
    server: MotoServer, mirror: S3Mirror, journal: MemoryJournal
) -> None:
    def rival(count: int) -> None:
        """Another box completes the same key while our parts are under way."""
        server.client.put_object(Bucket="lab", Key=f"p/{key_of('f')}", Body=b"the other box")

    with pytest.raises(ConflictError):
        mirror.write(key_of("f"), right(LARGE), rival, journal)
    assert server.client.get_object(Bucket="lab", Key=f"p/{key_of('f')}")["Body"].read() == b"the other box"
    assert server.uploads("lab") == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault(method="PUT", query="*partNumber=2*", times=-1),
        Fault(method="PUT", query="*partNumber=2*", times=-1, status=403, code="ExpiredToken"),
        Fault(method="POST", query="*uploadId=*", times=-1),
        Fault(method="POST", query="*uploadId=*", times=-1, status=200),
        Fault(method="POST", query="*uploadId=*", times=-1, lose_reply=True),
    ],
    ids=["a part", "expired", "complete", "complete with 200", "complete without a reply"],
)
def test_a_failed_large_upload_is_continued_by_the_next_attempt(
    server: MotoServer, mirror: S3Mirror, journal: MemoryJournal, fault: Fault
) -> None:
    server.app.faults.append(replace(fault))
    with contextlib.suppress(UnavailableError, NotAllowedError):
        mirror.write(key_of("f"), right(LARGE), nothing, journal)
    server.app.faults.clear()
    kept = len(journal.uploads[key_of("f")].parts) if journal.uploads else PARTS
    server.app.log.clear()
    progress = Progress()
    S3Mirror(server.spec("s3://lab/p"), conditional=True, sizes=SMALL_PARTS).write(
        key_of("f"), right(LARGE), progress, journal
    )
    assert len(puts(server)) == PARTS - kept
    assert sum(progress.counts) == server.app.part_bytes
    assert kept > 0
    assert read(mirror, Ref(key_of("f")), entry_of("f", LARGE)) == LARGE
    assert server.uploads("lab") == []
    assert journal.uploads == {}


def test_whoever_reports_progress_may_stop_an_upload_and_it_goes_on_later(
    server: MotoServer, mirror: S3Mirror, journal: MemoryJournal
) -> None:
    def stop(count: int) -> None:
        if count > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mirror.write(key_of("f"), right(LARGE), stop, journal)
    assert server.keys("lab") == []
    assert len(server.uploads("lab")) == 1
    mirror.write(key_of("f"), right(LARGE), nothing, journal)
    assert journal.begun == 1
    assert server.uploads("lab") == []


def test_an_abandoned_upload_leaves_nothing_on_the_server(
    server: MotoServer, mirror: S3Mirror, journal: MemoryJournal
) -> None:
    with pytest.raises(EnoughError):
        mirror.write(key_of("f"), right(LARGE), StopAfter(LEAST_PART), journal)
    assert server.uploads("lab") == [f"p/{key_of('f')}"]
    mirror.abandon(key_of("f"), journal)
    assert server.uploads("lab") == []
    assert journal.uploads == {}


@pytest.mark.fault(67)
def test_an_upload_that_the_server_forgot_is_tried_again(
    server: MotoServer, mirror: S3Mirror, journal: MemoryJournal
) -> None:
    server.app.faults.append(Fault(method="PUT", query="*partNumber=2*", status=404, code="NoSuchUpload"))
    with pytest.raises(UnavailableError, match="cannot be continued"):
        mirror.write(key_of("f"), right(LARGE), nothing, journal)
    mirror.write(key_of("f"), right(LARGE), nothing, journal)
    assert journal.begun == 2


def test_an_object_that_became_shorter_on_the_way_is_noticed(
    server: MotoServer, mirror: S3Mirror, journal: MemoryJournal
) -> None:
    def shorten(count: int) -> None:
        server.app.faults[:] = [Fault(method="HEAD", status=200, headers={"Content-Length": "5"})]

    with pytest.raises(IntegrityError):
        mirror.write(key_of("f"), right(LARGE), shorten, journal)
    assert journal.uploads == {}


# Lost replies and races.


@pytest.mark.fault(66)
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


@pytest.mark.fault(66)
def test_a_write_whose_reply_was_lost_is_success(server: MotoServer, mirror: S3Mirror) -> None:
    server.app.faults.append(Fault(method="PUT", lose_reply=True))
    write(mirror, key_of("f"), b"x")
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


@pytest.mark.fault(68)
def test_an_error_on_the_second_page_is_no_shorter_listing(server: MotoServer) -> None:
    mirror = S3Mirror(server.spec("s3://lab/p"), conditional=True, sizes=Sizes(page=1))
    for number in range(3):
        name = HeadName(ArtifactName(f"results/run-{number}"))
        mirror.publish(name, replace(index_of("a"), artifact=name.artifact), None)
    server.app.faults.append(Fault(query="*continuation-token=*", times=-1, status=503, code="SlowDown"))
    with pytest.raises(UnavailableError):
        mirror.heads()


# Refusals.


@pytest.mark.fault(49, 50, 54, 56, 57)
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
    server: MotoServer, mirror: S3Mirror, status: int, code: str,
    headers: dict[str, str], error: type[LabsyncError], words: str,
) -> None:  # fmt: skip
    server.app.faults.append(Fault(times=-1, status=status, code=code, headers=headers))
    calls = (
        mirror.heads,
        lambda: mirror.head(NAME),
        lambda: read(mirror, Ref(key_of("f")), entry_of("f", b"x")),
        lambda: write(mirror, key_of("f"), b"x"),
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


@pytest.mark.fault(55)
def test_a_head_request_that_is_refused_is_not_absence(server: MotoServer, mirror: S3Mirror) -> None:
    server.app.faults.append(Fault(method="HEAD", times=-1, status=403))
    with pytest.raises(NotAllowedError):
        write(mirror, key_of("f"), LARGE)


@pytest.mark.fault(56)
def test_a_missing_bucket_is_not_found(server: MotoServer) -> None:
    mirror = S3Mirror(server.spec("s3://no-such-bucket/p"))
    with pytest.raises(NotFoundError, match="bucket"):
        mirror.heads()
    with pytest.raises(NotFoundError, match="bucket"):
        write(mirror, key_of("f"), b"x")


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


def test_the_first_write_probes_once(server: MotoServer) -> None:
    mirror = S3Mirror(server.spec("s3://lab/p"))
    for name in "ab":
        write(mirror, key_of(name), b"x")
    assert mirror.requests() == MirrorRequests(PUT=3 + 2, GET=1)
    assert mirror.conditional is True


@pytest.mark.fault(69)
@pytest.mark.parametrize(
    "faults",
    [
        [Fault(method="PUT", path="*/probe", times=-1, status=501, code="NotImplemented")],
        [Fault(method="PUT", path="*/probe", times=-1, status=200, body=b"")],
    ],
    ids=["not known", "ignored"],
)
def test_a_server_that_does_not_take_conditions_is_found(server: MotoServer, faults: list[Fault]) -> None:
    server.client.put_object(
        Bucket="lab",
        Key="p/.labsync/probe",
        Body=b"labsync writes this to learn whether the server has conditional writes\n",
    )
    faults[0].times = 3 if faults[0].status == 200 else 1
    server.app.faults.extend(faults)
    assert not S3Mirror(server.spec("s3://lab/p")).probe()


@pytest.mark.fault(69)
def test_a_server_that_stores_other_bytes_is_found(server: MotoServer) -> None:
    server.client.put_object(Bucket="lab", Key="p/.labsync/probe", Body=b"5;chunk-signature=0\r\nhello\r\n0")
    with pytest.raises(IntegrityError, match="does not give back"):
        S3Mirror(server.spec("s3://lab/p")).probe()


# Reading.


DIGITS = b"0123456789"


@pytest.mark.fault(44)
def test_a_server_that_ignores_ranges_can_give_whole_files_alone(
    server: MotoServer, mirror: S3Mirror
) -> None:
    server.app.faults.append(Fault(method="GET", status=200, body=DIGITS, times=-1))
    entry = entry_of("f", DIGITS)
    for ref, start, stop in ((Ref("f"), 5, None), (Ref("f"), 0, 5), (Ref("f", offset=2), 0, 3)):
        with pytest.raises(NoRangesError, match="ranges"):
            next(mirror.read(ref, entry, start, stop))
    assert read(mirror, Ref("f"), entry) == DIGITS
    assert read(mirror, Ref("f"), entry, 0, 10) == DIGITS


@pytest.mark.fault(45)
@pytest.mark.parametrize("status", [200, 206])
@pytest.mark.parametrize(
    ("content_range", "error"),
    [
        ("bytes 5-9/10", None),
        ("bytes 5-9/*", None),
        ("bytes 5-9/11", IntegrityError),
        ("bytes 4-8/10", IntegrityError),
        ("bytes 5-8/10", IntegrityError),
        ("bytes 5-10/11", IntegrityError),
        ("5-9/10", IntegrityError),
        ("bytes */10", IntegrityError),
    ],
)
def test_exactly_the_range_that_was_asked_for_is_taken_whatever_its_status(
    server: MotoServer, mirror: S3Mirror, status: int, content_range: str, error: type[LabsyncError] | None
) -> None:
    server.app.faults.append(
        Fault(method="GET", status=status, body=b"56789", headers={"Content-Range": content_range}, times=-1)
    )
    blocks = mirror.read(Ref(key_of("f")), entry_of("f", DIGITS), 5)
    if error is None:
        assert bytes(next(blocks)) == b"56789"
        return
    with pytest.raises(error):
        next(blocks)


@pytest.mark.parametrize("total", ["600", "512", "*", "511"])
def test_inside_a_pack_the_total_is_the_packs(server: MotoServer, mirror: S3Mirror, total: str) -> None:
    header = {"Content-Range": f"bytes 502-511/{total}"}
    server.app.faults.append(Fault(method="GET", status=206, body=DIGITS, headers=header))
    blocks = mirror.read(Ref(key_of("pack"), offset=502), entry_of("f", DIGITS))
    if total != "511":
        assert b"".join(map(bytes, blocks)) == DIGITS
        return
    with pytest.raises(IntegrityError):
        next(blocks)


@pytest.mark.fault(41)
@pytest.mark.parametrize("body", [b"5678", b"567890"], ids=["shorter", "longer"])
@pytest.mark.parametrize("start", [0, 5])
def test_an_answer_of_another_length_is_not_taken(
    server: MotoServer, mirror: S3Mirror, body: bytes, start: int
) -> None:
    header = {"Content-Range": "bytes 5-9/10"} if start else {}
    server.app.faults.append(Fault(method="GET", status=206, body=body, headers=header))
    with pytest.raises(IntegrityError):
        next(mirror.read(Ref(key_of("f")), entry_of("f", DIGITS), start))


@pytest.mark.fault(40)
@pytest.mark.parametrize(("start", "stop"), [(0, None), (2, 7)])
def test_a_connection_that_ends_early_gives_what_arrived(
    server: MotoServer, mirror: S3Mirror, start: int, stop: int | None
) -> None:
    headers = {"Content-Length": str((stop or 10) - start)}
    if stop:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/10"
    server.app.faults.append(Fault(method="GET", status=200, body=b"01", headers=headers, times=-1))
    blocks = mirror.read(Ref(key_of("f")), entry_of("f", DIGITS), start, stop)
    assert bytes(next(blocks)) == b"01"
    with pytest.raises(UnavailableError):
        next(blocks)


def test_reads_that_end_early_lose_no_connection_for_good(server: MotoServer, mirror: S3Mirror) -> None:
    write(mirror, key_of("f"), LARGE)
    for _ in range(80):
        blocks = mirror.read(Ref(key_of("f")), entry_of("f", LARGE), 1)
        next(blocks)
        blocks.close()
    assert read(mirror, Ref(key_of("f")), entry_of("f", LARGE)) == LARGE


def test_one_client_serves_all_threads(server: MotoServer) -> None:
    mirror, barrier = S3Mirror(server.spec("s3://lab/p")), threading.Barrier(8)

    def store(number: int) -> None:
        barrier.wait()
        write(mirror, key_of(str(number)), b"x")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(store, range(8)))
    assert mirror.requests() == MirrorRequests(PUT=3 + 8, GET=1)


def test_a_key_too_long_with_the_prefix_is_refused(server: MotoServer) -> None:
    mirror = S3Mirror(server.spec("s3://lab/" + "p" * 200), conditional=True)
    with pytest.raises(RefusedError, match="longer than 1024"):
        write(mirror, "/".join(["k" * 100] * 10), b"x")
    assert server.app.log == []
