"""The HTTP reader against a real server that fails in every way."""

from __future__ import annotations

import email.utils
import time
from typing import TYPE_CHECKING

import pytest

from labsync.digest import sha256_bytes
from labsync.errors import (
    IntegrityError,
    InvalidError,
    LabsyncError,
    NotAllowedError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from labsync.origins.http import HttpReader, _Hop
from labsync.origins.http_errors import Answer, bare, retry_after, status_error, transport_error
from labsync.snapshot import FileEntry
from tests.fakes.http_faults import Fault, FileServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = bytes(range(256)) * 8000
ENTRY = FileEntry("f.bin", sha256_bytes(DATA), len(DATA))


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer({"/f.bin": DATA, "/empty": b"", "/page.html": b"<html>"}) as server:
        yield server


class Target:
    """A target file, and what `advance` said about it."""

    def __init__(self, path: Path, had: bytes = b"") -> None:
        self.path, self.calls = path, list[int]()
        path.write_bytes(had)

    def advance(self, count: int) -> None:
        self.calls.append(count)

    def read(
        self, url: str, entry: FileEntry = ENTRY, token: str = "", reader: HttpReader | None = None
    ) -> None:
        headers = {"Authorization": token} if token else {}
        start = self.path.stat().st_size
        (reader or HttpReader()).read(url, entry, self.path, start, self.advance, headers)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(tmp_path / "part")


@pytest.mark.parametrize("cut", [0, 1, 65_536, len(DATA) // 2, len(DATA) - 1])
def test_a_cut_connection_keeps_every_byte_and_continues_there(
    server: FileServer, target: Target, cut: int
) -> None:
    server.fault(Fault("/f.bin", cut_after=cut, times=1))
    with pytest.raises(UnavailableError):
        target.read(f"{server.url}/f.bin")
    assert target.path.read_bytes() == DATA[:cut]
    assert sum(target.calls) == cut
    target.read(f"{server.url}/f.bin")
    assert target.path.read_bytes() == DATA
    assert sum(target.calls) == len(DATA)
    assert server.requests[-1].headers.get("range", "") == (f"bytes={cut}-" if cut else "")


def test_no_compression_is_asked_for_and_none_accepted(server: FileServer, target: Target) -> None:
    server.fault(Fault("/f.bin", gzip=True))
    with pytest.raises(UnavailableError, match="compressed"):
        target.read(f"{server.url}/f.bin")
    assert server.requests[-1].headers["accept-encoding"] == "identity"
    assert not target.calls


def test_a_body_without_length_that_ends_early_is_not_accepted(server: FileServer, target: Target) -> None:
    server.fault(Fault("/f.bin", no_length=True, short=True))
    with pytest.raises(UnavailableError, match="ended after"):
        target.read(f"{server.url}/f.bin")


def test_a_body_without_length_that_does_not_end_is_cut_off(server: FileServer, target: Target) -> None:
    server.fault(Fault("/f.bin", no_length=True, long=True))
    with pytest.raises(IntegrityError, match="longer"):
        target.read(f"{server.url}/f.bin")
    assert target.path.stat().st_size <= len(DATA)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(Fault("/f.bin", short=True), UnavailableError), (Fault("/f.bin", long=True), IntegrityError)],
)
def test_another_length_is_refused_before_the_first_byte(
    server: FileServer, target: Target, fault: Fault, kind: type[LabsyncError]
) -> None:
    server.fault(fault)
    with pytest.raises(kind, match="were expected"):
        target.read(f"{server.url}/f.bin")
    assert not target.calls


def test_a_server_that_ignores_ranges_makes_it_begin_again(server: FileServer, tmp_path: Path) -> None:
    server.fault(Fault("/f.bin", no_range=True))
    target = Target(tmp_path / "part", b"x" * 5000)
    target.read(f"{server.url}/f.bin")
    assert target.path.read_bytes() == DATA
    assert target.calls[0] == -5000
    assert sum(target.calls) == len(DATA) - 5000


def test_a_wrong_range_is_refused(server: FileServer, tmp_path: Path) -> None:
    server.fault(Fault("/f.bin", wrong_range=True))
    target = Target(tmp_path / "part", DATA[:5000])
    with pytest.raises(UnavailableError, match="another range"):
        target.read(f"{server.url}/f.bin")
    assert target.path.read_bytes() == DATA[:5000]


def test_a_range_behind_the_end_makes_it_begin_again(server: FileServer, tmp_path: Path) -> None:
    target = Target(tmp_path / "part", DATA + b"too much")
    target.read(f"{server.url}/f.bin")
    assert target.path.read_bytes() == DATA
    assert target.calls[0] == -len(DATA) - 8


def test_416_without_a_range_does_not_loop(server: FileServer, target: Target) -> None:
    server.fault(Fault("/f.bin", status=416))
    with pytest.raises(UnavailableError, match="416"):
        target.read(f"{server.url}/f.bin")
    assert len(server.requests) == 1


def test_a_sign_in_page_is_never_taken_for_a_file(server: FileServer, target: Target) -> None:
    server.fault(Fault("*", html=True))
    for entry in (ENTRY, FileEntry("f.bin", "", -1)):
        with pytest.raises(UnavailableError, match="web page") as caught:
            target.read(f"{server.url}/f.bin", entry)
        assert "sign in" in caught.value.hint
    with pytest.raises(UnavailableError, match="web page"):
        HttpReader().size(f"{server.url}/f.bin")
    assert not target.calls


def test_a_page_that_is_the_file_is_taken(server: FileServer, target: Target) -> None:
    server.fault(Fault("/page.html", headers={"Content-Type": "text/html"}))
    target.read(f"{server.url}/page.html", FileEntry("page.html", "", 6))
    assert target.path.read_bytes() == b"<html>"


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
    server: FileServer, target: Target, status: int, kind: type[LabsyncError]
) -> None:
    server.fault(Fault("/f.bin", status=status))
    with pytest.raises(LabsyncError) as caught:
        target.read(f"{server.url}/f.bin")
    assert type(caught.value) is kind
    with pytest.raises(kind):
        HttpReader().size(f"{server.url}/f.bin")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}, 55.0),
        ({"RateLimit": '"api";r=3;t=55'}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_server_says_how_long_to_wait(
    server: FileServer, target: Target, headers: dict[str, str], seconds: float
) -> None:
    server.fault(Fault("/f.bin", status=429, headers=headers))
    with pytest.raises(UnavailableError) as caught:
        target.read(f"{server.url}/f.bin")
    assert caught.value.retry_after == seconds


def test_a_date_to_wait_for_is_counted_from_now() -> None:
    assert 50 < retry_after({"retry-after": email.utils.formatdate(time.time() + 60, usegmt=True)}) <= 60
    assert retry_after({"retry-after": email.utils.formatdate(time.time() - 60, usegmt=True)}) == 0
    assert retry_after({"retry-after": "soon"}) == 0


def test_credentials_go_to_the_first_server_only(server: FileServer, target: Target) -> None:
    with FileServer({"/f.bin": DATA}) as other:
        server.fault(Fault("/far", redirect=f"{other.url}/f.bin"))
        server.fault(Fault("/near", redirect="/far"))
        target.read(f"{server.url}/near", token="Bearer secret")
        assert [request.headers.get("authorization") for request in server.requests] == ["Bearer secret"] * 2
        assert [request.headers.get("authorization") for request in other.requests] == [None]
    assert target.path.read_bytes() == DATA


def test_credentials_do_not_come_back_with_a_redirect(server: FileServer, target: Target) -> None:
    with FileServer({}) as other:
        other.fault(Fault("/f.bin", redirect=f"{server.url}/f.bin"))
        server.fault(Fault("/far", redirect=f"{other.url}/f.bin"))
        target.read(f"{server.url}/far", token="Bearer secret")
    assert "authorization" not in server.requests[-1].headers


def test_redirects_end(server: FileServer, target: Target) -> None:
    server.fault(Fault("/f.bin", redirect="/f.bin"))
    with pytest.raises(UnavailableError, match="redirects more than 10 times"):
        target.read(f"{server.url}/f.bin")
    assert len(server.requests) == 11


@pytest.mark.parametrize("where", ["http://there/f", "file:///etc/passwd", "ftp://there/f", "//[bad"])
def test_a_redirect_never_leaves_https(where: str) -> None:
    with pytest.raises((RefusedError, UnavailableError)):
        _Hop("https://here/f", {}).follow(where)


def test_a_redirect_to_a_file_is_refused_from_http_too(server: FileServer, target: Target) -> None:
    server.fault(Fault("/f.bin", redirect="file:///etc/passwd"))
    with pytest.raises(RefusedError):
        target.read(f"{server.url}/f.bin")


def test_a_signed_link_that_ran_out_is_renewed_once(server: FileServer, target: Target) -> None:
    with FileServer({"/f.bin": DATA}) as other:
        other.fault(Fault("/f.bin", status=403, times=1))
        server.fault(Fault("/link", redirect=f"{other.url}/f.bin"))
        target.read(f"{server.url}/link")
        assert target.path.read_bytes() == DATA
        other.fault(Fault("/f.bin", status=403))
        target.path.write_bytes(b"")
        with pytest.raises(NotAllowedError):
            target.read(f"{server.url}/link")
        assert len(other.requests) == 4


def test_no_secret_of_the_address_is_in_a_message(server: FileServer, target: Target) -> None:
    secret = f"{server.url.replace('//', '//user:pass@')}/f.bin?X-Amz-Signature=sig#fragment"
    server.fault(Fault("*", status=403, times=1))
    server.fault(Fault("*", gzip=True, times=1))
    server.fault(Fault("*", html=True, times=1))
    server.fault(Fault("*", cut_after=-1, times=1))
    server.fault(Fault("*", redirect="ftp://user:pass@there/?X-Amz-Signature=sig", times=1))
    for _ in range(5):
        with pytest.raises(LabsyncError) as caught:
            target.read(secret)
        said = f"{caught.value.what} {caught.value.hint} {caught.value.safe}"
        assert not [
            word for word in ("user", "pass", "sig", "fragment") if word in said.replace("sign in", "")
        ]
    assert bare(secret) == f"{server.url}/f.bin"


def test_a_server_that_stops_sending_is_noticed(server: FileServer, target: Target) -> None:
    server.fault(Fault("/f.bin", stall_after=1000))
    with pytest.raises(UnavailableError, match="stopped sending"):
        target.read(f"{server.url}/f.bin", reader=HttpReader(read_timeout=0.2))
    assert target.path.read_bytes() == DATA[:1000]


def test_nobody_there_and_no_such_name_are_told_apart(target: Target) -> None:
    with FileServer({}) as gone:
        url = f"{gone.url}/f.bin"
    with pytest.raises(UnavailableError, match="no connection"):
        target.read(url)
    with pytest.raises(UnavailableError, match="could not be looked up"):
        target.read("http://no-such-host.invalid/f.bin")
    with pytest.raises(InvalidError):
        target.read("http:///f.bin")


def test_tls_where_there_is_none_is_told(server: FileServer, target: Target) -> None:
    with pytest.raises(UnavailableError, match="secure connection"):
        target.read(server.url.replace("http:", "https:") + "/f.bin")


def test_a_certificate_out_of_its_time_points_to_the_clock() -> None:
    import urllib3

    error = urllib3.exceptions.SSLError("certificate verify failed: certificate is not yet valid")
    assert "clock" in transport_error("https://here/f", error).hint


def test_the_proxy_of_the_environment_is_used(
    server: FileServer, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    server.files["/f.bin"] = DATA
    target.read("http://far-away.invalid/f.bin")
    assert server.requests[0].target == "http://far-away.invalid/f.bin"
    assert target.path.read_bytes() == DATA


def test_size_asks_for_the_head_only(server: FileServer) -> None:
    assert HttpReader().size(f"{server.url}/f.bin") == len(DATA)
    assert [request.method for request in server.requests] == ["HEAD"]


def test_size_without_head_asks_for_one_byte(server: FileServer) -> None:
    server.fault(Fault("*", method="HEAD", status=405))
    assert HttpReader().size(f"{server.url}/f.bin") == len(DATA)
    assert HttpReader().size(f"{server.url}/empty") == 0
    assert server.requests[1].headers["range"] == "bytes=0-0"


def test_size_that_nobody_tells_is_unknown(server: FileServer, target: Target) -> None:
    server.fault(Fault("/f.bin", no_length=True, no_range=True))
    assert HttpReader().size(f"{server.url}/f.bin") == -1
    target.read(f"{server.url}/f.bin", FileEntry("f.bin", "", -1))
    assert target.path.read_bytes() == DATA


def test_connections_are_used_again(server: FileServer, target: Target) -> None:
    reader = HttpReader()
    for _ in range(3):
        target.path.write_bytes(b"")
        target.read(f"{server.url}/f.bin", reader=reader)
    assert len(server._listener.sockets) == 1


def test_own_explanations_replace_those_of_the_status(server: FileServer, target: Target) -> None:
    def explain(answer: Answer) -> LabsyncError:
        return IntegrityError("mine") if answer.status == 404 else status_error(answer)

    with pytest.raises(IntegrityError, match="mine"):
        target.read(f"{server.url}/nothing", reader=HttpReader().explaining(explain))
