"""How one gets to a file over HTTP: redirects, signed links that run out, and what was learnt on the way."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urljoin, urlsplit

from labsync.errors import IntegrityError, RefusedError, UnavailableError
from labsync.origins.http_errors import bare
from labsync.origins.http_part import UPGRADE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from labsync.origins.http_part import Part

REMEMBERED = 512  # files; a signed link has about 2 kB


@dataclass(frozen=True, slots=True)
class Hop:
    """Where a request is now, and what may be sent there."""

    url: str
    headers: Mapping[str, str]

    def follow(self, location: str) -> Hop:
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
            return Hop(target, self.headers)
        public = {name: value for name, value in self.headers.items() if name != "Authorization"}
        return Hop(target, public)


def is_elsewhere(url: str, other: str) -> bool:
    """Say whether two addresses belong to different servers."""
    return _server(urlsplit(url)) != _server(urlsplit(other))


def _server(url: SplitResult) -> tuple[str, str | None, int]:
    return url.scheme, url.hostname, url.port or (443 if url.scheme == "https" else 80)


@dataclass(frozen=True, slots=True)
class _Known:
    hop: Hop
    etag: str


class Way:
    """The way to one file: the first thread that wants a part of it asks, the others take the same way."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._known: _Known | None = None

    @contextlib.contextmanager
    def turn(self, *, alone: bool) -> Iterator[Hop | None]:
        """Give the hop at which the file is known to lie, None to whom has to ask for it.

        While one thread asks, in the block, the others wait. They wait once: when the one found
        nothing, or goes `alone`, everybody asks for himself.
        """
        if alone or self._known is not None:
            yield None if alone else self._hop
        elif self._asking.acquire(blocking=False):
            try:
                yield self._hop
            finally:
                self._asking.release()
        else:
            with self._asking:
                pass
            yield self._hop

    @property
    def _hop(self) -> Hop | None:
        known = self._known
        return known.hop if known else None

    def learn(self, hop: Hop, etag: str, part: Part, *, is_fresh: bool) -> None:
        """Remember where the file lies, and which version of it lies there.

        Raises IntegrityError when another version lies there now: parts of two versions must not be
        put together (https://www.rfc-editor.org/rfc/rfc9110#section-15.3.7.3).
        """
        known = self._known
        if is_fresh or part.is_whole:
            self._known = _Known(hop, etag)
        elif known and known.hop is hop and known.etag and etag and known.etag != etag:
            raise IntegrityError(
                f"`{bare(hop.url)}` changed while it was being read", path=part.entry.path, hint=UPGRADE
            )

    def forget(self, hop: Hop | None) -> None:
        """Take note that `hop` leads nowhere any more."""
        if hop is not None and self._hop is hop:
            self._known = None


class Ways:
    """The ways to the files asked for last, by address."""

    def __init__(self) -> None:
        self._ways: OrderedDict[str, Way] = OrderedDict()
        self._mutex = threading.Lock()

    def to(self, url: str) -> Way:
        """Return the way to the file of an address."""
        with self._mutex:
            way = self._ways.pop(url, None) or Way()
            self._ways[url] = way
            if len(self._ways) > REMEMBERED:
                self._ways.popitem(last=False)
            return way
