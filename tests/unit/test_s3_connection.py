"""Connections as they fail: what a server may send, cut, trickle or never send."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labsync.errors import UnavailableError
from labsync.mirrors.s3_connection import BUFFER, MAX_HEAD, Connection, Failed
from labsync.stall import WINDOW

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = bytes(range(256)) * 40


def head(*lines: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1")


def sized(body: bytes, *lines: str, status: str = "200 OK") -> bytes:
    return head(f"Content-Length: {len(body)}", *lines, status=status) + body


def chunked(body: bytes, size: int) -> bytes:
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


# One connection, whose other end is in our hands.


@pytest.fixture
def ends() -> Iterator[tuple[Connection, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield Connection(near, silence=0.05), far


def unwatched(count: int) -> None:
    pass


def answer(connection: Connection, method: str = "GET") -> tuple[int, bytes]:
    got = connection.head(method, unwatched)
    return got.status, b"".join(bytes(block) for block in connection.body(got, unwatched))


@contextlib.contextmanager
def fed(data: bytes, *, cut: bool = True) -> Iterator[Connection]:
    """Give a connection on which `data` comes in, and then the end of the stream if `cut`."""
    near, far = socket.socketpair()
    with near, far:

        def feed() -> None:
            with contextlib.suppress(OSError):
                far.sendall(data)
                if cut:
                    far.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=feed)
        thread.start()
        try:
            yield Connection(near, silence=0.05 if not cut else 30)
        finally:
            near.close()
            far.close()
            thread.join()


@pytest.mark.parametrize(
    ("sent", "status", "body"),
    [
        (sized(DATA), 200, DATA),
        (sized(b""), 200, b""),
        (sized(DATA * 200), 200, DATA * 200),
        (head("Transfer-Encoding: chunked") + chunked(DATA, 1000), 200, DATA),
        (head("Transfer-Encoding: chunked") + chunked(DATA * 200, 70_000), 200, DATA * 200),
        (head("Transfer-Encoding: chunked") + b"3;name=x\r\nabc\r\n0\r\nTrailer: 1\r\n\r\n", 200, b"abc"),
        (head("Connection: close") + DATA, 200, DATA),
        (head(status="100 Continue") + head(status="103 Early Hints") + sized(DATA), 200, DATA),
        (head(status="204 No Content"), 204, b""),
        (sized(b"<Error/>", status="404 Not Found"), 404, b"<Error/>"),
        (b"HTTP/1.1 200\r\ncontent-length:1\r\n\r\nx", 200, b"x"),
    ],
    ids=[
        "small", "empty", "large", "chunks", "large chunks", "extensions and trailers", "to the end",
        "interim answers", "no content", "an error", "no reason phrase",
    ],
)  # fmt: skip
def test_every_form_of_body_is_read(sent: bytes, status: int, body: bytes) -> None:
    with fed(sent) as connection:
        assert answer(connection) == (status, body)


def test_the_answer_to_a_head_request_has_no_body() -> None:
    with fed(head("Content-Length: 5") + sized(b"next")) as connection:
        got = connection.head("HEAD", unwatched)
        assert got.headers["content-length"] == "5"
        assert list(connection.body(got, unwatched)) == []
        assert answer(connection) == (200, b"next")


@settings(deadline=None)
@given(body=st.binary(max_size=300), size=st.integers(1, 40), splits=st.lists(st.integers(0, 400)))
def test_however_the_bytes_are_split_the_body_is_the_same(body: bytes, size: int, splits: list[int]) -> None:
    whole = head("Transfer-Encoding: chunked") + chunked(body, size) + sized(body) + head() + body
    stops = [0, *sorted(splits), len(whole)]
    pieces = [whole[start:stop] for start, stop in itertools.pairwise(stops) if start < stop]
    connection = Connection(Pieces(pieces))  # type: ignore[arg-type]  # no socket splits so exactly
    assert [answer(connection) for _ in range(3)] == [(200, body)] * 3


class Pieces:
    """A socket that gives one piece at a time."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def recv_into(self, view: memoryview, count: int, flags: int) -> int:
        if not self._pieces:
            return 0
        piece = self._pieces.pop(0)
        if len(piece) > len(view):
            self._pieces.insert(0, piece[len(view) :])
        count = min(len(piece), len(view))
        view[:count] = piece[:count]
        return count

    def settimeout(self, seconds: float | None) -> None:
        pass


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        head("Content-Length: -1"),
        head("Content-Length: 1", "Content-Length: 2"),
        head("Content-Length: ²"),
        head("Transfer-Encoding: gzip, chunked"),
        head("no colon"),
        head("Name: value", " folded: line"),
        head("Transfer-Encoding: chunked") + b"zz\r\n",
        head("Transfer-Encoding: chunked") + b"-5\r\nhello\r\n0\r\n\r\n",
        head("Transfer-Encoding: chunked") + b"3\r\nhello\r\n0\r\n\r\n",
        head("Transfer-Encoding: chunked") + b"5" * 5000,
        head(f"X: {'x' * MAX_HEAD}", "Y: y") + b"x",
        head(*[f"X{number}: {'x' * 1000}" for number in range(200)]),
        head(status="100 Continue") * 20,
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused(sent: bytes) -> None:
    with fed(sent) as connection, pytest.raises(Failed) as caught:
        answer(connection)
    assert (caught.value.kind, caught.value.heard) == ("garbled", True)


