"""Counts what really travels: a relay in front of a server, on loopback."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from typing_extensions import Self

BLOCK = 1 << 18
ACKNOWLEDGED = 0.3  # seconds; Linux delays it by at most 0.2


class Relay:
    """Passes connections on to a server; `up` and `down` are the bytes that clients sent and were sent."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._target = (address.hostname or "", address.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port: int = self._listener.getsockname()[1]
        self._mutex = threading.Lock()
        self._alarm: tuple[float, threading.Event] = (math.inf, threading.Event())
        self._open = threading.Event()
        self._open.set()
        self.up = self.down = 0
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.open()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # closing alone would not wake who waits in `accept`
        self._listener.close()

    @property
    def bytes(self) -> int:
        """What went in the direction that more went in."""
        return max(self.up, self.down)

    def alarm(self, at: int) -> threading.Event:
        """Return an event that is set once so many `bytes` have passed; nothing passes then until `open`."""
        event = threading.Event()
        with self._mutex:
            self._alarm = (at, event)
        return event

    def open(self) -> None:
        """Let everything pass, without an alarm."""
        with self._mutex:
            self._alarm = (math.inf, threading.Event())
        self._open.set()

    def unread(self) -> int:
        """Return how many bytes were sent to clients that they have not read: the kernel still has them.

        It is only known while nothing passes, and once all that arrived is acknowledged: until then it
        would be counted at both ends.
        """
        time.sleep(ACKNOWLEDGED)
        with open("/proc/net/tcp", encoding="ascii") as file:
            return unread_bytes(file.read(), self._port)

    def _count(self, up: int, down: int) -> None:
        with self._mutex:
            self.up += up
            self.down += down
            at, event = self._alarm
            if self.bytes >= at:
                self._open.clear()
                event.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for sock in (client, server):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for source, target, up in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass, args=(source, target, up), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        buffer = memoryview(bytearray(BLOCK))
        with contextlib.suppress(OSError):  # one side is gone: so is the other
            while count := source.recv_into(buffer):
                self._open.wait()
                self._count(count if up else 0, 0 if up else count)
                target.sendall(buffer[:count])
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def unread_bytes(table: str, port: int) -> int:
    """Return what waits for the clients of a port in this machine's table of connections.

    That is what the kernel took from the server of the port but has not got through yet, and what the
    clients have not read.
    """
    waiting = 0
    for line in table.splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        to_send, to_read = (int(text, 16) for text in queues.split(":"))
        if int(local.rpartition(":")[2], 16) == port:
            waiting += to_send
        elif int(remote.rpartition(":")[2], 16) == port:
            waiting += to_read
    return waiting
