"""A channel, or an index of wheels, over loopback HTTP, with the faults that real ones have."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Self


class ChannelServer:
    """Serves a folder; `faults` maps a part of a path to a list of faults, used up one by request.

    A fault is a status, or a function from the right bytes to the bytes that go out; a length that
    is longer than the bytes breaks the connection off.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requests: list[str] = []
        self.faults: dict[str, list[int | Callable[[bytes], bytes]]] = {}
        self.truncate: set[str] = set()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that went away
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}/channel"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Go down: every later request is refused."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def asked(self, part: str) -> int:
        """Return how many requests named a path with this part."""
        return sum(part in path for path in self.requests)

    def _next_fault(self, path: str) -> int | Callable[[bytes], bytes] | None:
        with self._lock:
            self.requests.append(path)
            for part, faults in self.faults.items():
                if part in path and faults:
                    return faults.pop(0)
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = unquote(self.path).removeprefix("/channel/")
                fault = server._next_fault(path)
                file = server.root / path
                file = file / "index.html" if file.is_dir() else file
                if isinstance(fault, int):
                    return self._answer(fault, b"no")
                if not file.is_file():
                    return self._answer(404, b"no such file")
                data = file.read_bytes()
                sent = fault(data) if fault else data
                cut = any(part in path for part in server.truncate)
                return self._answer(200, sent[: len(sent) // 2] if cut else sent, len(sent), file.suffix)

            def do_HEAD(self) -> None:
                self.do_GET()

            def _answer(self, status: int, data: bytes, length: int | None = None, kind: str = "") -> None:
                self.send_response(status)
                if kind == ".html":
                    self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(data) if length is None else length))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(data)
                if length is not None and length != len(data):
                    self.close_connection = True

            def log_message(self, *args: Any) -> None:
                pass

        return Handler
