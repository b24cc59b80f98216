"""The HTTP reader against a real server that fails in every way."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
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
from labsync.origins.http import HttpReader
from labsync.origins.http_errors import Answer, bare, status_error
from labsync.places import NoRangesError
from labsync.snapshot import FileEntry
from tests.fakes.http_client import DATA, ENTRY, SIZE, UNKNOWN, Client
from tests.fakes.http_faults import Fault, FileServer, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.server import BaseHTTPRequestHandler


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer({"/f.bin": DATA, "/empty": b"", "/page.html": b"<html>"}) as server:
        yield server


@pytest.fixture
def url(server: FileServer) -> str:
    return f"{server.url}/f.bin"


@pytest.fixture
def client() -> Client:
    return Client()


def ranges(server: FileServer) -> list[str]:
    return [request.headers.get("range", "") for request in server.requests]


def test_nothing_is_asked_before_the_first_block_is(server: FileServer, client: Client, url: str) -> None:
    blocks = client.reader.read(url, ENTRY)
    assert not server.requests
    next(blocks)
    assert len(server.requests) == 1
    blocks.close()


def test_only_a_part_is_asked_for_by_a_range(server: FileServer, client: Client, url: str) -> None:
    for start, stop in ((0, None), (0, SIZE), (0, 10), (5, None), (5, 6), (SIZE - 1, SIZE)):
        assert client.read(url, start=start, stop=stop) == DATA[start:stop]
    last = SIZE - 1
    assert ranges(server) == ["", "", "bytes=0-9", f"bytes=5-{last}", "bytes=5-5", f"bytes={last}-{last}"]


def test_parts_read_at_once_are_the_file(server: FileServer, client: Client, url: str) -> None:
    spans = [(at, min(at + 100_000, SIZE)) for at in range(0, SIZE, 100_000)]

    def read(span: tuple[int, int]) -> bytes:
        return b"".join(map(bytes, client.reader.read(url, ENTRY, *span)))

    with ThreadPoolExecutor(8) as pool:
        assert b"".join(pool.map(read, spans)) == DATA
    assert len(server.requests) == len(spans)


def test_nothing_is_asked_for_an_empty_part_but_an_empty_file_must_be_there(
    server: FileServer, client: Client, url: str
) -> None:
    for start, stop in ((SIZE, None), (SIZE, SIZE), (3, 3)):
        assert client.read(url, start=start, stop=stop) == b""
    assert not server.requests
    assert client.read(f"{server.url}/empty", FileEntry("empty", "", 0)) == b""
    with pytest.raises(NotFoundError):
        client.read(f"{server.url}/gone", FileEntry("gone", "", 0))


@pytest.mark.fault(40)
@pytest.mark.parametrize("cut", [0, 1, 65_536, SIZE // 2, SIZE - 1])
def test_a_cut_connection_loses_no_byte_that_had_arrived(
    server: FileServer, client: Client, url: str, cut: int
) -> None:
    server.fault(Fault("/f.bin", cut_after=cut, times=1))
    with pytest.raises(UnavailableError):
        client.read(url)
    assert client.got == DATA[:cut]
    assert client.read(url, start=cut) == DATA[cut:]
    assert ranges(server)[-1] == (f"bytes={cut}-{SIZE - 1}" if cut else "")


def test_a_part_that_is_cut_loses_no_byte_that_had_arrived(
    server: FileServer, client: Client, url: str
) -> None:
    server.fault(Fault("/f.bin", cut_after=500, times=1))
    with pytest.raises(UnavailableError):
        client.read(url, start=1000, stop=2000)
    assert client.got == DATA[1000:1500]


@pytest.mark.fault(45)
@pytest.mark.parametrize("start", [0, 5000])
def test_no_compression_is_asked_for_and_none_accepted(
    server: FileServer, client: Client, url: str, start: int
) -> None:
    server.fault(Fault("/f.bin", gzip=True))
    with pytest.raises(UnavailableError, match="compressed"):
        client.read(url, start=start)
    assert server.requests[-1].headers["accept-encoding"] == "identity"
    assert not client.got


@pytest.mark.fault(41)
def test_a_body_without_length_that_ends_early_is_not_accepted(
    server: FileServer, client: Client, url: str
) -> None:
    server.fault(Fault("/f.bin", no_length=True, short=True))
    with pytest.raises(UnavailableError, match="too early"):
        client.read(url)
    assert client.got == DATA[:-1]


def test_a_body_without_length_that_does_not_end_is_cut_off(
    server: FileServer, client: Client, url: str
) -> None:
    server.fault(Fault("/f.bin", no_length=True, long=True))
    with pytest.raises(IntegrityError, match="more bytes"):
        client.read(url)
    assert len(client.got) <= SIZE


@pytest.mark.fault(41)
@pytest.mark.parametrize("start", [0, 5000])
@pytest.mark.parametrize("fault", [Fault("/f.bin", short=True), Fault("/f.bin", long=True)])
def test_another_length_is_refused_before_the_first_byte(
    server: FileServer, client: Client, url: str, fault: Fault, start: int
) -> None:
    server.fault(fault)
    with pytest.raises(IntegrityError, match="were expected") as caught:
        client.read(url, start=start)
    assert "lock --upgrade" in caught.value.hint
    assert not client.got


@pytest.mark.fault(44)
def test_a_server_that_ignores_ranges_is_told_and_gives_the_whole(
    server: FileServer, client: Client, url: str
) -> None:
    server.fault(Fault("/f.bin", no_range=True))
    for start, stop in ((5000, None), (0, 5000), (10, 20)):
        with pytest.raises(NoRangesError):
            client.read(url, start=start, stop=stop)
        assert not client.got
    assert client.read(url) == DATA
    server.fault(Fault("/f.bin", no_range=True, no_length=True))
    with pytest.raises(NoRangesError):
        client.read(url, start=5000)


def test_the_right_range_may_be_labelled_as_the_whole(server: FileServer, client: Client, url: str) -> None:
    server.fault(Fault("/f.bin", relabelled=True))
    assert client.read(url, start=5000, stop=6000) == DATA[5000:6000]
    assert client.read(url, start=5000) == DATA[5000:]


@pytest.mark.fault(45)
def test_a_wrong_range_is_refused(server: FileServer, client: Client, url: str) -> None:
    server.fault(Fault("/f.bin", wrong_range=True))
    with pytest.raises(UnavailableError, match="another range"):
        client.read(url, start=5000)
    assert not client.got


def test_a_range_behind_the_end_of_a_file_that_became_shorter(server: FileServer, client: Client) -> None:
    server.files["/f.bin"] = DATA[:1000]
    with pytest.raises(IntegrityError, match="has 1000 bytes") as caught:
        client.read(f"{server.url}/f.bin", start=5000)
    assert "lock --upgrade" in caught.value.hint


def test_416_does_not_loop(server: FileServer, client: Client, url: str) -> None:
    server.fault(Fault("/f.bin", status=416))
    for start in (0, 5000):
        with pytest.raises(UnavailableError, match="416"):
            client.read(url, start=start)
    assert len(server.requests) == 2


@pytest.mark.fault(47)
def test_a_sign_in_page_is_never_taken_for_a_file(server: FileServer, client: Client) -> None:
    server.fault(Fault("*", html=True))
    for entry in (ENTRY, UNKNOWN):
        with pytest.raises(UnavailableError, match="web page") as caught:
            client.read(f"{server.url}/f.bin", entry)
        assert "sign in" in caught.value.hint
    with pytest.raises(UnavailableError, match="web page"):
        HttpReader().look_at(f"{server.url}/f.bin")
    assert not client.got


def test_a_page_that_is_the_file_is_taken(server: FileServer, client: Client) -> None:
    server.fault(Fault("/page.html", headers={"Content-Type": "text/html"}))
    client.read(f"{server.url}/page.html", FileEntry("page.html", "", 6))
    assert client.got == b"<html>"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, UnavailableError), (401, NotAllowedError), (403, NotAllowedError), (404, NotFoundError),
        (408, UnavailableError), (410, NotFoundError), (429, UnavailableError), (500, UnavailableError),
        (502, UnavailableError), (503, UnavailableError), (504, UnavailableError), (599, UnavailableError),
        (204, UnavailableError), (304, UnavailableError),
    ],
)  # fmt: skip
def test_each_status_has_its_error(
    server: FileServer, client: Client, status: int, kind: type[LabsyncError]
) -> None:
    server.fault(Fault("/f.bin", status=status))
    with pytest.raises(LabsyncError) as caught:
        client.read(f"{server.url}/f.bin")
    assert type(caught.value) is kind
    with pytest.raises(kind):
        HttpReader().look_at(f"{server.url}/f.bin")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}, 55.0),
        ({"RateLimit": '"api";r=3;t=55'}, 0.0),
        ({"RateLimit": '"api";r=3;t=9, "resolvers";r=0;t=55, "pages";r=0;t=7'}, 55.0),
        ({}, 0.0),
    ],
)
def test_the_server_says_how_long_to_wait(
    server: FileServer, client: Client, headers: dict[str, str], seconds: float
) -> None:
    server.fault(Fault("/f.bin", status=429, headers=headers))
    with pytest.raises(UnavailableError) as caught:
        client.read(f"{server.url}/f.bin")
    assert caught.value.retry_after == seconds


def test_no_secret_of_the_address_is_in_a_message(server: FileServer, client: Client) -> None:
    secret = f"{server.url.replace('//', '//user:pass@')}/f.bin?X-Amz-Signature=sig#fragment"
    server.fault(Fault("*", status=403, times=1))
    server.fault(Fault("*", gzip=True, times=1))
    server.fault(Fault("*", html=True, times=1))
    server.fault(Fault("*", cut_after=-1, times=2))
    server.fault(Fault("*", redirect="ftp://user:pass@there/?X-Amz-Signature=sig", times=1))
    for _ in range(5):
        with pytest.raises(LabsyncError) as caught:
            client.read(secret)
        said = f"{caught.value.what} {caught.value.hint} {caught.value.safe}"
        assert not [
            word for word in ("user", "pass", "sig", "fragment") if word in said.replace("sign in", "")
        ]
    assert bare(secret) == f"{server.url}/f.bin"


def test_a_connection_that_was_closed_before_any_answer_is_made_anew_once(
    server: FileServer, client: Client, url: str
) -> None:
    server.fault(Fault("/f.bin", cut_after=-1, times=1))
    client.read(url)
    assert client.got == DATA
    server.fault(Fault("/f.bin", cut_after=-1, times=2))
    with pytest.raises(UnavailableError, match="broke"):
        client.read(url)


@pytest.mark.fault(46)
def test_a_server_that_stops_sending_is_noticed(server: FileServer, url: str) -> None:
    server.fault(Fault("/f.bin", stall_after=1000))
    client = Client(HttpReader(read_timeout=0.2))
    with pytest.raises(UnavailableError, match="stopped sending"):
        client.read(url)
    assert client.got == DATA[:1000]


class Clock:
    """A clock that goes on by `step` whenever somebody looks at it."""

    def __init__(self, step: float = 0.0) -> None:
        self.time = 0.0
        self.step = step

    def __call__(self) -> float:
        self.time += self.step
        return self.time


@pytest.mark.fault(46)
def test_a_trickle_counts_as_a_stall(server: FileServer) -> None:
    server.files["/f.bin"] = DATA[:1000]
    reader = HttpReader(now=Clock(step=31.0))
    with pytest.raises(UnavailableError, match="stalled"):
        list(reader.read(f"{server.url}/f.bin", FileEntry("f.bin", "", 1000)))


class Halting(FileServer):
    """Sends ten bytes, waits for `go`, and sends the rest."""

    def __init__(self) -> None:
        self.go = threading.Event()
        super().__init__({"/f.bin": DATA[:20]})

    def _send(self, handler: BaseHTTPRequestHandler, request: Request, reply: Reply, fault: Fault) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "20")
        handler.end_headers()
        handler.wfile.write(reply.body[:10])
        self.go.wait(20)
        handler.wfile.write(reply.body[10:])


def test_the_time_that_the_caller_takes_is_no_stall() -> None:
    clock = Clock()
    with Halting() as server:
        blocks = HttpReader(now=clock).read(f"{server.url}/f.bin", FileEntry("f.bin", "", 20))
        got = bytes(next(blocks))
        assert got == DATA[:10]
        clock.time += 100.0
        server.go.set()
        assert got + b"".join(map(bytes, blocks)) == DATA[:20]


@pytest.mark.fault(47)
def test_nobody_there_and_no_such_name_are_told_apart(client: Client) -> None:
    with FileServer({}) as gone:
        url = f"{gone.url}/f.bin"
    with pytest.raises(UnavailableError, match="no connection"):
        client.read(url)
    with pytest.raises(UnavailableError, match="could not be looked up"):
        client.read("http://no-such-host.invalid/f.bin")
    with pytest.raises(InvalidError):
        client.read("http:///f.bin")


@pytest.mark.fault(48)
def test_tls_where_there_is_none_is_told(server: FileServer, client: Client) -> None:
    with pytest.raises(UnavailableError, match="secure connection"):
        client.read(server.url.replace("http:", "https:") + "/f.bin")


def test_the_proxy_of_the_environment_is_used(
    server: FileServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    server.files["/f.bin"] = DATA
    client.read("http://far-away.invalid/f.bin")
    assert server.requests[0].target == "http://far-away.invalid/f.bin"
    assert client.got == DATA


def test_size_asks_for_the_head_only(server: FileServer) -> None:
    assert HttpReader().look_at(f"{server.url}/f.bin")[0] == len(DATA)
    assert [request.method for request in server.requests] == ["HEAD"]


def test_size_without_head_asks_for_one_byte(server: FileServer) -> None:
    server.fault(Fault("*", method="HEAD", status=405))
    assert HttpReader().look_at(f"{server.url}/f.bin")[0] == len(DATA)
    assert HttpReader().look_at(f"{server.url}/empty")[0] == 0
    assert server.requests[1].headers["range"] == "bytes=0-0"


def test_size_that_nobody_tells_is_unknown(server: FileServer, client: Client) -> None:
    server.fault(Fault("/f.bin", no_length=True, no_range=True))
    assert HttpReader().look_at(f"{server.url}/f.bin")[0] == -1
    client.read(f"{server.url}/f.bin", UNKNOWN)
    assert client.got == DATA


def test_connections_are_used_again(server: FileServer, client: Client, url: str) -> None:
    for start in (0, 5, 0, SIZE - 1):
        client.read(url, start=start)
    blocks = client.reader.read(url, ENTRY, 10, 20)
    assert bytes(next(blocks)) == DATA[10:20]
    blocks.close()  # nothing was left to come
    client.read(url)
    assert len(server._listener.sockets) == 1


def test_closing_early_lets_go_of_the_connection(server: FileServer, client: Client, url: str) -> None:
    server.fault(Fault("/f.bin", stall_after=1000))
    for _ in range(3):
        blocks = client.reader.read(url, ENTRY)
        assert bytes(next(blocks)) == DATA[:1000]
        blocks.close()
    server.faults.clear()
    assert client.read(url) == DATA
    *dropped, alive = server._listener.sockets
    for connection in dropped:
        connection.settimeout(20)
        assert connection.recv(1) == b""  # the other end is closed
    assert len(dropped) == 3
    assert alive.fileno() >= 0


def test_own_explanations_replace_those_of_the_status(server: FileServer, client: Client) -> None:
    def explain(answer: Answer) -> LabsyncError:
        return IntegrityError("mine") if answer.status == 404 else status_error(answer)

    with pytest.raises(IntegrityError, match="mine"):
        Client(HttpReader().explaining(explain)).read(f"{server.url}/nothing")
