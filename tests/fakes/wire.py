"""A wire between a client and a real server: it counts the bytes of each direction and can be held."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import TracebackType

Direction: TypeAlias = Literal["up", "down"]
BLOCK = 1 << 16


class Wire:
    """Forwards every connection to the server at `upstream`; use it as a context manager.

    `counts` are the bytes that passed: `up` to the server, `down` to the client. After `hold`, all
    connections fall silent, without being closed, as soon as that many more bytes have passed in a
    direction; `held` is set then. `release` lets everything flow again.
    """

    def __init__(self, upstream: str) -> None:
        target = urlsplit(upstream)
        assert target.hostname
        assert target.port
        self._target = (target.hostname, target.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._changed = threading.Condition()
        self._limits: dict[Direction, int] = {}
        self._sockets: list[socket.socket] = []
        self._closed = False
        self.counts: dict[Direction, int] = {"up": 0, "down": 0}
        self.held = threading.Event()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Wire:  # noqa: PYI034  `Self` came with Python 3.11
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            for each in (self._listener, *self._sockets):
                _close(each)

    def hold(self, direction: Direction, after: int) -> None:
        """Fall silent once `after` more bytes have passed in the direction."""
        with self._changed:
            self._limits = {direction: self.counts[direction] + after}
            self.held.clear()

    def release(self) -> None:
        """Let everything flow again."""
        with self._changed:
            self._limits = {}
            self._changed.notify_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            with self._changed:
                self._sockets += [client, server]
            for source, target, direction in ((client, server, "up"), (server, client, "down")):
                threading.Thread(target=self._pump, args=(source, target, direction), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, direction: Direction) -> None:
        with contextlib.suppress(OSError):
            while (allowed := self._wait_for_room(direction)) and (data := source.recv(allowed)):
                target.sendall(data)
                with self._changed:
                    self.counts[direction] += len(data)
        _close(source)
        _close(target)

    def _wait_for_room(self, direction: Direction) -> int:
        """Return how many bytes may pass now, 0 when the wire is closed; several pumps may share them."""
        with self._changed:
            while not self._closed:
                over = [d for d, limit in self._limits.items() if self.counts[d] >= limit]
                if not over:
                    limit = self._limits.get(direction)
                    return min(BLOCK, limit - self.counts[direction]) if limit is not None else BLOCK
                self.held.set()
                self._changed.wait()
            return 0


def _close(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
