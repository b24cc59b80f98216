"""The way to the bucket: TLS, proxies, and Amazon's regions, all on this machine."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import ipaddress
import socket
import ssl
import threading
import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from werkzeug.serving import make_server

from labsync.errors import InvalidError, NotAllowedError, NotFoundError, UnavailableError
from labsync.manifest.model import MirrorSpec
from labsync.mirrors.s3_bucket import IF_ABSENT, Bucket, Part, Upload, Whole
from tests.fakes.s3 import Fault, MotoServer, Server, StrictApp, _Quiet, aws_env, moto_server, rclone_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["aws_env"]  # a fixture
pytestmark = pytest.mark.usefixtures("aws_env")

DATA = bytes(range(256)) * 1000
PIECES = [b"a" * (5 << 20), b"b" * (5 << 20), b"the end"]
WHOLE = Whole(sum(map(len, PIECES)), zlib.crc32(b"".join(PIECES)))


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


def parts_of(bucket: Bucket, upload: Upload, datas: list[bytes]) -> list[Part]:
    return [bucket.put_part(upload, number, data) for number, data in enumerate(datas, 1)]


@dataclass(frozen=True)
class Certificate:
    """A certificate of our own for this machine and for Amazon's servers, valid now."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "certificate.pem"

    @property
    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file, self.folder / "key.pem")
        return context

    def make(self) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "labsync test")])
        now = dt.datetime.now(dt.timezone.utc)
        names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        names += [x509.DNSName(f"lab.s3.{region}.amazonaws.com") for region in ("us-east-1", "eu-west-1")]
        made = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        (self.folder / "key.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return self


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("certificate")).make()


@pytest.fixture
def secure(moto: MotoServer, certificate: Certificate) -> Iterator[MotoServer]:
    """The same objects as moto's, by TLS."""
    app = StrictApp()
    server = make_server(
        "127.0.0.1", 0, app, threaded=True, request_handler=_Quiet, ssl_context=certificate.context
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield MotoServer(f"https://127.0.0.1:{server.port}", app)
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_with_tls_is_read_and_written(
    secure: MotoServer, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate.file))
    bucket = Bucket(secure.spec("s3://lab/tls"))
    data = DATA * 10
    told: list[int] = []
    bucket.put("k", data, sent=told.append)
    assert (bucket.get("k").all(len(data)), sum(told)) == (data, len(data))
    upload = bucket.start_upload("parts")
    parts = parts_of(bucket, upload, PIECES)
    assert bucket.complete(upload, parts, WHOLE, None)
    assert bucket.get("parts").all(WHOLE.size) == b"".join(PIECES)
    payloads = {seen.headers["x-amz-content-sha256"] for seen in secure.app.log if seen.part}
    assert payloads == {"UNSIGNED-PAYLOAD"}
    assert all(seen.headers["content-md5"] for seen in secure.app.log if seen.part)


def test_certificates_of_the_system_are_used(
    secure: MotoServer, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    with pytest.raises(UnavailableError, match="secure connection") as caught:
        Bucket(secure.spec("s3://lab")).get("k")
    assert "AWS_CA_BUNDLE" in caught.value.hint
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    assert Bucket(secure.spec("s3://lab")).size("none") is None
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere.pem")
    with pytest.raises(InvalidError, match="certificates"):
        Bucket(secure.spec("s3://lab")).get("k")


@pytest.mark.fault(48)
def test_a_certificate_for_another_host_is_refused(
    secure: MotoServer, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate.file))
    spec = replace(secure.spec("s3://lab"), endpoint=secure.url.replace("127.0.0.1", "localhost"))
    with pytest.raises(UnavailableError, match="secure connection"):
        Bucket(spec).get("k")


@dataclass
class ProxyServer:
    """A proxy that may want a user, or answer an `error`; all ways through it lead to `upstream`."""

    upstream: str
    user: str = ""
    error: bytes = b""
    asked: list[bytes] = field(default_factory=list)

    def __enter__(self) -> ProxyServer:  # noqa: PYI034  `Self` came with Python 3.11
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := client.recv(1 << 16)):
                    return
                head += data
            self.asked.append(head.split(b"\r\n")[0])
            expected = base64.b64encode(self.user.encode())
            if self.user and b"Proxy-Authorization: Basic " + expected not in head:
                self.error = b"HTTP/1.1 407 Who are you?\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            if self.error:
                client.sendall(self.error)
                return
            to = urlsplit(self.upstream)
            assert to.hostname
            assert to.port
            with socket.create_connection((to.hostname, to.port)) as server:
                if head.startswith(b"CONNECT"):
                    client.sendall(b"HTTP/1.1 200 Here you are\r\n\r\n")
                else:
                    server.sendall(head)
                back = threading.Thread(target=_relay, args=(server, client))
                back.start()
                _relay(client, server)
                back.join()


