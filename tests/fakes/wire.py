"""A wire between a client and a real server: it counts the bytes of each direction, and can be spoilt."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

Direction: TypeAlias = Literal["up", "down"]
Damage: TypeAlias = Literal["reset", "close", "flip"]
BLOCK = 1 << 16


@dataclass
class Spoil:
    """What happens once `after` more bytes have passed in a direction, `times` times.

    `reset` ends the connection with RST, `close` with FIN, both without the bytes behind; `flip` changes
    the next byte.
    """

    direction: Direction
    damage: Damage
    after: int
    times: int = 1


class Wire:
    """Forwards every connection to the server at `upstream`; use it as a context manager.

    `counts` are the bytes that passed: `up` to the server, `down` to the client. After `hold`, all
    connections fall silent, without being closed, as soon as that many more bytes have passed in a
    direction; `held` is set then. `release` lets everything flow again. `spoils` damage what passes;
    `rewrite` is given each block that comes down, and returns what the client gets instead.
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
        self.spoils: list[Spoil] = []
        self.rewrite: Callable[[bytes], bytes] = bytes
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
                data, end = self._spoilt(direction, data)
                target.sendall(self.rewrite(data) if direction == "down" else data)
                with self._changed:
                    self.counts[direction] += len(data)
                if end == "reset":
                    _reset(target)
                if end:
                    break
        _close(source)
        _close(target)

    def _spoilt(self, direction: Direction, data: bytes) -> tuple[bytes, str]:
        """Return what of the data passes, changed or not, and how the connection ends behind it."""
        with self._changed:
            spoil = next((s for s in self.spoils if s.direction == direction and s.times), None)
            if spoil is None or spoil.after > len(data):
                if spoil:
                    spoil.after -= len(data)
                return data, ""
            at, spoil.after, spoil.times = spoil.after, 0, spoil.times - 1
        if spoil.damage == "flip":
            if at >= len(data):
                spoil.times += 1
                return data, ""
            return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], ""
        return data[:at], spoil.damage

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


def _reset(each: socket.socket) -> None:
    """End a connection by RST; whoever else waits for it is woken first, or it would stay open."""
    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RD)
    each.close()
