"""A real HTTP server on loopback that logs what it was asked and fails in every way on request."""

from __future__ import annotations

import contextlib
import fnmatch
import re
import socket
import threading
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self


@dataclass(frozen=True)
class Request:
    """What a client asked; header names are lower-case, `path` is decoded and without the query."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def raw_path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> str:
        return urlsplit(self.target).query


@dataclass(frozen=True)
class Reply:
    """An answer before ranges and faults are applied to it."""

    status: int = 200
    body: bytes | memoryview = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    ranged: bool = False


@dataclass
class Fault:
    """One way to fail, for requests whose decoded path matches the glob `path`.

    `times` counts down with each use; negative means for ever. `stall_after` sends that many bytes and
    then nothing until the server closes, `cut_after` closes the connection instead; -1 in `cut_after`
    closes it before a single byte of the answer. `relabelled` answers a range with 200 and its
    `Content-Range`, as `rclone serve s3` does; `no_range` ignores what part was asked for.
    """

    path: str
    method: str = "*"
    times: int = -1
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    redirect: str = ""
    cut_after: int | None = None
    stall_after: int | None = None
    no_range: bool = False
    wrong_range: bool = False
    relabelled: bool = False
    no_length: bool = False
    corrupt: bool = False
    short: bool = False
    long: bool = False
    html: bool = False
    gzip: bool = False

    def matches(self, request: Request) -> bool:
        return (
            self.times != 0
            and self.method in {"*", request.method}
            and fnmatch.fnmatchcase(request.path, self.path)
        )

    def spoil(self, reply: Reply) -> Reply:
        """Return the reply as this fault makes it, before any range is cut out of it."""
        if self.status:
            reply = Reply(self.status, self.body)
        if self.redirect:
            reply = Reply(302, headers={"Location": self.redirect})
        if self.html:
            reply = Reply(200, b"<html>please sign in</html>", {"Content-Type": "text/html; charset=utf-8"})
        if self.no_range:
            reply = replace(reply, ranged=False)
        if self.corrupt and reply.body:
            spoilt = bytearray(reply.body)
            spoilt[len(spoilt) // 2] ^= 1
            reply = replace(reply, body=bytes(spoilt))
        if self.short:
            reply = replace(reply, body=reply.body[:-1])
        if self.long:
            reply = replace(reply, body=bytes(reply.body) + b"!")
        if self.gzip:
            reply = replace(reply, headers={**reply.headers, "Content-Encoding": "gzip"})
        return replace(reply, headers={**reply.headers, **self.headers})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # without it every answer waits 40 ms for a delayed ACK
    server: _Listener

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, self.rfile.read(length))
        self.server.owner.handle(self, request)

    do_GET = do_HEAD = do_POST = _serve  # noqa: N815 - the names are the standard library's

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the standard library's
        pass


class Listener(ThreadingHTTPServer):
    """Listens on loopback, and can end the connections that are open."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self.sockets: list[socket.socket] = []
        super().__init__(("127.0.0.1", 0), handler)

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        self.sockets.append(connection)
        return connection, address

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that go away are part of the tests

    def stop(self) -> None:
        """Stop answering, also on connections that are open."""
        self.shutdown()
        self.server_close()
        for connection in self.sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Listener(Listener):
    def __init__(self, owner: FaultyServer) -> None:
        self.owner = owner
        super().__init__(_Handler)


class FaultyServer:
    """A server whose subclass says what it answers; faults come on top. Closed, it is unreachable."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._listener = _Listener(self)
        self.port = self._listener.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=self._listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering, also on connections that are open."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._listener.stop()

    def fault(self, fault: Fault) -> None:
        """Let matching requests fail; the fault added last is asked first."""
        with self._lock:
            self.faults.insert(0, fault)

    def answer(self, request: Request) -> Reply:
        """Return what a healthy server would say."""
        raise NotImplementedError

    def handle(self, handler: BaseHTTPRequestHandler, request: Request) -> None:
        with self._lock:
            self.requests.append(request)
            fault = next((fault for fault in self.faults if fault.matches(request)), Fault(""))
            fault.times -= 1 if fault.times > 0 else 0
        if fault.cut_after == -1:
            handler.close_connection = True
            return
        reply = fault.spoil(self.answer(request))
        self._send(handler, request, _cut_range(request, reply, fault), fault)

    def _send(self, handler: BaseHTTPRequestHandler, request: Request, reply: Reply, fault: Fault) -> None:
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        if fault.no_length:
            handler.close_connection = True
        else:
            handler.send_header("Content-Length", str(len(reply.body)))
        handler.end_headers()
        if request.method == "HEAD":
            return
        stop = fault.cut_after if fault.cut_after is not None else fault.stall_after
        handler.wfile.write(memoryview(reply.body)[:stop])
        if fault.stall_after is not None:
            self._closing.wait()
        if stop is not None:
            handler.close_connection = True


def _cut_range(request: Request, reply: Reply, fault: Fault) -> Reply:
    if not reply.ranged or reply.status != 200:
        return reply
    headers = {**reply.headers, "Accept-Ranges": "bytes"}
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if match is None:
        return replace(reply, headers=headers)
    size = len(reply.body)
    start, end = int(match[1]), min(int(match[2] or size), size - 1)
    if start >= size:
        return Reply(416, headers={**headers, "Content-Range": f"bytes */{size}"})
    shown = start + 1 if fault.wrong_range else start
    headers["Content-Range"] = f"bytes {shown}-{end}/{size}"
    status = 200 if fault.relabelled else 206
    part = memoryview(reply.body)[start : end + 1]  # not copied: files may have gigabytes
    return replace(reply, status=status, body=part, headers=headers)


class FileServer(FaultyServer):
    """Serves `files` by decoded path (with its leading slash); everything else is 404."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        super().__init__()

    def answer(self, request: Request) -> Reply:
        if request.path not in self.files:
            return Reply(404, b"no such file")
        return Reply(200, self.files[request.path], {"ETag": '"1"'}, ranged=True)