@pytest.mark.parametrize("size", [MAX_HEAD + 100, BUFFER * 2])
def test_a_head_without_an_end_is_refused_early(size: int) -> None:
    with fed(b"HTTP/1.1 200 OK\r\nX: " + b"x" * size, cut=False) as connection:
        with pytest.raises(Failed) as caught:
            connection.head("GET", unwatched)
        assert caught.value.kind == "garbled"


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (sized(DATA)[: -len(DATA)], DATA[:-1]),
        (sized(DATA * 200)[: -len(DATA * 200)], (DATA * 200)[:-1]),
        (head("Transfer-Encoding: chunked") + b"100\r\n", DATA[:100]),
    ],
    ids=["small", "large", "chunk"],
)
def test_a_cut_body_gives_what_came_and_fails(framing: bytes, body: bytes) -> None:
    came = b""
    with fed(framing + body) as connection:
        got = connection.head("GET", unwatched)
        with pytest.raises(Failed) as caught:  # noqa: PT012  what came before the failure counts
            for block in connection.body(got, unwatched):
                came += block
    assert caught.value.kind == "broken"
    assert came == body


@pytest.mark.fault(46)
@pytest.mark.parametrize(
    ("sent", "heard"),
    [(b"", False), (b"HTTP/1.1 2", True), (sized(DATA)[:-1], True)],
    ids=["nothing", "half a head", "half a body"],
)
def test_a_silent_server_is_noticed(sent: bytes, heard: bool) -> None:
    with fed(sent, cut=False) as connection, pytest.raises(Failed) as caught:
        answer(connection)
    assert (caught.value.kind, caught.value.heard) == ("silent", heard)


class Kernel:
    """A plain socket as Linux has it: a call that has to wait for all waits its whole time, at most.

    After `data` no byte comes, and after `takes` bytes none is taken. `time` is spent by waiting alone.
    """

    def __init__(self, data: bytes = b"", takes: int = 1 << 30) -> None:
        self.data, self.takes, self.time, self._glance = data, takes, 0.0, 0.0

    def recv_into(self, view: memoryview, count: int, flags: int) -> int:
        count = min(len(view), len(self.data))
        view[:count], self.data = self.data[:count], self.data[count:]
        return self._moved(count, not count or (flags & socket.MSG_WAITALL and count < len(view)))

    def send(self, data: bytes) -> int:
        count = min(len(data), self.takes)
        self.takes -= count
        return self._moved(count, count < len(data))

    def _moved(self, count: int, waits: object) -> int:
        if waits:
            self.time += self._glance
        if not count:
            raise BlockingIOError
        return count

    def settimeout(self, seconds: float | None) -> None:
        self._glance = seconds or 0.0

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        seconds, micro = struct.unpack("ll", value)
        self._glance = seconds + micro / 1_000_000


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "tls"])
@pytest.mark.parametrize("size", [0, 10_000, 70_000, 700_000, BUFFER, 2 * BUFFER - 1])
@pytest.mark.parametrize("length", [60_000, 4 << 20], ids=["small", "large"])
def test_a_silence_is_noticed_when_it_has_lasted_so_long_wherever_it_begins(
    monkeypatch: pytest.MonkeyPatch, plain: bool, size: int, length: int
) -> None:
    kernel = Kernel(head(f"Content-Length: {length}") + bytes(min(size, length - 1)))
    if plain:
        monkeypatch.setattr(socket, "socket", Kernel)
    connection = Connection(kernel, silence=30.0, now=lambda: kernel.time)  # type: ignore[arg-type]
    with pytest.raises(Failed) as caught:
        answer(connection)
    assert (caught.value.kind, caught.value.heard) == ("silent", True)
    assert 30 <= kernel.time <= 40


