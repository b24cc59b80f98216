"""Sends one request to a bucket: signed, on a connection from the pool, repeated where that helps."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from labsync import __version__
from labsync.errors import InvalidError, LabsyncError, UnavailableError
from labsync.mirrors.s3_answers import MAX_ANSWER, Answer
from labsync.mirrors.s3_config import Files, Settings
from labsync.mirrors.s3_connection import SILENCE, Failed
from labsync.mirrors.s3_credentials import Credentials
from labsync.mirrors.s3_dial import Pool
from labsync.mirrors.s3_errors import EXPIRED, region_of, transport_error
from labsync.mirrors.s3_sign import EMPTY, Headers, Signer, encode_path

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from labsync.manifest.model import MirrorSpec
    from labsync.mirrors.counter import Method, RequestCounter
    from labsync.mirrors.s3_config import Place
    from labsync.mirrors.s3_connection import Connection, Head, Saw
    from labsync.mirrors.s3_sign import Keys
    from labsync.places import Buffer

ATTEMPTS = 2  # the engine retries, with one budget for the whole run
PAUSE = 0.5  # seconds at most before a request is repeated that the server could not answer
_AGAIN = {429, 500, 502, 503, 504}
_MOVED = {301, 307, 400}
_REPEATED = {"broken", "unreachable"}
_SAME = f"accept-encoding: identity\r\nuser-agent: labsync/{__version__}\r\n"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: `key` is the object's, empty for the bucket itself; `query` is encoded and sorted.

    Names in `headers` are lower-case; `payload` is the body's SHA-256 or `UNSIGNED`. `sent` hears of
    the body's bytes as they go out, of -n when n of them have to go out again. `silence` is how long
    the server may say nothing; one that needs longer than usual is not watched for trickling.
    """

    method: Method
    key: str = ""
    query: str = ""
    headers: Headers = ()
    body: Buffer = b""
    payload: str = EMPTY
    sent: Callable[[int], None] | None = None
    silence: float = SILENCE


class Refusal(Exception):  # noqa: N818 - it never leaves the mirror's modules
    """The server answered, and the answer is no."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Reply:
    """An answer whose body is still to be read; closing it early costs the connection."""

    def __init__(self, head: Head, connection: Connection, pool: Pool, saw: Saw, at: str) -> None:
        self.status = head.status
        self.headers: Mapping[str, str] = head.headers
        self.length = head.length
        self._head = head
        self._connection: Connection | None = connection
        self._pool = pool
        self._saw = saw
        self._at = at

    def blocks(self) -> Generator[memoryview, None, None]:
        """Yield the body as it comes in; each block is valid until the next one is asked for.

        Raises UnavailableError when the connection breaks or stalls, or the body ends early.
        """
        connection = self._connection
        if connection is None:
            return
        try:
            yield from connection.body(self._head, self._saw)
        except Failed as failure:
            self.close()
            raise transport_error(failure.kind, self._at) from failure
        except BaseException:
            self.close()
            raise
        self._done(connection)

    def all(self, limit: int = MAX_ANSWER) -> bytes:
        """Return the whole body; InvalidError when it has more than `limit` bytes."""
        parts: list[bytes] = []
        for block in self.blocks():
            limit -= len(block)
            if limit < 0:
                self.close()
                raise InvalidError(f"`{self._at}` is larger than labsync's records can be")
            parts.append(bytes(block))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Let go of the connection; it is used again only when the body was read to its end."""
        connection, self._connection = self._connection, None
        if connection:
            connection.close()

    def _done(self, connection: Connection) -> None:
        self._connection = None
        if self._head.keeps:
            self._pool.give(connection)
        else:
            connection.close()


@dataclass(frozen=True, slots=True)
class _Route:
    """Where requests go at the moment, and who signs them."""

    place: Place
    pool: Pool
    keys: Keys
    signer: Signer


