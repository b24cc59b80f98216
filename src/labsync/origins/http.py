"""One small HTTP reader: asks for exact ranges, follows redirects itself, believes no answer it can check.

Used by the origins that speak HTTP. It never asks for compression, never sends credentials to a second
server, never goes from https to http, and never names a query string or a password in a message. A file
behind a redirect is asked for at the first server once; all further ranges go to where it lies, until
that link runs out.
"""

from __future__ import annotations

import contextlib
import copy
import time
from dataclasses import dataclass
from http.client import RemoteDisconnected
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from labsync.errors import IntegrityError, InvalidError, LabsyncError, UnavailableError
from labsync.origins.http_errors import Answer, bare, status_error, transport_error
from labsync.origins.http_part import Part, check, is_page, page_error, strong_etag, whole_size
from labsync.origins.http_ways import Hop, Way, Ways, is_elsewhere
from labsync.stall import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from urllib3 import BaseHTTPResponse, PoolManager

    from labsync.places import Blocks
    from labsync.snapshot import FileEntry

    Explain: TypeAlias = Callable[[Answer], LabsyncError]

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 30.0
MAX_REDIRECTS = 10
CONNECTIONS = 64  # kept open to each server; more than a run uses at once
# Smaller reads cost more: 64 KiB at a time takes a third more CPU, hashing included.
BLOCK = 1 << 20
_REDIRECTS = {301, 302, 303, 307, 308}
_OK = {200, 206}
# What servers say of a signed link that ran out (S3 and CloudFront 403, Google 400), or is used again.
_RAN_OUT = {400, 401, 403, 404, 410}


@dataclass(frozen=True, slots=True)
class _Opened:
    """An answer whose body was not read yet, and the hop that gave it."""

    response: BaseHTTPResponse
    answer: Answer
    hop: Hop


