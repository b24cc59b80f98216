"""One HTTP/1.1 connection over a socket: a request, its answer's head, its body as it comes in.

Written by hand because a small GET costs 50 microseconds so, and a millisecond with a general client.
It knows nothing of S3. One thread uses a connection at a time.
"""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from labsync.stall import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from labsync.places import Buffer

Kind: TypeAlias = Literal["unreachable", "proxy", "tls", "silent", "broken", "garbled"]
Blocks: TypeAlias = "Generator[memoryview, None, None]"
Saw: TypeAlias = "Callable[[int], None]"

BUFFER = 512 << 10
MAX_HEAD = 64 << 10
SILENCE = 30.0  # seconds without a byte
_GLANCES = 10  # system calls that a whole silence takes: in one alone, nobody knows when its last byte came
_SMALL = 64 << 10  # a body up to this size is sent with its head, and yielded as one block
_SLICE = 256 << 10
_LINE = 4 << 10  # a chunk's size, with what extensions a server may add
_INTERIM = 8  # 1xx answers before the real one


class Failed(Exception):  # noqa: N818 - it never leaves the mirror's modules
    """A connection failed; `heard` says whether a byte of the answer had come."""

    def __init__(self, kind: Kind, *, heard: bool = False) -> None:
        super().__init__(kind)
        self.kind = kind
        self.heard = heard


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer; header names are lower-case.

    `length` is the body's, -1 where only its end tells; `chunked` says how that is told.
    """

    status: int
    headers: Mapping[str, str]
    length: int
    chunked: bool
    keeps: bool


class Connection:
    """A connected socket, plain or with TLS. `idle_since` is for the pool that keeps it."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        silence: float = SILENCE,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.idle_since = 0.0
        self._sock = sock
        self._secure = type(sock) is not socket.socket
        self._now = now
        self._waited = 0.0  # seconds spent in the network: only they count as a stall
        self._silent = 0.0  # those of them since the last byte
        self._memory = bytearray(BUFFER)
        self._view = memoryview(self._memory)
        self._start = self._end = 0  # what has come and was not taken yet
        self._silence = 0.0
        self.be_patient(silence)

    @property
    def sock(self) -> socket.socket:
        """The socket itself."""
        return self._sock

    def be_patient(self, seconds: float) -> None:
        """Wait so long for the next byte, or for the next to be taken.

        A plain socket blocks and the kernel watches the time, which saves one system call in two.
        """
        if seconds == self._silence:
            return
        self._silence = seconds
        glance = seconds / _GLANCES
        if self._secure:
            self._sock.settimeout(glance)
            return
        self._sock.settimeout(None)
        timeval = struct.pack("ll", int(glance), int(glance % 1 * 1_000_000))
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)

    def watch(self, what: str) -> Saw:
        """Return what hears of each byte of one exchange, and raises UnavailableError when it stalls.

        Only time spent in the network counts.
        """
        return Watch(what, now=lambda: self._waited).saw

    def close(self) -> None:
        """Close the socket; also from another thread, whose wait ends."""
        self._sock.close()

    # Sending.

    def send(self, head: bytes, body: Buffer, saw: Saw, sent: Callable[[int], None] | None) -> None:
        """Send a request. `sent` hears of the body's bytes, slice by slice, and may raise to stop."""
        if len(body) <= _SMALL:
            self._send(head + body if body else head, saw)
            if sent and body:
                sent(len(body))
            return
        self._send(head, saw)
        with memoryview(body) as view:
            for at in range(0, len(view), _SLICE):
                part = view[at : at + _SLICE]
                self._send(part, saw)
                if sent:
                    sent(len(part))

    def _send(self, data: Buffer, saw: Saw) -> None:
        rest = data
        self._silent = 0.0
        while True:
            began = self._now()
            try:
                count = self._sock.send(rest)
            except (TimeoutError, BlockingIOError) as error:
                if self._is_silent(began):
                    raise Failed("silent") from error
                continue
            except OSError as error:
                raise Failed("broken") from error
            self._moved(began)
            saw(count)
            if count == len(rest):
                return
            rest = memoryview(rest)[count:]

    def _moved(self, began: float) -> None:
        self._waited += self._now() - began
        self._silent = 0.0

    def _is_silent(self, began: float) -> bool:
        """Take note of a glance that saw no byte move; say whether that was one too many."""
        passed = self._now() - began
        self._waited += passed
        self._silent += passed
        return self._silent >= self._silence

    # Receiving.

    def head(self, method: str, saw: Saw) -> Head:
        """Return the head of the answer to a request of this method; interim answers are skipped."""
        for _ in range(_INTERIM):
            head = _parse(self._raw_head(saw), method)
            if head.status >= 200:
                return head
        raise Failed("garbled", heard=True)

    def _raw_head(self, saw: Saw) -> str:
        if self._start == self._end:
            self._start = self._end = 0
        while (at := self._memory.find(b"\r\n\r\n", self._start, self._end)) < 0:
            heard = self._start < self._end
            if self._end - self._start > MAX_HEAD or self._end == BUFFER:
                raise Failed("garbled", heard=True)
            try:
                count = self._receive(self._end, BUFFER, saw, 0)
            except Failed as failure:
                failure.heard = heard
                raise
            if not count:
                raise Failed("broken", heard=heard)
            self._end += count
        if at - self._start > MAX_HEAD:
            raise Failed("garbled", heard=True)
        text = str(self._view[self._start : at], "latin-1")
        self._start = at + 4
        return text

    def body(self, head: Head, saw: Saw) -> Blocks:
        """Yield the body's bytes; each block is valid until the next one is asked for.

        The end is reached only when the body is whole: a cut one raises Failed after what had come.
        """
        if head.chunked:
            return self._chunks(saw)
        if head.length < 0:
            return self._to_the_end(saw)
        return self._sized(head.length, saw)

    def _sized(self, left: int, saw: Saw) -> Blocks:
        if left <= _SMALL:
            self._fill(self._start + left, saw)
        while left:
            if self._start == self._end:
                self._start = self._end = 0
                self._fill(min(left, BUFFER), saw)
                if not self._end:
                    raise Failed("broken", heard=True)
            block = self._take(left)
            left -= len(block)
            yield block

    def _to_the_end(self, saw: Saw) -> Blocks:
        while self._start < self._end or self._more(saw):
            yield self._take(BUFFER)

    def _chunks(self, saw: Saw) -> Blocks:
        """Yield the body of an answer that tells each chunk's size before it (RFC 9112, 7.1)."""
        while size := self._chunk_size(saw):
            while size:
                if self._start == self._end and not self._more(saw):
                    raise Failed("broken", heard=True)
                block = self._take(size)
                size -= len(block)
                yield block
            if self._line(saw):
                raise Failed("garbled", heard=True)
        while self._line(saw):
            pass  # trailers, which nobody here asked for

    def _chunk_size(self, saw: Saw) -> int:
        text = self._line(saw).partition(b";")[0].strip()
        if not 0 < len(text) <= 15 or text.strip(b"0123456789abcdefABCDEF"):
            raise Failed("garbled", heard=True)
        return int(text, 16)

    def _line(self, saw: Saw) -> bytes:
        while (at := self._memory.find(b"\r\n", self._start, self._end)) < 0:
            if self._end - self._start > _LINE:
                raise Failed("garbled", heard=True)
            if self._start:  # to the front, so that a line never meets the end of the memory
                have = bytes(self._view[self._start : self._end])
                self._start, self._end = 0, len(have)
                self._view[: self._end] = have
            count = self._receive(self._end, BUFFER, saw, 0)
            if not count:
                raise Failed("broken", heard=True)
            self._end += count
        line = bytes(self._view[self._start : at])
        self._start = at + 2
        return line

    def _take(self, limit: int) -> memoryview:
        block = self._view[self._start : min(self._end, self._start + limit)]
        self._start += len(block)
        return block

    def _more(self, saw: Saw) -> bool:
        """Receive into the empty memory; False at the end of the stream."""
        self._start = 0
        self._end = self._receive(0, BUFFER, saw, 0)
        return self._end > 0

    def _fill(self, stop: int, saw: Saw) -> None:
        """Receive up to `stop`, or less where the stream ends or fails: then the next call says so."""
        while self._end < stop:
            try:
                count = self._receive(self._end, stop, saw, 0 if self._secure else socket.MSG_WAITALL)
            except Failed:
                if self._start < self._end:
                    return
                raise
            if not count:
                return
            self._end += count

    def _receive(self, at: int, stop: int, saw: Saw, flags: int) -> int:
        while True:
            began = self._now()
            try:
                count = self._sock.recv_into(self._view[at:stop], 0, flags)
            except (TimeoutError, BlockingIOError) as error:
                if self._is_silent(began):
                    raise Failed("silent", heard=True) from error
                continue
            except OSError as error:
                raise Failed("broken", heard=True) from error
            self._moved(began)
            saw(count)
            return count


