"""The bucket against real servers: odd keys, parts, listings, TLS, proxies, regions."""

from __future__ import annotations

import base64
import hashlib
import random
import threading
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from labsync.errors import (
    IntegrityError,
    InvalidError,
    LabsyncError,
    NotAllowedError,
    NotFoundError,
    UnavailableError,
)
from labsync.mirrors.s3_bucket import IF_ABSENT, Body, Bucket, Part, Upload, Whole, if_match
from labsync.mirrors.s3_credentials import Credentials
from labsync.report import MirrorRequests
from tests.fakes.s3 import (
    ENV,
    Fault,
    MotoServer,
    Server,
    aws_env,
    moto_server,
    rclone_server,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["aws_env"]  # a fixture
pytestmark = pytest.mark.usefixtures("aws_env")

DATA = bytes(range(256)) * 1000
ODD = [
    "plain.txt", "with space", "plus+plus", "100%", "a%20b", "tilde~", "ünï/çødé/文", "e\u0301", "😀",
    "!'()*@&=:$,;?#[]{}|^`<>\"\\", "dots/..a/b..", "trailing ", " leading",
]  # fmt: skip


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    with moto_server() as server:
        server.make_bucket("lab")
        yield server


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with rclone_server(tmp_path_factory.mktemp("served")) as server:
        server.make_bucket("lab")
        yield server


@pytest.fixture(params=["moto", "rclone"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    found: Server = request.getfixturevalue(request.param)
    yield found
    if isinstance(found, MotoServer):
        found.app.faults.clear()
        found.app.log.clear()


@pytest.fixture
def strict(moto: MotoServer) -> Iterator[MotoServer]:
    moto.app.log.clear()
    yield moto
    moto.app.faults.clear()


@pytest.fixture
def bucket(server: Server, request: pytest.FixtureRequest) -> Bucket:
    """A bucket whose prefix no other test uses; its server checks signatures if it is rclone's."""
    return Bucket(server.spec(f"s3://lab/{hashlib.sha256(request.node.name.encode()).hexdigest()[:9]}"))


def read(body: Body) -> bytes:
    return b"".join(bytes(block) for block in body.blocks())


# Objects.


@pytest.mark.parametrize("key", ODD)
def test_any_key_is_stored_listed_and_read(bucket: Bucket, key: str) -> None:
    etag = bucket.put(f"f/{key}", DATA)
    assert etag == hashlib.md5(DATA).hexdigest()
    assert list(bucket.listing("f/", 1000)) == [(f"f/{key}", etag, len(DATA))]
    body = bucket.get(f"f/{key}")
    assert (body.etag, body.length, read(body)) == (etag, len(DATA), DATA)
    assert bucket.size(f"f/{key}") == len(DATA)


def test_a_range_is_given(bucket: Bucket) -> None:
    bucket.put("f", DATA)
    body = bucket.get("f", (5, 1004))
    assert (body.length, body.content_range) == (1000, f"bytes 5-1004/{len(DATA)}")
    assert read(body) == DATA[5:1005]


def test_what_is_absent_is_said_to_be(bucket: Bucket) -> None:
    assert bucket.size("nothing") is None
    with pytest.raises(NotFoundError):
        bucket.get("nothing")
    assert list(bucket.listing("nothing/", 1000)) == []
    with pytest.raises(NotFoundError, match="bucket"):
        list(Bucket(replace(bucket._client._spec, url="s3://no-such-bucket")).listing("", 1000))


def test_empty_objects_and_memoryviews_are_stored(bucket: Bucket) -> None:
    bucket.put("empty", b"")
    assert (bucket.size("empty"), bucket.get("empty").all(0)) == (0, b"")
    digest = hashlib.sha256(DATA[7:]).hexdigest()
    bucket.put("view", memoryview(DATA)[7:], sha256=digest)
    assert bucket.get("view").all(len(DATA)) == DATA[7:]


def test_wrong_bytes_are_noticed_by_the_server(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labsync.mirrors.s3_bucket._md5", lambda data: base64.b64encode(bytes(16)).decode())
    with pytest.raises(IntegrityError):
        bucket.put("f", DATA)
    assert bucket.size("f") is None


def test_many_threads_share_few_connections(strict: MotoServer) -> None:
    bucket = Bucket(strict.spec("s3://lab/threads"))
    failures: list[LabsyncError] = []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                data = random.Random(number * 10 + turn).randbytes(3000)
                bucket.put(f"{number}", data)
                assert bucket.get(f"{number}").all(9000) == data
        except LabsyncError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert bucket.requests.value() == MirrorRequests(PUT=40, GET=40)
    assert len(list(bucket.listing("", 1000))) == 8


# Conditions.


def test_a_condition_that_fails_writes_nothing(strict: MotoServer) -> None:
    bucket = Bucket(strict.spec("s3://lab/conditions"))
    first = bucket.put("f", b"one", IF_ABSENT)
    assert first
    assert bucket.put("f", b"two", IF_ABSENT) is None
    assert bucket.put("f", b"two", if_match("0" * 32)) is None
    assert bucket.put("none", b"two", if_match(first)) is None
    assert bucket.get("f").all(9) == b"one"
    assert bucket.put("f", b"two", if_match(first)) not in {None, first}
    with pytest.raises(InvalidError):
        if_match('1"\r\nx-evil: 1')


def test_a_race_that_is_not_decided_yet_is_repeated(strict: MotoServer) -> None:
    bucket = Bucket(strict.spec("s3://lab/race"))
    strict.app.faults.append(Fault("PUT", status=409, code="ConditionalRequestConflict", times=2))
    assert bucket.put("k", b"x", IF_ABSENT)
    assert bucket.requests.value() == MirrorRequests(PUT=3)
    strict.app.faults.append(Fault("PUT", status=409, code="ConditionalRequestConflict", times=-1))
    with pytest.raises(UnavailableError):
        bucket.put("k", b"x", IF_ABSENT)


# Parts.


def parts_of(bucket: Bucket, upload: Upload, datas: list[bytes]) -> list[Part]:
    return [bucket.put_part(upload, number, data) for number, data in enumerate(datas, 1)]


PIECES = [b"a" * (5 << 20), b"b" * (5 << 20), b"the end"]
WHOLE = Whole(sum(map(len, PIECES)), zlib.crc32(b"".join(PIECES)))


def test_parts_are_stored_listed_and_completed(bucket: Bucket) -> None:
    upload = bucket.start_upload("a key + more")
    assert bucket.list_parts(upload) == []
    parts = parts_of(bucket, upload, PIECES)
    assert [part.size for part in parts] == [len(piece) for piece in PIECES]
    assert bucket.list_parts(upload) == parts
    assert bucket.size("a key + more") is None
    assert bucket.complete(upload, parts, WHOLE, None)
    assert bucket.get("a key + more").all(WHOLE.size) == b"".join(PIECES)


def test_an_aborted_upload_is_gone(rclone: Server) -> None:
    bucket = Bucket(rclone.spec("s3://lab/aborted"))
    upload = bucket.start_upload("k")
    bucket.put_part(upload, 1, b"x")
    bucket.abort(upload)
    with pytest.raises(NotFoundError):
        bucket.put_part(upload, 1, b"x")
    assert bucket.size("k") is None


def test_parts_of_an_upload_that_is_gone_are_not_found(strict: MotoServer) -> None:
    strict.app.faults.append(Fault("GET", query="*uploadId=*", status=404, code="NoSuchUpload"))
    with pytest.raises(NotFoundError):
        Bucket(strict.spec("s3://lab")).list_parts(Upload("k", "u"))


def test_an_upload_completes_under_a_condition(strict: MotoServer) -> None:
    bucket = Bucket(strict.spec("s3://lab/condition-of-parts"))
    for done in (True, False):
        upload = bucket.start_upload("k")
        assert bucket.complete(upload, parts_of(bucket, upload, PIECES), WHOLE, IF_ABSENT) is done


def document(name: str, inner: str) -> bytes:
    return f"<?xml version='1.0'?>\n<{name} xmlns='http://s3.amazonaws.com/doc/'>{inner}</{name}>".encode()


def test_parts_on_several_pages_are_all_listed(strict: MotoServer) -> None:
    part = "<Part><PartNumber>{0}</PartNumber><ETag>&quot;e{0}&quot;</ETag><Size>{0}</Size></Part>"
    pages = [
        (
            part.format(first) + part.format(first + 1),
            f"<NextPartNumberMarker>{first + 1}</NextPartNumberMarker><IsTruncated>{more}</IsTruncated>",
        )
        for first, more in ((1, "true"), (3, "true"), (5, "false"))
    ]
    for (listed, rest), marker in zip(pages, ("", "2", "4"), strict=True):
        query = f"part-number-marker={marker}&*" if marker else "uploadId=u"
        strict.app.faults.append(
            Fault("GET", query=query, status=200, body=document("ListPartsResult", listed + rest))
        )
    bucket = Bucket(strict.spec("s3://lab"))
    assert bucket.list_parts(Upload("k", "u")) == [Part(n, f"e{n}", n) for n in range(1, 7)]


PART = "<Part><PartNumber>2</PartNumber><ETag>e</ETag><Size>3</Size></Part>"
MORE = "<IsTruncated>true</IsTruncated>"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        document("ListPartsResult", PART)[:-5],
        document("ListBucketResult", PART),
        document("ListPartsResult", PART + MORE),
        document("ListPartsResult", f"{PART}{MORE}<NextPartNumberMarker>1</NextPartNumberMarker>"),
        document("ListPartsResult", f"{MORE}<NextPartNumberMarker>0</NextPartNumberMarker>"),
        document("ListPartsResult", f"{PART}{MORE}<NextPartNumberMarker>2</NextPartNumberMarker>"),
        document("ListPartsResult", PART + PART),
        document("ListPartsResult", PART.replace("<ETag>e</ETag>", "")),
        document("ListPartsResult", PART.replace("3", "three")),
        document("ListPartsResult", PART + "<IsTruncated>maybe</IsTruncated>"),
        b"<!DOCTYPE x [<!ENTITY a 'b'>]>" + document("ListPartsResult", "").split(b"\n")[1],
    ],
    ids=[
        "nothing", "cut", "another answer", "no marker", "another marker", "no progress", "the page again",
        "a part twice", "no ETag", "no size", "no yes or no", "definitions",
    ],
)  # fmt: skip
def test_a_listing_of_parts_that_is_not_right_is_no_answer(strict: MotoServer, body: bytes) -> None:
    strict.app.faults.append(Fault("GET", query="*uploadId=*", status=200, body=body, times=-1))
    with pytest.raises(UnavailableError, match="not consistent"):
        Bucket(strict.spec("s3://lab")).list_parts(Upload("k", "u"))


@pytest.mark.fault(66)
@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<Error><Code>InternalError</Code><Message>no</Message></Error>", UnavailableError),
        (b"  \n<?xml version='1.0'?><Error><Code>BadDigest</Code></Error>".strip(), IntegrityError),
        (document("CompleteMultipartUploadResult", "")[:-3], UnavailableError),
        (b"", UnavailableError),
        (document("ListPartsResult", ""), UnavailableError),
    ],
)
def test_a_completion_that_failed_late_is_a_failure(
    strict: MotoServer, body: bytes, error: type[LabsyncError]
) -> None:
    strict.app.faults.append(Fault("POST", query="*uploadId=*", status=200, body=body))
    with pytest.raises(error):
        Bucket(strict.spec("s3://lab")).complete(Upload("k", "u"), [Part(1, "e")], Whole(1, 0), None)