def _relay(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def test_a_proxy_is_asked_for_http(rclone: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    direct = Bucket(rclone.spec("s3://lab"))
    direct.put("by proxy", b"x")
    with ProxyServer(rclone.url, user="me:p@ss word") as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:p%40ss%20word@127.0.0.1:{proxy.port}")
        spec = replace(rclone.spec("s3://lab"), endpoint="http://s3.lab.example")
        assert Bucket(spec).get("by proxy").all(9) == b"x"
        assert proxy.asked == [b"GET http://s3.lab.example/lab/by%20proxy HTTP/1.1"]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert Bucket(rclone.spec("s3://lab")).get("by proxy").all(9) == b"x"
        assert len(proxy.asked) == 1


def test_a_proxy_leads_to_https(
    secure: MotoServer, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate.file))
    with ProxyServer(secure.url, user="me:pw") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:pw@127.0.0.1:{proxy.port}")
        bucket = Bucket(secure.spec("s3://lab"))
        bucket.put("k", b"x")
        assert bucket.get("k").all(9) == b"x"
        assert proxy.asked[0] == f"CONNECT {urlsplit(secure.url).netloc} HTTP/1.1".encode()
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:other@127.0.0.1:{proxy.port}")
        with pytest.raises(NotAllowedError, match="proxy") as caught:
            Bucket(secure.spec("s3://lab")).get("k")
        assert "other" not in f"{caught.value.what}{caught.value.hint}"


@pytest.mark.parametrize(
    "error", [b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0\r\n\r\n", b"HTTP"]
)
def test_a_proxy_that_cannot_connect_is_named(
    secure: MotoServer, monkeypatch: pytest.MonkeyPatch, error: bytes
) -> None:
    with ProxyServer(secure.url, error=error) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(UnavailableError, match="proxy"):
            Bucket(secure.spec("s3://lab")).get("k")


def test_a_proxy_that_is_not_there_is_named(secure: MotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(UnavailableError, match="proxy"):
            Bucket(secure.spec("s3://lab")).get("k")
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(InvalidError, match="proxy"):
        Bucket(secure.spec("s3://lab")).get("k")


# Amazon, whose servers are behind a proxy of ours.


@pytest.fixture
def amazon(
    secure: MotoServer, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ProxyServer]:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate.file))
    with ProxyServer(secure.url) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        yield proxy


def test_amazon_gets_checksums_and_no_md5(secure: MotoServer, amazon: ProxyServer) -> None:
    bucket = Bucket(MirrorSpec("s3://lab/amazon"))
    assert bucket.is_aws
    bucket.put("k", DATA, IF_ABSENT)
    upload = bucket.start_upload("parts")
    assert bucket.complete(upload, parts_of(bucket, upload, PIECES), WHOLE, IF_ABSENT)
    put, start, *parts, complete = secure.app.log
    assert put.headers["host"] == "lab.s3.us-east-1.amazonaws.com"
    assert put.path == "/amazon/k"
    digest = hashlib.sha256(DATA)
    assert put.headers["x-amz-content-sha256"] == digest.hexdigest()
    assert put.headers["x-amz-checksum-sha256"] == base64.b64encode(digest.digest()).decode()
    assert start.headers["x-amz-checksum-algorithm"] == "CRC32"
    for seen, piece in zip(parts, PIECES, strict=True):
        crc32 = base64.b64encode(zlib.crc32(piece).to_bytes(4, "big")).decode()
        assert seen.headers["x-amz-checksum-crc32"] == crc32
        assert seen.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert complete.headers["x-amz-mp-object-size"] == str(WHOLE.size)
    assert complete.headers["x-amz-checksum-type"] == "FULL_OBJECT"
    assert not any("content-md5" in seen.headers for seen in secure.app.log)
    assert set(amazon.asked) == {b"CONNECT lab.s3.us-east-1.amazonaws.com:443 HTTP/1.1"}


@pytest.mark.fault(56)
@pytest.mark.parametrize(
    ("method", "status", "code", "headers"),
    [
        ("GET", 301, "PermanentRedirect", {"x-amz-bucket-region": "eu-west-1"}),
        ("HEAD", 301, "", {"x-amz-bucket-region": "eu-west-1"}),
        ("PUT", 307, "TemporaryRedirect", {"x-amz-bucket-region": "eu-west-1"}),
        ("GET", 400, "AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region><Code>", {}),
    ],
)
def test_a_bucket_in_another_region_is_found_there(
    secure: MotoServer, amazon: ProxyServer, method: str, status: int, code: str, headers: dict[str, str]
) -> None:
    bucket = Bucket(MirrorSpec("s3://lab/moved"))
    bucket.put("k", b"x")
    secure.app.faults.append(Fault(method, status=status, code=code, headers=headers))
    calls = {"GET": lambda: bucket.get("k").all(9), "HEAD": lambda: bucket.size("k")}
    calls.get(method, lambda: bucket.put("k", b"x"))()
    assert bucket.get("k").all(9) == b"x"
    hosts = [seen.headers["host"].split(".")[2] for seen in secure.app.log]
    assert hosts == ["us-east-1", "us-east-1", "eu-west-1", "eu-west-1"]
    assert "/eu-west-1/s3/" in secure.app.log[-1].headers["authorization"]


def test_a_bucket_that_is_nowhere_is_not_looked_for_twice(secure: MotoServer, amazon: ProxyServer) -> None:
    for region in ("eu-west-1", "us-east-1"):
        headers = {"x-amz-bucket-region": region}
        secure.app.faults.append(Fault("GET", status=301, code="PermanentRedirect", headers=headers))
    with pytest.raises(NotFoundError, match="region"):
        Bucket(MirrorSpec("s3://lab")).get("k")
    assert len(secure.app.log) == 2