class HttpReader:
    """Reads files over HTTP; safe for several threads."""

    def __init__(
        self,
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        read_timeout: float = READ_TIMEOUT,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeouts = (connect_timeout, read_timeout)
        self._now = now
        self._explain: Explain = status_error
        self._pools: dict[str, PoolManager] = {}
        self._by_server: dict[tuple[str, str], PoolManager] = {}
        self._ways = Ways()

    def explaining(self, explain: Explain) -> HttpReader:
        """Return a reader on the same connections whose failed answers become the errors of `explain`."""
        other = copy.copy(self)
        other._explain = explain
        return other

    def read(
        self,
        url: str,
        entry: FileEntry,
        start: int = 0,
        stop: int | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        version: str = "",
    ) -> Blocks:
        """Fulfil the contract of `Reader.read` for the file at `url`.

        With a `version`, a strong ETag, NoRangesError where another version lies there.
        """
        part = Part.of(entry, start, stop, version)
        if part.is_empty:
            return
        opened = self._open(url, part, headers or {})
        try:
            yield from self._blocks(opened, part)
        finally:
            opened.response.close()  # read to its end, its connection is in the pool again already

    def look_at(self, url: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Return the file's size in bytes, -1 where the server does not tell, and its ETag if it is strong.

        Reads at most a byte; raises as `Reader.read` does.
        """
        first = _first(url, headers or {})
        with contextlib.suppress(LabsyncError):
            answer = self._head("HEAD", first, {})
            if (size := whole_size(answer)) >= 0 and not is_page(answer):
                return size, strong_etag(answer)
        answer = self._head("GET", first, {"Range": "bytes=0-0"})
        if is_page(answer):
            raise page_error(answer)
        return whole_size(answer), strong_etag(answer)

    def _head(self, method: str, first: Hop, extra: Mapping[str, str]) -> Answer:
        opened = self._follow(method, first, extra)
        _discard(opened.response)
        if opened.answer.status not in {*_OK, 416}:
            raise self._explain(opened.answer)
        return opened.answer

    def _open(self, url: str, part: Part, headers: Mapping[str, str]) -> _Opened:
        """Return the answer that has the part, by the known way or by asking the first server.

        A link that ran out is renewed by the first server, once; before that, the one is tried that
        another thread got meanwhile. A server may refuse a link's second use: then each part asks alone.
        """
        way, first = self._ways.to(url), _first(url, headers)
        asked = 0
        for attempt in range(4):
            with way.turn(alone=attempt > 1) as known:
                opened = self._try(way, known, first, part)
            if opened.answer.status in _OK:
                return opened
            asked += known is None
            may_be_a_link = known is not None or is_elsewhere(opened.answer.url, url)
            if asked == 2 or opened.answer.status not in _RAN_OUT or not may_be_a_link:
                break
        raise self._explain(opened.answer)

    def _try(self, way: Way, known: Hop | None, first: Hop, part: Part) -> _Opened:
        """Return the first server's or the known one's answer: with the part, or a refusal, then closed."""
        opened = None
        try:
            opened = self._follow("GET", known or first, part.headers)
            if opened.answer.status in {*_OK, 416}:
                check(opened.answer, part)
                way.learn(opened.hop, strong_etag(opened.answer), part, is_fresh=known is None)
                return opened
        except BaseException:
            way.forget(known)
            if opened is not None:
                opened.response.close()
            raise
        way.forget(known)
        _discard(opened.response)
        return opened

    def _follow(self, method: str, hop: Hop, extra: Mapping[str, str]) -> _Opened:
        """Send the request, and again to where the answer redirects."""
        begin = hop.url
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send(method, hop, extra)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                lowered = {name.lower(): value for name, value in response.headers.items()}
                return _Opened(response, Answer(hop.url, response.status, lowered), hop)
            _discard(response)
            hop = hop.follow(location)
        raise UnavailableError(f"`{bare(begin)}` redirects more than {MAX_REDIRECTS} times")

    def _send(self, method: str, hop: Hop, extra: Mapping[str, str]) -> BaseHTTPResponse:
        """Send a request; once more when its connection, kept from an earlier one, was closed meanwhile."""
        import urllib3

        try:
            try:
                return self._send_once(method, hop, extra)
            except urllib3.exceptions.ProtocolError as error:
                if not isinstance(error.args[-1], RemoteDisconnected):
                    raise
                return self._send_once(method, hop, extra)
        except urllib3.exceptions.LocationValueError as error:
            raise InvalidError(f"`{bare(hop.url)}` is not a web address") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise transport_error(hop.url, error) from error

    def _send_once(self, method: str, hop: Hop, extra: Mapping[str, str]) -> BaseHTTPResponse:
        import urllib3

        connect, read = self._timeouts
        return self._pool(hop.url).urlopen(
            method,
            hop.url,
            headers={**hop.headers, **extra},
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=urllib3.Timeout(connect=connect, read=read),
        )

    def _pool(self, url: str) -> PoolManager:
        """Return the connections to use for `url`: by the proxy that the environment names, or by none."""
        host = urlsplit(url)
        server = (host.scheme, host.netloc.rpartition("@")[2])
        if server not in self._by_server:
            self._by_server[server] = self._pool_by(_proxy(*server))
        return self._by_server[server]

    def _pool_by(self, proxy: str) -> PoolManager:
        import urllib3

        from labsync import __version__

        if proxy not in self._pools:
            agent = {"User-Agent": f"labsync/{__version__}"}
            made = (
                urllib3.ProxyManager(proxy, maxsize=CONNECTIONS, headers=agent)
                if proxy
                else urllib3.PoolManager(maxsize=CONNECTIONS, headers=agent)
            )
            self._pools.setdefault(proxy, made)
        return self._pools[proxy]

    def _blocks(self, opened: _Opened, part: Part) -> Iterator[bytes]:
        """Yield the body as it comes in, so that a cut connection loses nothing that had arrived."""
        url, path = opened.answer.url, part.entry.path
        left = part.stop - part.start if part.stop >= 0 else -1
        away = 0.0  # seconds that the caller spent between blocks, for which the server cannot be blamed
        watch = Watch(f"`{bare(url)}`", now=lambda: self._now() - away)
        while block := _next(opened.response, url):
            watch.saw(len(block))
            if 0 <= left < len(block):
                raise IntegrityError(f"`{bare(url)}` sent more bytes than it was asked for", path=path)
            left -= len(block) if left >= 0 else 0
            since = self._now()
            yield block
            away += self._now() - since
        if left > 0:
            raise UnavailableError(f"`{bare(url)}` ended {left} bytes too early", path=path)


def _first(url: str, headers: Mapping[str, str]) -> Hop:
    return Hop(url, {**headers, "Accept-Encoding": "identity"})


def _proxy(scheme: str, host: str) -> str:
    from urllib.request import getproxies, proxy_bypass

    return "" if proxy_bypass(host) else getproxies().get(scheme, "")


def _next(response: BaseHTTPResponse, url: str) -> bytes:
    """Return what has come in, waiting for at least one byte; empty at the end."""
    import urllib3

    try:
        return response.read1(BLOCK)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise transport_error(url, error) from error


def _discard(response: BaseHTTPResponse) -> None:
    """Let go of an answer whose body is of no interest, keeping the connection where that is cheap."""
    import urllib3

    with contextlib.suppress(urllib3.exceptions.HTTPError, OSError):
        response.read1(1 << 16)
    response.close()
