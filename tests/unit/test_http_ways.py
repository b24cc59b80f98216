"""Redirects, signed links that run out, and versions that change, against real servers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from labsync.errors import IntegrityError, LabsyncError, NotAllowedError, RefusedError, UnavailableError
from labsync.origins import http_ways
from labsync.origins.http import HttpReader
from labsync.origins.http_part import Part
from labsync.origins.http_ways import Hop, Ways
from tests.fakes.http_client import DATA, ENTRY, SIZE, Client
from tests.fakes.http_faults import Fault, FileServer, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer({"/f.bin": DATA}) as server:
        yield server


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.mark.fault(52)
def test_credentials_go_to_the_first_server_only(server: FileServer, client: Client) -> None:
    with FileServer({"/f.bin": DATA}) as other:
        server.fault(Fault("/far", redirect=f"{other.url}/f.bin"))
        server.fault(Fault("/near", redirect="/far"))
        client.read_with("Bearer secret", f"{server.url}/near")
        assert [request.headers.get("authorization") for request in server.requests] == ["Bearer secret"] * 2
        assert [request.headers.get("authorization") for request in other.requests] == [None]
    assert client.got == DATA


@pytest.mark.fault(52)
def test_credentials_do_not_come_back_with_a_redirect(server: FileServer, client: Client) -> None:
    with FileServer({}) as other:
        other.fault(Fault("/f.bin", redirect=f"{server.url}/f.bin"))
        server.fault(Fault("/far", redirect=f"{other.url}/f.bin"))
        client.read_with("Bearer secret", f"{server.url}/far")
    assert "authorization" not in server.requests[-1].headers


def test_redirects_end(server: FileServer, client: Client) -> None:
    server.fault(Fault("/f.bin", redirect="/f.bin"))
    with pytest.raises(UnavailableError, match="redirects more than 10 times"):
        client.read(f"{server.url}/f.bin")
    assert len(server.requests) == 11


@pytest.mark.fault(52)
@pytest.mark.parametrize("where", ["http://there/f", "file:///etc/passwd", "ftp://there/f", "//[bad"])
def test_a_redirect_never_leaves_https(where: str) -> None:
    with pytest.raises((RefusedError, UnavailableError)):
        Hop("https://here/f", {}).follow(where)


def test_a_redirect_to_a_file_is_refused_from_http_too(server: FileServer, client: Client) -> None:
    server.fault(Fault("/f.bin", redirect="file:///etc/passwd"))
    with pytest.raises(RefusedError):
        client.read(f"{server.url}/f.bin")


class Versions(FileServer):
    """Serves one path with the ETag that `etag` says now."""

    etag = '"1"'

    def answer(self, request: Request) -> Reply:
        return Reply(200, DATA, {"ETag": self.etag}, ranged=True)


@pytest.mark.fault(64)
def test_parts_of_two_versions_are_not_put_together(client: Client) -> None:
    with Versions({}) as server:
        url = f"{server.url}/f.bin"
        client.read(url, start=0, stop=10)
        client.read(url, start=10, stop=20)
        server.etag = '"2"'
        with pytest.raises(IntegrityError, match="changed while it was being read") as caught:
            client.read(url, start=20, stop=30)
        assert "lock --upgrade" in caught.value.hint
        assert not client.got
        assert client.read(url, start=20, stop=30) == DATA[20:30]  # who begins anew begins with the new one
        server.etag = '"3"'
        assert client.read(url) == DATA
        assert client.read(url, start=5) == DATA[5:]


@pytest.mark.parametrize(("one", "other"), [('W/"1"', 'W/"2"'), ("", '"2"'), ('"1"', "")])
def test_only_strong_versions_are_compared(client: Client, one: str, other: str) -> None:
    with Versions({}) as server:
        server.etag = one
        client.read(f"{server.url}/f.bin", start=5)
        server.etag = other
        assert client.read(f"{server.url}/f.bin", start=5) == DATA[5:]


class Links(FileServer):
    """Redirects every request to a link of `other`, a new one each time."""

    def __init__(self, other: FileServer) -> None:
        self.other = other
        super().__init__({})

    def answer(self, request: Request) -> Reply:
        link = f"{self.other.url}/f.bin?X-Amz-Signature={len(self.requests)}"
        return Reply(302, b"moved", {"Location": link})


class Signed(FileServer):
    """Serves DATA by links until they ran out, each for `uses` requests; `refusal` is what it says then."""

    def __init__(self) -> None:
        self.uses, self.refusal = 1000, 403
        self.used: dict[str, int] = {}
        self.expired: set[str] = set()
        super().__init__({"/f.bin": DATA})

    def expire(self) -> None:
        self.expired |= self.used.keys()

    def answer(self, request: Request) -> Reply:
        with self._lock:
            used = self.used[request.query] = self.used.get(request.query, 0) + 1
        if used > self.uses or request.query in self.expired:
            return Reply(self.refusal)
        return super().answer(request)


@pytest.fixture
def cdn() -> Iterator[Signed]:
    with Signed() as cdn:
        yield cdn


@pytest.fixture
def hub(cdn: Signed) -> Iterator[Links]:
    with Links(cdn) as hub:
        yield hub


def parts_of(reader: HttpReader, hub: Links, workers: int = 6, size: int = 100_000) -> bytes:
    """Read the whole by parts, several at once."""

    def read(at: int) -> bytes:
        blocks = reader.read(f"{hub.url}/f.bin", ENTRY, at, min(at + size, SIZE), {"Authorization": "secret"})
        return b"".join(map(bytes, blocks))

    with ThreadPoolExecutor(workers) as pool:
        return b"".join(pool.map(read, range(0, SIZE, size)))


def test_the_first_server_is_asked_once_for_all_parts_of_a_file(cdn: Signed, hub: Links) -> None:
    reader = HttpReader()
    assert parts_of(reader, hub) == parts_of(reader, hub) == DATA
    assert len(hub.requests) == 1
    assert hub.requests[0].headers["authorization"] == "secret"
    assert not [request for request in cdn.requests if "authorization" in request.headers]


@pytest.mark.parametrize("refusal", [400, 403, 410])
def test_a_link_that_runs_out_in_the_middle_is_renewed_for_all_parts(
    cdn: Signed, hub: Links, client: Client, refusal: int
) -> None:
    cdn.refusal = refusal
    assert client.read(f"{hub.url}/f.bin", start=0, stop=10) == DATA[:10]
    blocks = client.reader.read(f"{hub.url}/f.bin", ENTRY, 10)
    first = bytes(next(blocks))
    cdn.expire()
    assert parts_of(client.reader, hub) == DATA
    assert first + client.take(blocks) == DATA[10:]  # what flows already flows on
    assert len(hub.requests) == 2


def test_links_may_be_good_for_few_requests_or_one(cdn: Signed, hub: Links) -> None:
    for uses in (7, 2, 1):
        cdn.uses = uses
        assert parts_of(HttpReader(), hub) == DATA
    assert not [request for request in cdn.requests if "authorization" in request.headers]


def test_a_fresh_link_that_is_refused_is_renewed_once(cdn: Signed, hub: Links, client: Client) -> None:
    cdn.fault(Fault("/f.bin", status=403, times=1))
    assert client.read(f"{hub.url}/f.bin") == DATA
    assert len(hub.requests) == 2
    cdn.fault(Fault("/f.bin", status=403))
    with pytest.raises(NotAllowedError):
        client.read(f"{hub.url}/f.bin")
    assert len(hub.requests) == 4


def test_a_refusal_of_the_first_server_itself_is_final(server: FileServer, client: Client) -> None:
    server.fault(Fault("/f.bin", status=403))
    with pytest.raises(NotAllowedError):
        client.read(f"{server.url}/f.bin")
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", [Fault("*", status=500), Fault("*", html=True), Fault("*", cut_after=-1)])
def test_a_way_that_fails_is_not_gone_again(cdn: Signed, hub: Links, client: Client, fault: Fault) -> None:
    client.read(f"{hub.url}/f.bin", start=5)
    fault.times = 2 if fault.cut_after == -1 else 1  # a connection closed before any answer is made anew
    cdn.fault(fault)
    with pytest.raises(UnavailableError):
        client.read(f"{hub.url}/f.bin", start=5)
    assert len(hub.requests) == 1
    assert client.read(f"{hub.url}/f.bin", start=5) == DATA[5:]
    assert len(hub.requests) == 2


def test_when_the_one_who_asks_fails_the_others_ask_for_themselves(hub: Links, client: Client) -> None:
    hub.fault(Fault("*", status=503, times=1))
    failures = list[LabsyncError]()

    def read(at: int) -> bytes:
        try:
            return b"".join(map(bytes, client.reader.read(f"{hub.url}/f.bin", ENTRY, at, at + 10)))
        except UnavailableError as error:
            failures.append(error)
            return b"failed"

    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(read, range(0, 60, 10)))
    assert len(failures) == 1
    assert sum(part == DATA[10 * n : 10 * n + 10] for n, part in enumerate(got)) == 5


def test_who_goes_alone_takes_nobodys_way() -> None:
    way, hop = Ways().to("https://h/f"), Hop("https://cdn/f", {})
    way.learn(hop, "", Part.of(ENTRY, 0, 5), is_fresh=True)
    with way.turn(alone=False) as known, way.turn(alone=True) as mine:
        assert (known, mine) == (hop, None)
    way.forget(Hop("https://cdn/older", {}))  # it was replaced meanwhile
    with way.turn(alone=False) as known:
        assert known is hop
    way.forget(hop)
    with way.turn(alone=False) as known:
        assert known is None


def test_only_the_files_asked_for_last_are_remembered(
    cdn: Signed, hub: Links, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_ways, "REMEMBERED", 2)
    for query in ("1", "2", "1", "3", "1"):
        client.read(f"{hub.url}/f.bin?{query}", start=5)
    assert len(hub.requests) == 3
    client.read(f"{hub.url}/f.bin?2", start=5)
    assert len(hub.requests) == 4
    ways = Ways()
    assert ways.to("a") is ways.to("a")


def test_a_redirect_costs_no_connection(cdn: Signed, hub: Links, client: Client) -> None:
    for query in "123":
        client.read(f"{hub.url}/f.bin?{query}")
    assert (len(hub._listener.sockets), len(cdn._listener.sockets)) == (1, 1)
