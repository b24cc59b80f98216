"""Requests as they fail: what is sent again, what is not, and which connections are used again."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from typing import BinaryIO

import pytest

from labsync.errors import InvalidError, NotAllowedError, NotFoundError, UnavailableError
from labsync.manifest.model import MirrorSpec
from labsync.mirrors import s3_client
from labsync.mirrors.s3_bucket import IF_ABSENT, Bucket
from labsync.mirrors.s3_dial import Pool, Server
from labsync.report import MirrorRequests


def head(*lines: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1")


def sized(body: bytes, *lines: str, status: str = "200 OK") -> bytes:
    return head(f"Content-Length: {len(body)}", *lines, status=status) + body


@dataclass
class Script:
    """A server that sends one answer per request; each inner list is what one connection gets.

    After its answers a connection is closed. `early` closes before the request was read to its end.
    """

    connections: list[list[bytes]]
    early: bool = False
    requests: list[bytes] = field(default_factory=list)
    port: int = 0

    def __enter__(self) -> Script:  # noqa: PYI034  `Self` came with Python 3.11
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open = self._listener
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._listener, self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        for answers in self.connections:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open = sock
            with sock, contextlib.suppress(OSError), sock.makefile("rb") as file:
                for text in answers:
                    self.requests.append(self._request(file))
                    sock.sendall(text)

    def _request(self, file: BinaryIO) -> bytes:
        got = b""
        while not got.endswith(b"\r\n\r\n"):
            line = file.readline()
            if not line:
                raise OSError
            got += line
        length = next(
            (int(line.split(b":")[1]) for line in got.split(b"\r\n") if line.startswith(b"content-length:")),
            0,
        )
        return got if self.early else got + file.read(length)

    def bucket(self) -> Bucket:
        return Bucket(MirrorSpec("s3://lab", endpoint=f"http://127.0.0.1:{self.port}"))


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(s3_client, "PAUSE", 0.0)


OK = sized(b"data", 'ETag: "1"')
ETAG = sized(b"", 'ETag: "1"')


def test_a_connection_serves_many_requests() -> None:
    with Script([[OK, OK, ETAG, head("Content-Length: 7")]]) as server:
        bucket = server.bucket()
        assert [bucket.get("k").all(9), bucket.get("k").all(9)] == [b"data"] * 2
        assert bucket.put("k", b"x") == "1"
        assert bucket.size("k") == 7


def test_a_connection_whose_body_was_left_is_not_used_again() -> None:
    with Script([[OK], [OK], [OK]]) as server:
        bucket = server.bucket()
        bucket.get("k").close()
        blocks = bucket.get("k").blocks()
        next(blocks)
        blocks.close()
        assert bucket.get("k").all(9) == b"data"


@pytest.mark.parametrize(
    "unfit",
    [
        sized(b"data", "Connection: close"),
        head() + b"data",
        sized(b"data").replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=["close", "to the end", "HTTP/1.0"],
)
def test_a_connection_that_the_server_will_close_is_not_used_again(unfit: bytes) -> None:
    with Script([[unfit], [OK]]) as server:
        bucket = server.bucket()
        assert [bucket.get("k").all(9), bucket.get("k").all(9)] == [b"data"] * 2
        assert bucket.requests.value() == MirrorRequests(GET=2)


CALLS = {
    "GET": lambda bucket: bucket.get("k").all(9),
    "HEAD": lambda bucket: bucket.size("k"),
    "PUT": lambda bucket: bucket.put("k", b"x" * 100_000),
}


@pytest.mark.parametrize("method", CALLS)
def test_a_connection_that_was_closed_meanwhile_is_replaced(method: str) -> None:
    last = {"GET": OK, "HEAD": head("Content-Length: 4"), "PUT": ETAG}[method]
    with Script([[OK], [last]]) as server:
        bucket = server.bucket()
        bucket.get("first").all(9)
        assert CALLS[method](bucket) in {b"data", 4, "1"}
        total = bucket.requests.value()
        assert total.GET + total.HEAD + total.PUT == 3  # each one that is sent counts
        assert method.encode() in server.requests[-1]


@pytest.mark.fault(11)
def test_several_connections_that_were_closed_meanwhile_are_no_failure() -> None:
    with Script([[OK], [OK], [OK]]) as server:
        bucket = server.bucket()
        bodies = [bucket.get("k"), bucket.get("k")]
        assert [body.all(9) for body in bodies] == [b"data"] * 2
        assert bucket.get("k").all(9) == b"data"


def test_a_server_that_never_answers_is_asked_twice() -> None:
    with Script([[b""], [b""], [OK]]) as server:
        bucket = server.bucket()
        with pytest.raises(UnavailableError, match="broke"):
            bucket.get("k")
        assert len(server.requests) == 2
        assert bucket.get("k").all(9) == b"data"


def test_half_an_answer_is_not_asked_for_again() -> None:
    with Script([[OK[:10]], [OK]]) as server:
        bucket = server.bucket()
        with pytest.raises(UnavailableError, match="broke"):
            bucket.put("k", b"x", IF_ABSENT)
        assert len(server.requests) == 1


def test_a_cut_object_is_unavailable() -> None:
    with Script([[OK[:-1]], [OK]]) as server:
        bucket = server.bucket()
        body = bucket.get("k")
        assert body.length == 4
        with pytest.raises(UnavailableError, match="broke"):
            body.all(9)
        assert bucket.get("k").all(9) == b"data"


def test_an_object_too_large_for_a_record_is_refused() -> None:
    with Script([[OK], [OK]]) as server:
        bucket = server.bucket()
        with pytest.raises(InvalidError):
            bucket.get("k").all(3)
        assert bucket.get("k").all(4) == b"data"


@pytest.mark.fault(49)
@pytest.mark.parametrize("status", ["500 Oops", "502 Bad Gateway", "503 Slow Down", "429 Too Many"])
def test_what_the_server_cannot_answer_now_is_asked_once_more(status: str) -> None:
    with Script([[sized(b"", status=status), OK]]) as server:
        assert server.bucket().get("k").all(9) == b"data"
    with Script([[sized(b"", status=status)] * 2]) as server, pytest.raises(UnavailableError):
        server.bucket().get("k")
    later = sized(b"", "Retry-After: 9", status=status)
    with Script([[later, OK]]) as server, pytest.raises(UnavailableError) as caught:
        server.bucket().get("k")
    assert caught.value.retry_after == 9


def test_bytes_that_have_to_go_out_again_are_taken_back() -> None:
    busy = sized(b"", status="503 Slow Down")
    data = bytes(300_000)
    for connections in ([[busy, ETAG]], [[b""], [ETAG]]):
        told = list[int]()
        with Script(connections) as server:
            assert server.bucket().put("k", data, sent=told.append) == "1"
        assert told == [1 << 18, 300_000 - (1 << 18), -300_000, 1 << 18, 300_000 - (1 << 18)]
    told = []
    with Script([[busy, busy]]) as server, pytest.raises(UnavailableError):
        server.bucket().put("k", data, sent=told.append)
    assert sum(told) == 0


def test_a_refusal_before_all_was_sent_is_heard() -> None:
    """A server may say no to a large body without reading it."""
    refused = sized(b"<Error><Code>AccessDenied</Code></Error>", status="403 Forbidden")
    with Script([[refused], [OK]], early=True) as server:
        bucket = server.bucket()
        with pytest.raises(NotAllowedError, match="AccessDenied"):
            bucket.put("k", bytes(16 << 20))
        assert bucket.get("k").all(9) == b"data"
        assert bucket.requests.value() == MirrorRequests(PUT=1, GET=1)


def test_who_hears_of_progress_may_stop_it() -> None:
    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with Script([[OK], [OK]], early=True) as server:
        bucket = server.bucket()
        with pytest.raises(KeyboardInterrupt):
            bucket.put("k", bytes(1 << 20), sent=stop)
        assert bucket.get("k").all(9) == b"data"  # on a connection of its own


def test_a_header_cannot_be_smuggled_in() -> None:
    with Script([[OK]]) as server:
        server.bucket().get("a b\r\nx-evil: 1?#%").all(9)
        assert server.requests[0].startswith(b"GET /lab/a%20b%0D%0Ax-evil%3A%201%3F%23%25 HTTP/1.1\r\n")


@pytest.mark.fault(11)
def test_a_connection_that_ended_while_it_was_idle_is_not_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pool = Pool(Server("http", "127.0.0.1", listener.getsockname()[1]))
        first = pool.take()
        far, _ = listener.accept()
        pool.give(first)
        first.idle_since -= 60
        assert pool.take() is first
        pool.give(first)
        first.idle_since -= 60
        far.close()
        second = pool.take()
        assert second is not first
        second.close()


@pytest.mark.parametrize(
    ("url", "name", "authority"),
    [
        ("https://host", "host", "host:443"),
        ("http://host:80/x", "host", "host:80"),
        ("https://Host:80", "host:80", "host:80"),
        ("http://[::1]:9000", "[::1]:9000", "[::1]:9000"),
        ("https://[fe80::1]", "[fe80::1]", "[fe80::1]:443"),
    ],
)
def test_a_server_has_a_name(url: str, name: str, authority: str) -> None:
    server = Server.of(url)
    assert (server.name, server.authority) == (name, authority)


PAGE = b"<!DOCTYPE html><html><body>Not here</body></html>"


@pytest.mark.fault(47)
@pytest.mark.parametrize("status", ["200 OK", "302 Found", "400 Bad Request", "404 Not Found", "405 No"])
@pytest.mark.parametrize("body", [PAGE, b"<html><p>cut", b"404 page not found"], ids=["page", "cut", "text"])
def test_what_is_no_s3_server_is_called_so_and_never_an_empty_mirror(status: str, body: bytes) -> None:
    with Script([[sized(body, status=status)]]) as server, pytest.raises(NotFoundError) as caught:
        list(server.bucket().listing(".labsync/heads/", 1000))
    error = caught.value
    assert "no S3 server" in error.what
    assert "empty mirror" in error.safe
    assert "`endpoint:`" in error.hint
    assert "bucket" in error.hint


@pytest.mark.parametrize(
    "body", [b"", b"<?xml version='1.0'?><ListBucketRes", b"<Error><Code>InternalError</Code></Error>"]
)
def test_a_cut_listing_is_s3s_own_and_asked_for_again(body: bytes) -> None:
    with Script([[sized(body)]]) as server, pytest.raises(UnavailableError, match="not consistent"):
        list(server.bucket().listing(".labsync/heads/", 1000))


def test_tls_to_a_port_without_it_is_told_of_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(1 << 16)
                sock.sendall(sized(PAGE, status="400 Bad Request"))

        thread = threading.Thread(target=answer)
        thread.start()
        port = listener.getsockname()[1]
        with pytest.raises(UnavailableError, match="secure connection") as caught:
            Bucket(MirrorSpec("s3://lab", endpoint=f"https://127.0.0.1:{port}")).get("k")
        thread.join()
    assert "`http://`" in caught.value.hint
