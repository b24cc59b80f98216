"""One small HTTP reader: resumes, follows redirects itself, and believes no answer it can check.

Used by the origins that speak HTTP. It never asks for compression, never sends credentials to a second
server, never goes from https to http, and never names a query string or a password in a message.
"""

from __future__ import annotations

import contextlib
import copy
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import SplitResult, urljoin, urlsplit

from labsync.errors import IntegrityError, InvalidError, LabsyncError, RefusedError, UnavailableError
from labsync.origins.http_errors import Answer, bare, status_error, transport_error
from labsync.origins.sink import write_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from urllib3 import BaseHTTPResponse, PoolManager

    from labsync.places import Advance
    from labsync.snapshot import FileEntry

    Explain: TypeAlias = Callable[[Answer], LabsyncError]

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 30.0
MAX_REDIRECTS = 10
BLOCK = 1 << 20
_REDIRECTS = {301, 302, 303, 307, 308}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_UNSATISFIED = re.compile(r"bytes \*/(\d+)")


@dataclass(frozen=True, slots=True)
class _Hop:
    """Where the request is now, and what may still be sent there."""

    url: str
    headers: Mapping[str, str]

    def follow(self, location: str) -> _Hop:
        """Return the next hop; raises RefusedError (12) where it would be less safe than this one."""
        try:
            target = urljoin(self.url, location)
            old, new = urlsplit(self.url), urlsplit(target)
            is_same = _server(old) == _server(new)
        except ValueError as error:
            raise UnavailableError(f"`{bare(self.url)}` redirects to what is no address") from error
        if new.scheme not in {"http", "https"} or (old.scheme, new.scheme) == ("https", "http"):
            raise RefusedError(
                f"`{bare(self.url)}` redirects to `{bare(target)}`, which is not https",
                hint="use an origin that stays on https",
            )
        if is_same:
            return _Hop(target, self.headers)
        public = {name: value for name, value in self.headers.items() if name != "Authorization"}
        return _Hop(target, public)


def _server(url: SplitResult) -> tuple[str, str | None, int]:
    return url.scheme, url.hostname, url.port or (443 if url.scheme == "https" else 80)