def test_white_space_before_the_answer_is_patience(strict: MotoServer) -> None:
    """Amazon sends some now and then while it puts the parts together."""
    body = b"   \n  " + document("CompleteMultipartUploadResult", "<Key>k</Key>")
    strict.app.faults.append(Fault("POST", query="*uploadId=*", status=200, body=body))
    assert Bucket(strict.spec("s3://lab")).complete(Upload("k", "u"), [Part(1, "e")], Whole(1, 0), None)


# Listings.


def test_a_listing_goes_over_all_pages(bucket: Bucket) -> None:
    etags = {f"d/{number:02d}": bucket.put(f"d/{number:02d}", b"%d" % number) for number in range(7)}
    bucket.put("e/other", b"")
    assert {item.key: item.etag for item in bucket.listing("d/", 3)} == etags
    assert bucket.requests.value().LIST == 3


ITEM = "<Contents><Key>p/d/k</Key><ETag>1</ETag><Size>7</Size></Contents>"


@pytest.mark.fault(68)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        document("ListBucketResult", ITEM)[:-1],
        document("ListBucketResult", ITEM)[:-30],
        document("Error", "<Code>InternalError</Code>"),
        document("ListBucketResult", ITEM + MORE),
        document("ListBucketResult", ITEM + "<NextContinuationToken>t</NextContinuationToken>"),
        document("ListBucketResult", ITEM.replace("p/d/", "q/")),
        document("ListBucketResult", ITEM.replace("<ETag>1</ETag>", "")),
    ],
    ids=[
        "nothing", "cut", "cut inside", "an error", "no token", "the same page for ever", "another folder",
        "no mark",
    ],
)  # fmt: skip
def test_a_listing_that_is_not_right_is_no_answer(strict: MotoServer, body: bytes) -> None:
    strict.app.faults.append(Fault("GET", query="*list-type=2*", status=200, body=body, times=-1))
    with pytest.raises(UnavailableError, match="not consistent"):
        list(Bucket(strict.spec("s3://lab/p")).listing("d/", 1000))