def _parse(text: str, method: str) -> Head:
    first, *lines = text.split("\r\n")
    code = first[9:12]
    if first[:7] != "HTTP/1." or first[8:9] != " " or not (code.isascii() and code.isdigit()):
        raise Failed("garbled", heard=True)
    headers = _fields(lines)
    status = int(code)
    coding = headers.get("transfer-encoding", "").lower()
    if coding not in {"", "identity", "chunked"}:
        raise Failed("garbled", heard=True)
    empty = method == "HEAD" or status < 200 or status in {204, 304}
    chunked = coding == "chunked" and not empty
    text = "0" if empty else "" if chunked else headers.get("content-length", "")
    if text and not (text.isascii() and text.isdigit()):
        raise Failed("garbled", heard=True)
    wish = headers.get("connection", "").lower()
    keeps = "close" not in wish and (first[7] != "0" or "keep-alive" in wish)
    return Head(status, headers, int(text) if text else -1, chunked, keeps and (chunked or text != ""))


def _fields(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name, value = name.lower(), value.strip()
        if not colon or name != name.strip():  # a folded line, or no header at all
            raise Failed("garbled", heard=True)
        if name == "content-length" and headers.get(name, value) != value:
            raise Failed("garbled", heard=True)
        headers[name] = value
    return headers
