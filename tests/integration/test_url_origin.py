"""The URL origin: folders, links, object stores, and what is said when they refuse."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote

import boto3
import pytest
from moto.server import ThreadedMotoServer

from labsync.errors import (
    IntegrityError,
    InvalidError,
    LabsyncError,
    NotAllowedError,
    NotFoundError,
    UnavailableError,
)
from labsync.manifest.model import Artifact
from labsync.origins import file_systems
from labsync.origins.git import GitOrigin
from labsync.origins.huggingface import HuggingFaceOrigin
from labsync.origins.registry import origin_for
from labsync.origins.url import UrlOrigin
from labsync.places import Ref
from labsync.snapshot import FileEntry
from tests.fakes.http_faults import Fault, FileServer, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def data(url: str, sha256: str = "") -> Artifact:
    return Artifact("datasets", "d", origin=url, sha256=sha256)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://{}:{}".format(*server.get_host_and_port()))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3").create_bucket(Bucket="lab")
    yield "lab"
    server.stop()


def test_a_digest_of_the_manifest_is_taken_and_only_the_size_is_asked() -> None:
    with FileServer({"/m.pth": b"weights"}) as server:
        (listed,) = UrlOrigin().resolve(data(f"{server.url}/m.pth?download=1", "a" * 64)).files
        assert (listed.path, listed.size, listed.sha256) == ("m.pth", 7, "a" * 64)
        assert [request.method for request in server.requests] == ["HEAD"]


def test_a_folder_over_http_is_refused_with_a_way_out() -> None:
    with pytest.raises(InvalidError, match="cannot be listed") as caught:
        UrlOrigin().resolve(data("https://user:pass@example.org/folder/"))
    assert "each file" in caught.value.hint
    assert "pass" not in caught.value.what
    with pytest.raises(InvalidError, match="does not name a file"):
        UrlOrigin().resolve(data("https://example.org"))


def test_links_are_told_and_not_followed_and_modes_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/tool.sh").write_bytes(b"x")
    (folder / "sub/tool.sh").chmod(0o755)
    (folder / "loop").symlink_to(folder)
    (folder / "passwd").symlink_to("/etc/passwd")
    (folder / "broken").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    listing = UrlOrigin().resolve(data(f"file://{folder}/"))
    assert [(file.path, file.executable) for file in listing.files] == [("sub/tool.sh", True)]
    assert listing.skipped == {
        "broken": "is a link", "loop": "is a link", "passwd": "is a link", "pipe": "is not a regular file",
    }  # fmt: skip


def test_an_empty_folder_is_empty_and_a_missing_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert UrlOrigin().resolve(data(f"file://{tmp_path}/empty/")).files == ()
    with pytest.raises(NotFoundError):
        UrlOrigin().resolve(data(f"file://{tmp_path}/missing/"))


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a/closed").mkdir(parents=True)
    scan = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)  # root may list everything, so the mode would prove nothing
    with pytest.raises(NotAllowedError):
        UrlOrigin().resolve(data(f"file://{tmp_path}/a/"))


def test_a_slash_too_much_or_too_little_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(InvalidError, match="is a folder") as caught:
        UrlOrigin().resolve(data(f"file://{tmp_path}"))
    assert f"`file://{tmp_path}/`" in caught.value.hint
    with pytest.raises(NotFoundError, match="is a file"):
        UrlOrigin().resolve(data(f"file://{tmp_path}/file/"))


def test_unknown_schemes_and_missing_packages_are_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidError, match="not a kind of origin"):
        UrlOrigin().resolve(data("nonsense://host/file"))
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InvalidError, match="missing") as caught:
        UrlOrigin().resolve(data("gs://bucket/file"))
    assert "gcsfs" in caught.value.hint


def read(url: str, entry: FileEntry, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join(map(bytes, UrlOrigin().read(Ref(url, "", entry.path), entry, start, stop)))


def test_a_local_file_is_read_without_a_file_system_of_fsspec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    (tmp_path / "f").write_bytes(b"0123456789")
    entry = FileEntry("f", "", 10)
    assert read(f"file://{tmp_path}/", entry) == b"0123456789"
    assert read(f"file:{tmp_path}/f", entry, 3, 7) == b"3456"


@pytest.mark.fault(74)
def test_what_is_no_local_file_is_told_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, kind in (("pipe", InvalidError), ("folder", InvalidError), ("none", NotFoundError)):
        with pytest.raises(kind):
            read(f"file://{tmp_path}/", FileEntry(name, "", 1))
    with pytest.raises(NotFoundError):
        read(f"file://{tmp_path}/pipe/", FileEntry("x", "", 1))


def test_a_local_file_that_becomes_shorter_is_noticed(tmp_path: Path) -> None:
    data = bytes(3 << 20)
    (tmp_path / "f").write_bytes(data)
    blocks = UrlOrigin().read(Ref(f"file://{tmp_path}/f"), FileEntry("f", "", len(data)))
    got = len(next(blocks))
    os.truncate(tmp_path / "f", got + 5)
    assert len(next(blocks)) == 5
    with pytest.raises(UnavailableError, match="became shorter"):
        next(blocks)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(3 << 20))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        blocks = UrlOrigin().read(Ref(f"file://{tmp_path}/f"), FileEntry("f", "", 3 << 20))
        next(blocks)
        blocks.close()
        with pytest.raises(IntegrityError):
            read(f"file://{tmp_path}/", FileEntry("f", "", 1))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_local_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(b"x")

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("labsync.origins.local_files.os.open", refuse)  # root may read everything
    with pytest.raises(NotAllowedError):
        read(f"file://{tmp_path}/", FileEntry("f", "", 1))


def test_objects_are_read_by_exact_ranges(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_systems, "FETCH", 1000)
    data, client = bytes(range(256)) * 16, boto3.client("s3")
    client.put_object(Bucket=bucket, Key="d/f", Body=data)
    entry = FileEntry("f", "", len(data))
    for start, stop in ((0, None), (0, 4096), (1, 3001), (4095, 4096), (4000, None), (0, 4000)):
        assert read(f"s3://{bucket}/d/", entry, start, stop) == data[start:stop]
    assert read(f"s3://{bucket}/d/", FileEntry("f", "", -1)) == data
    for size in (len(data) - 1, len(data) - 96, 0):
        with pytest.raises(IntegrityError):
            read(f"s3://{bucket}/d/", FileEntry("f", "", size))
    with pytest.raises(UnavailableError, match="too early"):
        read(f"s3://{bucket}/d/", FileEntry("f", "", len(data) + 1), 4000)


def test_folder_markers_of_s3_are_told_and_others_prefixes_left_out(bucket: str) -> None:
    client = boto3.client("s3")
    for key in ("data/", "data/sub/", "data/sub/a", "database/b", "data"):
        client.put_object(Bucket=bucket, Key=key, Body=b"" if key.endswith("/") else b"x")
    listing = UrlOrigin().resolve(data(f"s3://{bucket}/data/"))
    assert [file.path for file in listing.files] == ["sub/a"]
    assert listing.skipped == {"sub/": "marks a folder"}


def test_one_object_and_a_missing_one(bucket: str) -> None:
    boto3.client("s3").put_object(Bucket=bucket, Key="a/model.pth", Body=b"12345")
    (listed,) = UrlOrigin().resolve(data(f"s3://{bucket}/a/model.pth")).files
    assert (listed.path, listed.size) == ("model.pth", 5)
    origin = UrlOrigin()
    for url in (
        f"s3://{bucket}/a/no.pth",
        "s3://no-such-bucket/a",
        "s3://no-such-bucket/a/",
        "s3://no-such-bucket/",
    ):
        with pytest.raises(NotFoundError):
            origin.resolve(data(url))
    assert origin.resolve(data(f"s3://{bucket}/")).files[0].path == "a/model.pth"


class PagedS3(FileServer):
    """Lists two keys on two pages; the second page answers with `status`."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__({})

    def answer(self, request: Request) -> Reply:
        is_second = "continuation-token=next" in request.query
        more = "" if is_second else "<NextContinuationToken>next</NextContinuationToken>"
        body = (
            f"<?xml version='1.0'?><ListBucketResult><IsTruncated>{str(not is_second).lower()}</IsTruncated>"
            f"{more}<Contents><Key>data/{int(is_second)}</Key><Size>1</Size></Contents></ListBucketResult>"
        )
        status = self.status if is_second else 200
        return Reply(status, body.encode() if status == 200 else b"", {"Content-Type": "application/xml"})


