"""The service behind a real socket."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

from tests.fakes.http_faults import Listener
from tests.fakes.s3 import Server
from tests.fakes.strict_s3.request import Request, Response
from tests.fakes.strict_s3.service import Service
from tests.fakes.strict_s3.store import Bucket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.strict_s3.faults import Manners
    from tests.fakes.strict_s3.store import Limits


@dataclass(frozen=True)
class StrictServer(Server):
    """A server, and the service behind it to look into and to let fail."""

    service: Service = field(default_factory=Service)

    def make_bucket(self, name: str) -> None:
        self.service.buckets[name] = Bucket()

    def keys(self, bucket: str) -> list[str]:
        return sorted(self.service.buckets[bucket].objects)

    def uploads(self, bucket: str, prefix: str = "") -> list[str]:
        found = self.service.buckets[bucket].uploads.values()
        return [upload.key for upload in found if upload.key.startswith(prefix)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # without it every answer waits 40 ms for a delayed ACK
    server: _Listener

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        if headers.get("expect") == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        body = self.rfile.read(int(headers.get("content-length") or 0))
        self._send(self.server.service.handle(Request(self.command, self.path, headers, body)))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - the standard library's names

    def _send(self, response: Response) -> None:
        if response.lost:
            self.close_connection = True
            return
        self.send_response_only(response.status)
        headers = {"Content-Length": str(len(response.body)), **response.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(memoryview(response.body)[: response.cut])
        if response.cut is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        pass


class _Listener(Listener):
    def __init__(self, service: Service) -> None:
        self.service = service
        super().__init__(_Handler)


@contextlib.contextmanager
def strict_server(limits: Limits | None = None, manners: Manners | None = None) -> Iterator[StrictServer]:
    """Run an empty server."""
    service = Service(limits, manners)
    listener = _Listener(service)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield StrictServer(f"http://127.0.0.1:{listener.server_port}", service)
    finally:
        listener.stop()
        thread.join()