def test_keys_that_xml_cannot_hold_are_listed(strict: MotoServer) -> None:
    listed = ITEM.replace("d/k", "d/a%0Ab+c%2B%00") + "<EncodingType>url</EncodingType>"
    strict.app.faults.append(Fault("GET", status=200, body=document("ListBucketResult", listed)))
    assert list(Bucket(strict.spec("s3://lab/p")).listing("d/", 9)) == [("d/a\nb c+\0", "1", 7)]
    assert "encoding-type=url" in strict.app.log[-1].query


# Refusals, and what is repeated.


def test_a_wrong_secret_is_named_and_not_told(rclone: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    with pytest.raises(NotAllowedError) as caught:
        Bucket(rclone.spec("s3://lab")).get("k")
    assert "SignatureDoesNotMatch" in caught.value.what
    assert "another-secret" not in f"{caught.value.what}{caught.value.hint}"


@pytest.mark.fault(54)
def test_expired_credentials_are_looked_for_once_more(
    strict: MotoServer, clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    file = clean_environment / ".aws" / "credentials"
    file.parent.mkdir()
    text = "[default]\naws_access_key_id = {}\naws_secret_access_key = s\naws_session_token = t\n"
    file.write_text(text.format("AKID1"))
    bucket = Bucket(strict.spec("s3://lab"))
    bucket.put("k", b"x")
    strict.app.faults.append(Fault("GET", status=400, code="ExpiredToken", times=2))
    with pytest.raises(NotAllowedError, match="expired"):
        bucket.get("k")  # the file has nothing new
    file.write_text(text.format("AKID2"))
    assert bucket.get("k").all(9) == b"x"
    keys = [seen.headers["authorization"].split("=")[1].split("/")[0] for seen in strict.app.log]
    assert keys == ["AKID1", "AKID1", "AKID1", "AKID2"]


@pytest.mark.fault(54)
def test_credentials_that_are_always_over_are_looked_for_once(
    strict: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Credentials, "renew", lambda credentials, refused: True)  # a program gives old ones
    strict.app.faults.append(Fault("GET", status=400, code="ExpiredToken", times=9))
    with pytest.raises(NotAllowedError, match="expired"):
        Bucket(strict.spec("s3://lab")).get("k")
    assert len(strict.app.log) == 2


@pytest.mark.fault(56)
def test_another_region_outside_amazon_is_an_error(strict: MotoServer) -> None:
    headers = {"x-amz-bucket-region": "eu-west-1"}
    strict.app.faults.append(Fault("GET", status=301, code="PermanentRedirect", headers=headers))
    with pytest.raises(NotFoundError) as caught:
        Bucket(strict.spec("s3://lab")).get("k")
    assert "eu-west-1" in caught.value.hint


@pytest.mark.fault(80)
def test_no_message_holds_a_secret(moto: MotoServer) -> None:
    bucket = Bucket(moto.spec("s3://lab"))
    assert ENV["AWS_SECRET_ACCESS_KEY"] not in repr(bucket._client._credentials.keys())