@pytest.mark.parametrize("status", [200, 500, 403])
def test_a_page_of_the_listing_that_fails_is_an_error_and_not_fewer_files(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with PagedS3(status) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        if status == 200:
            assert [f.path for f in UrlOrigin().resolve(data("s3://bucket/data/")).files] == ["0", "1"]
        else:
            with pytest.raises((UnavailableError, NotAllowedError)):
                UrlOrigin().resolve(data("s3://bucket/data/"))


class FailingS3(FileServer):
    """Answers every request with one S3 error."""

    def __init__(self, status: int, code: str) -> None:
        self.status, self.code = status, code
        super().__init__({})

    def answer(self, request: Request) -> Reply:
        body = f"<?xml version='1.0'?><Error><Code>{self.code}</Code><Message>no</Message></Error>"
        return Reply(self.status, body.encode(), {"Content-Type": "application/xml"})


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "AccessDenied", NotAllowedError),
        (403, "InvalidAccessKeyId", NotAllowedError),
        (403, "SignatureDoesNotMatch", NotAllowedError),
        (400, "ExpiredToken", NotAllowedError),
        (404, "NoSuchBucket", NotFoundError),
        (503, "SlowDown", UnavailableError),
        (500, "InternalError", UnavailableError),
    ],
)
def test_what_s3_answers_is_never_an_empty_listing(
    monkeypatch: pytest.MonkeyPatch, status: int, code: str, kind: type[LabsyncError]
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with FailingS3(status, code) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        origin = UrlOrigin()
        with pytest.raises(LabsyncError) as listing:
            origin.resolve(data("s3://bucket/data/"))
        ref, entry = Ref("s3://bucket/data/", "", "a"), FileEntry("a", "", 1)
        with pytest.raises(LabsyncError) as reading:
            list(origin.read(ref, entry))
    assert isinstance(listing.value, kind)
    if code != "ExpiredToken":  # a HEAD has no body that could tell the code of a 400
        assert isinstance(reading.value, kind)


def test_an_endpoint_that_nobody_serves_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with FileServer({}) as gone:
        monkeypatch.setenv("AWS_ENDPOINT_URL", gone.url)
    with pytest.raises(UnavailableError, match="does not answer"):
        UrlOrigin().resolve(data("s3://bucket/data/"))


def test_without_credentials_s3_is_asked_anonymously(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with FailingS3(404, "NoSuchBucket") as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        with pytest.raises(NotFoundError):
            UrlOrigin().resolve(data("s3://bucket/data/"))
        assert server.requests
        assert not [request for request in server.requests if "authorization" in request.headers]


def test_names_are_decoded_where_addresses_are_encoded(tmp_path: Path) -> None:
    with FileServer({"/a b#.pth": b"x"}) as server:
        assert UrlOrigin().resolve(data(f"{server.url}/{quote('a b#.pth')}")).files[0].path == "a b#.pth"
        server.fault(Fault("*", status=404))
        with pytest.raises(NotFoundError):
            UrlOrigin().resolve(data(f"{server.url}/gone.pth"))
    (tmp_path / "a%20b").write_bytes(b"x")
    assert UrlOrigin().resolve(data(f"file://{tmp_path}/a%20b")).files[0].path == "a%20b"


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("hf://org/name", HuggingFaceOrigin), ("git+https://h/x", GitOrigin), ("git+file:///x", GitOrigin),
        ("https://h/x", UrlOrigin), ("s3://b/x/", UrlOrigin), ("file:///x", UrlOrigin),
    ],
)  # fmt: skip
def test_each_scheme_has_its_origin(tmp_path: Path, url: str, kind: type) -> None:
    assert type(origin_for(replace(data("x"), origin=url), tmp_path)) is kind
    assert not list(tmp_path.iterdir())