@pytest.mark.parametrize("takes", [0, 100, 300_000])
def test_a_server_that_takes_no_more_is_noticed_as_soon(takes: int) -> None:
    kernel = Kernel(takes=takes)
    connection = Connection(kernel, silence=30.0, now=lambda: kernel.time)  # type: ignore[arg-type]
    with pytest.raises(Failed) as caught:
        connection.send(b"PUT", bytes(1 << 20), unwatched, None)
    assert (caught.value.kind, caught.value.heard) == ("silent", False)
    assert 30 <= kernel.time <= 40


def test_an_end_before_an_answer_was_not_heard() -> None:
    with fed(b"") as connection, pytest.raises(Failed) as caught:
        connection.head("GET", unwatched)
    assert (caught.value.kind, caught.value.heard) == ("broken", False)


def test_a_server_that_takes_nothing_is_noticed(ends: tuple[Connection, socket.socket]) -> None:
    connection, _ = ends
    with pytest.raises(Failed) as caught:
        connection.send(b"PUT", bytes(64 << 20), unwatched, None)
    assert caught.value.kind == "silent"


def test_blocks_are_small_and_reuse_their_memory() -> None:
    with fed(sized(DATA * 200)) as connection:
        got = connection.head("GET", unwatched)
        sizes = [len(block) for block in connection.body(got, unwatched)]
    assert max(sizes) <= 1 << 20
    assert sum(sizes) == len(DATA) * 200


class Trickle(Pieces):
    """A socket that takes ten seconds for each byte."""

    def __init__(self, data: bytes) -> None:
        super().__init__([data[at : at + 1] for at in range(len(data))])
        self.time = 0.0

    def recv_into(self, view: memoryview, count: int, flags: int) -> int:
        self.time += 10
        return super().recv_into(view, count, flags)


@pytest.mark.fault(46)
@pytest.mark.parametrize("already", [0, len(head("Content-Length: 100"))], ids=["head", "body"])
def test_a_trickle_is_a_stall(already: int) -> None:
    trickle = Trickle(sized(bytes(100))[already:])
    if already:
        trickle._pieces.insert(0, sized(bytes(100))[:already])
    connection = Connection(trickle, now=lambda: trickle.time)  # type: ignore[arg-type]
    saw = connection.watch("the server")
    with pytest.raises(UnavailableError, match="the server stalled"):
        b"".join(connection.body(connection.head("GET", saw), saw))
    assert trickle.time <= WINDOW + 20


def test_a_slow_disk_is_no_stall() -> None:
    pieces = Pieces([head("Connection: close"), *[b"1"] * 10])
    time = [0.0]
    connection = Connection(pieces, now=lambda: time[0])  # type: ignore[arg-type]
    saw = connection.watch("the server")
    total = 0
    for block in connection.body(connection.head("GET", saw), saw):
        total += len(block)
        time[0] += WINDOW  # what takes long is writing the block
    assert total == 10


# Sending.


@pytest.mark.parametrize("size", [0, 1, 64 << 10, (64 << 10) + 1, 3 << 20])
def test_what_is_sent_arrives_and_is_told(size: int) -> None:
    near, far = socket.socketpair()
    got, told = bytearray(), list[int]()

    def take() -> None:
        while data := far.recv(1 << 16):
            got.extend(data)

    with near, far:
        thread = threading.Thread(target=take)
        thread.start()
        connection = Connection(near)
        body = (DATA * (size // len(DATA) + 1))[:size]
        connection.send(b"HEAD", memoryview(body), unwatched, told.append)
        connection.close()
        thread.join()
    assert bytes(got) == b"HEAD" + body
    assert sum(told) == size
    assert all(0 < count <= 256 << 10 for count in told)