class HttpReader:
    """Reads files over HTTP; safe for several threads."""

    def __init__(
        self,
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        self._timeouts = (connect_timeout, read_timeout)
        self._explain: Explain = status_error
        self._pools: dict[str, PoolManager] = {}

    def explaining(self, explain: Explain) -> HttpReader:
        """Return a reader on the same connections whose failed answers become the errors of `explain`."""
        other = copy.copy(self)
        other._explain = explain
        return other

    def read(
        self,
        url: str,
        entry: FileEntry,
        into: Path,
        start: int,
        advance: Advance,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Fulfil the contract of `Reader.read` for the file at `url`."""
        if start and start == entry.size:
            return
        sent = {**(headers or {}), "Range": f"bytes={start}-"} if start else {**(headers or {})}
        with self._answer("GET", url, sent) as (response, answer):
            restarts = answer.status == 416 or (start > 0 and answer.status == 200)
            if restarts:
                advance(-start)
            if answer.status != 416:
                start = 0 if restarts else start
                _check(answer, entry, start)
                write_blocks(_blocks(response, url), entry, into, start, advance)
                return
        if not start:
            raise UnavailableError(f"`{bare(url)}` answered 416 although no range was asked for")
        self.read(url, entry, into, 0, advance, headers)

    def size(self, url: str, headers: Mapping[str, str] | None = None) -> int:
        """Return the file's size in bytes, -1 where the server does not tell; reads at most a byte.

        Raises as `Reader.read` does.
        """
        with contextlib.suppress(LabsyncError), self._answer("HEAD", url, headers or {}) as (_, answer):
            if (size := _whole_size(answer)) >= 0 and not _is_page(answer):
                return size
        with self._answer("GET", url, {**(headers or {}), "Range": "bytes=0-0"}) as (_, answer):
            if _is_page(answer):
                raise _page_error(answer)
            return _whole_size(answer)

    @contextlib.contextmanager
    def _answer(
        self, method: str, url: str, headers: Mapping[str, str]
    ) -> Iterator[tuple[BaseHTTPResponse, Answer]]:
        """Open the answer after all redirects; it has status 200, 206 or 416, else this raises."""
        response, answer = self._request(method, url, headers)
        if answer.status == 403 and _server(urlsplit(answer.url)) != _server(urlsplit(url)):
            # A signed link that ran out: the server that gave it gives a fresh one.
            _discard(response)
            response, answer = self._request(method, url, headers)
        try:
            if answer.status not in {200, 206, 416}:
                raise self._explain(answer)
            yield response, answer
        finally:
            response.close()  # a connection whose answer was read to its end is in the pool again already

    def _request(self, method: str, url: str, headers: Mapping[str, str]) -> tuple[BaseHTTPResponse, Answer]:
        hop = _Hop(url, {**headers, "Accept-Encoding": "identity"})
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send(method, hop)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                lowered = {name.lower(): value for name, value in response.headers.items()}
                return response, Answer(hop.url, response.status, lowered)
            _discard(response)
            hop = hop.follow(location)
        raise UnavailableError(f"`{bare(url)}` redirects more than {MAX_REDIRECTS} times")

    def _send(self, method: str, hop: _Hop) -> BaseHTTPResponse:
        import urllib3

        connect, read = self._timeouts
        try:
            return self._pool(hop.url).urlopen(
                method,
                hop.url,
                headers=dict(hop.headers),
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=connect, read=read),
            )
        except urllib3.exceptions.LocationValueError as error:
            raise InvalidError(f"`{bare(hop.url)}` is not a web address") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise transport_error(hop.url, error) from error

    def _pool(self, url: str) -> PoolManager:
        """Return the connections to use for `url`: the proxy that the environment names, or none."""
        from urllib.request import getproxies, proxy_bypass

        import urllib3

        from labsync import __version__

        host = urlsplit(url)
        proxy = "" if proxy_bypass(host.netloc.rpartition("@")[2]) else getproxies().get(host.scheme, "")
        if proxy not in self._pools:
            agent = {"User-Agent": f"labsync/{__version__}"}
            made = (
                urllib3.ProxyManager(proxy, maxsize=16, headers=agent)
                if proxy
                else urllib3.PoolManager(maxsize=16, headers=agent)
            )
            self._pools.setdefault(proxy, made)
        return self._pools[proxy]


def _discard(response: BaseHTTPResponse) -> None:
    """Let go of an answer whose body is of no interest, keeping the connection where that is cheap."""
    import urllib3

    with contextlib.suppress(urllib3.exceptions.HTTPError):
        response.read(1 << 16)
    response.close()


def _blocks(response: BaseHTTPResponse, url: str) -> Iterator[bytes]:
    """Yield the body as it comes in, so that a cut connection loses nothing that had arrived."""
    import urllib3

    while True:
        try:
            block = response.read1(BLOCK)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise transport_error(url, error) from error
        if not block:
            return
        yield block


def _whole_size(answer: Answer) -> int:
    """Return the size of the whole file as the answer tells it, -1 where it does not."""
    text = answer.headers.get("content-range", "")
    if match := _CONTENT_RANGE.fullmatch(text) or _UNSATISFIED.fullmatch(text):
        total = match[match.re.groups]
        return -1 if total == "*" else int(total)
    if answer.status != 200 or answer.is_encoded:
        return -1
    length = answer.headers.get("content-length", "")
    return int(length) if length.isdigit() else -1


def _check(answer: Answer, entry: FileEntry, start: int) -> None:
    """Raise when the answer cannot be the bytes of `entry` from `start` on."""
    if answer.is_encoded:
        raise UnavailableError(
            f"`{bare(answer.url)}` sent the file compressed although asked not to", path=entry.path
        )
    size = _whole_size(answer)
    if _is_page(answer) and (size != entry.size or size < 0):
        raise _page_error(answer)
    if answer.status == 206:
        _check_range(answer, entry, start)
    if size >= 0 and 0 <= entry.size != size:
        what = f"`{bare(answer.url)}` has {size} bytes, and {entry.size} were expected"
        kind = IntegrityError if size > entry.size else UnavailableError
        raise kind(what, path=entry.path, hint="the file has changed at its origin: `labsync lock --upgrade`")


def _check_range(answer: Answer, entry: FileEntry, start: int) -> None:
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
    last = entry.size - 1 if entry.size >= 0 else None
    if match is None or int(match[1]) != start or (last is not None and int(match[2]) > last):
        raise UnavailableError(
            f"`{bare(answer.url)}` answered with another range than the one asked for", path=entry.path
        )


def _is_page(answer: Answer) -> bool:
    """Say whether a web page came where its address promises something else."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "text/html" and not urlsplit(answer.url).path.lower().endswith((".html", ".htm"))


def _page_error(answer: Answer) -> UnavailableError:
    return UnavailableError(
        f"`{bare(answer.url)}` answered with a web page instead of the file",
        hint="this network may want you to sign in first; open the address in a browser",
    )