class Client:
    """Sends requests to one bucket. Safe for several threads; nothing is read or sent before the first."""

    def __init__(self, spec: MirrorSpec, bucket: str, at: str, counter: RequestCounter) -> None:
        self._spec = spec
        self._bucket = bucket
        self._at = at
        self._counter = counter
        self._credentials = Credentials(spec, at)
        self._mutex = threading.Lock()
        self._settings: Settings | None = None
        self._place: Place | None = None
        self._pool: Pool | None = None
        self._route: _Route | None = None

    @property
    def place(self) -> Place:
        """Where the bucket is; InvalidError when it cannot be anywhere."""
        with self._mutex:
            return self._settle()[0]

    @property
    def is_secure(self) -> bool:
        """Say whether requests travel by TLS."""
        return self.place.server.scheme == "https"

    def _settle(self) -> tuple[Place, Pool]:
        if self._settings is None:
            self._settings = Settings.read(self._spec, Files.read())
        if self._place is None or self._pool is None:
            self._place = self._settings.place(self._bucket, self._at)
            self._pool = Pool(self._place.server, self._settings.ca_bundle)
        return self._place, self._pool

    def _current(self) -> _Route:
        keys, route = self._credentials.keys(), self._route
        if route is None or route.keys != keys:
            with self._mutex:
                place, pool = self._settle()
                route = _Route(place, pool, keys, Signer(keys, place.region, place.server.name))
                self._route = route
        return route

    def send(self, request: Request, at: str) -> Reply:
        """Send a request and return the answer, whose status is below 300.

        A request is sent once more when the connection broke before a byte of the answer came, or
        when the server cannot answer at the moment and does not say when; so a write may be carried
        out twice. It is signed anew when the bucket is in another region of Amazon's, or when the
        credentials have expired and there are others by now. Raises Refusal for what the server
        refuses, else LabsyncError; `at` is the address for messages.
        """
        progress = _Progress(request.sent) if request.sent else None
        left, fresh, moved, renewed = ATTEMPTS, False, False, False
        while True:
            route = self._current()
            self._counter.add(request.method)
            left -= 1
            try:
                reply = _exchange(route, request, at, progress, fresh=fresh)
            except Failed as failure:
                if not left or failure.heard or failure.kind not in _REPEATED:
                    raise transport_error(failure.kind, at) from failure
                fresh = True
                continue
            if reply.status < 300:
                return reply
            if progress:
                progress.rewind()
            answer = _answer(reply)
            if not moved and self._move(route, answer):
                moved, left = True, left + 1
            elif not renewed and answer.problem.code in EXPIRED and self._credentials.renew(route.keys):
                renewed, left = True, left + 1
            elif left and answer.status in _AGAIN and "retry-after" not in answer.headers:
                time.sleep(random.random() * PAUSE)  # noqa: S311 - jitter spreads load, it keeps no secret
            else:
                raise Refusal(answer)

    def _move(self, route: _Route, answer: Answer) -> bool:
        """Turn to the region that the answer names; False when that is not the matter."""
        region = region_of(answer)
        if answer.status not in _MOVED or not route.place.is_movable or region in {"", route.place.region}:
            return False
        with self._mutex:
            if self._settings and self._settings.region != region:
                self._settings = replace(self._settings, region=region)
                self._place = self._pool = self._route = None
        return True


class _Progress:
    """What `sent` was told of one request, so that it can be taken back."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._told = 0

    def __call__(self, count: int) -> None:
        self._told += count
        self._tell(count)

    def rewind(self) -> None:
        told, self._told = self._told, 0
        if told:
            self._tell(-told)


def _exchange(route: _Route, request: Request, at: str, progress: _Progress | None, *, fresh: bool) -> Reply:
    """Send the request on one connection and return the answer; raises Failed or UnavailableError."""
    head = _head(route, request)
    connection = route.pool.take(fresh=fresh)
    try:
        connection.be_patient(request.silence)
        saw = connection.watch(f"the server of `{at}`") if request.silence <= SILENCE else _unwatched
        try:
            connection.send(head, request.body, saw, progress)
            got = connection.head(request.method, saw)
        except Failed as failure:
            if failure.heard or failure.kind != "broken" or not request.body:
                raise
            got = _early(connection, request.method, failure, saw)
    except (Failed, UnavailableError):
        connection.close()
        if progress:
            progress.rewind()
        raise
    except BaseException:
        connection.close()
        raise
    return Reply(got, connection, route.pool, saw, at)


def _early(connection: Connection, method: str, failure: Failed, saw: Saw) -> Head:
    """Return the answer of a server that closed the connection before it had taken the whole body."""
    try:
        return replace(connection.head(method, saw), keeps=False)
    except Failed:
        raise failure from None


def _unwatched(count: int) -> None:
    """Take no note of bytes: the server was given the time it needs."""


def _head(route: _Route, request: Request) -> bytes:
    method = "GET" if request.method == "LIST" else request.method
    place, pool, query = route.place, route.pool, request.query
    path = f"{place.path}/{encode_path(request.key)}" if request.key else place.path or "/"
    signed = route.signer.headers(method, path, query, request.headers, request.payload)
    length = f"content-length: {len(request.body)}\r\n" if method in {"PUT", "POST"} else ""
    target = f"{pool.target}{path}?{query}" if query else f"{pool.target}{path}"
    return f"{method} {target} HTTP/1.1\r\n{signed}{length}{pool.header}{_SAME}\r\n".encode("ascii")


def _answer(reply: Reply) -> Answer:
    """Read what the server says against the request; the status alone where that cannot be read."""
    body = b""
    with contextlib.suppress(LabsyncError):
        body = reply.all()
    return Answer(reply.status, reply.headers, body)
