"""A network between the S3 client and the strict server, without sockets, that fails by the seed."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsync.mirrors.s3_connection import Failed, Head
from tests.fakes.strict_s3.request import ProblemError, Request, Response
from tests.fakes.strict_s3.service import _flipped, _refused

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from labsync.mirrors.s3_connection import Saw
    from labsync.mirrors.s3_dial import Server
    from labsync.places import Buffer
    from tests.fakes.strict_s3 import Service
    from tests.faults.simulation.fate import Fate

REFUSALS = (
    (500, "InternalError"),
    (503, "SlowDown"),
    (503, "ServiceUnavailable"),
    (409, "ConditionalRequestConflict"),
    (400, "RequestTimeout"),
)


@dataclass
class Network:
    """How often what fails: `trouble` is the probability that an exchange does not go well."""

    service: Service
    fate: Fate
    trouble: float = 0.0

    def happening(self, request: Request) -> str:
        subject = f"{request.method} {request.action}"
        if not self.fate.happens(subject, self.trouble):
            return ""
        return self.fate.choose(
            f"how {subject}",
            ("unreachable", "reset", "lost", "refused", "late", "cut", "flip up", "flip down"),
        )

    def pool(self, server: Server, ca_bundle: str = "") -> SimPool:
        """Take the place of `s3_dial.Pool`."""
        return SimPool(self, server)


class SimPool:
    is_secure = False
    target = ""
    header = ""

    def __init__(self, network: Network, server: Server) -> None:
        self._network = network

    def take(self, *, fresh: bool = False) -> SimConnection:
        return SimConnection(self._network)

    def give(self, connection: SimConnection) -> None:
        pass

    def close(self) -> None:
        pass


class SimConnection:
    """One exchange of `s3_connection.Connection`, of which only what crosses the wire is simulated."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._response = Response(500)

    def be_patient(self, seconds: float) -> None:
        pass

    def watch(self, what: str) -> Saw:
        return lambda count: None

    def close(self) -> None:
        pass

    def send(self, head: bytes, body: Buffer, saw: Saw, sent: Callable[[int], None] | None) -> None:
        request = _parsed(head, bytes(body))
        network, happening = self._network, self._network.happening(_parsed(head, b""))
        if happening == "unreachable":
            raise Failed("unreachable")
        if sent and body:
            sent(len(body))
        if happening == "reset":
            raise Failed("broken")
        if happening == "refused":
            status, code = network.fate.choose("refusal", REFUSALS)
            self._response = _refused(request, ProblemError(status, code))
            return
        if happening == "flip up" and body:
            request = _parsed(head, _flipped(bytes(body)))
        response = network.service.handle(request)
        if happening == "lost":
            raise Failed("broken")
        if happening == "late" and request.method == "POST":
            response = Response(200, b"<Error><Code>InternalError</Code></Error>")
        if happening == "flip down" and request.action == "s3:GetObject" and response.body:
            response = Response(response.status, _flipped(response.body), response.headers)
        if happening == "cut" and response.body:
            response = Response(response.status, response.body, response.headers, cut=len(response.body) // 2)
        self._response = response

    def head(self, method: str, saw: Saw) -> Head:
        response = self._response
        headers = {name.lower(): value for name, value in response.headers.items()}
        length = int(headers.setdefault("content-length", str(len(response.body))))
        if method == "HEAD":
            length = 0
        return Head(response.status, headers, length, chunked=False, keeps=response.cut is None)

    def body(self, head: Head, saw: Saw) -> Generator[memoryview, None, None]:
        data = memoryview(self._response.body)[: self._response.cut] if head.length else memoryview(b"")
        for at in range(0, len(data), 1 << 16):
            yield data[at : at + (1 << 16)]
        if self._response.cut is not None:
            raise Failed("broken", heard=True)


def _parsed(head: bytes, body: bytes) -> Request:
    first, *lines = io.StringIO(head.decode("ascii")).read().split("\r\n")
    method, target, _ = first.split(" ")
    headers = dict(line.split(": ", 1) for line in lines if line)
    return Request(method, target, {name.lower(): value for name, value in headers.items()}, body)
