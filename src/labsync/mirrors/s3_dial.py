"""How the server is reached: its address, TLS, the proxy that the environment names, idle connections."""

from __future__ import annotations

import base64
import functools
import os
import select
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from labsync.errors import InvalidError, NotAllowedError
from labsync.mirrors.s3_connection import Connection, Failed

if TYPE_CHECKING:
    import ssl

CONNECT_TIMEOUT = 10.0
KEPT = 64  # idle connections
_FRESH = 1.0  # seconds after which an idle connection is looked at before it is used
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Server:
    """Where requests go: `http` or `https`, host, port."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Server:
        """Return the server of a URL; ValueError when it is none."""
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname or not _is_host(parts.hostname):
            raise ValueError("no http address")
        host = parts.hostname
        if not host.isascii():
            host = host.encode("idna").decode()
        return cls(parts.scheme, host, parts.port or _PORTS[parts.scheme])

    @property
    def name(self) -> str:
        """The `Host` header: without the port where it is the usual one."""
        usual = self.port == _PORTS[self.scheme]
        return self._quoted if usual else f"{self._quoted}:{self.port}"

    @property
    def authority(self) -> str:
        """Host and port, as `CONNECT` has them."""
        return f"{self._quoted}:{self.port}"

    @property
    def _quoted(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def _is_host(host: str) -> bool:
    return host.isprintable() and not set(host) & set(' "<>\\^`{|}')


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the header that opens it (empty where it is open)."""

    server: Server
    header: str = field(default="", repr=False)


def proxy_for(server: Server) -> Proxy | None:
    """Return the proxy that the environment names for this server, None for none."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None  # the usual case; what reads them takes long to import
    from urllib.request import getproxies, proxy_bypass

    url = "" if proxy_bypass(server.name) else getproxies().get(server.scheme, "")
    return _proxy(url if "://" in url else f"http://{url}") if url else None


def _proxy(url: str) -> Proxy:
    try:
        server, parts = Server.of(url), urlsplit(url)
    except ValueError:
        server = None
    if server is None or server.scheme != "http":
        raise InvalidError(
            "the proxy that the environment names is no `http://` address",
            hint="check `HTTPS_PROXY` and `HTTP_PROXY`",
        )
    header = ""
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        header = f"Proxy-Authorization: Basic {base64.b64encode(user.encode()).decode()}\r\n"
    return Proxy(server, header)


class Pool:
    """Connections to one server, the last one used first. Safe for several threads."""

    def __init__(self, server: Server, ca_bundle: str = "") -> None:
        self._server = server
        self._ca_bundle = ca_bundle
        self._idle: list[Connection] = []
        self._proxy = proxy_for(server)

    @property
    def is_secure(self) -> bool:
        """Say whether requests travel by TLS."""
        return self._server.scheme == "https"

    @functools.cached_property
    def target(self) -> str:
        """What stands before a path in a request: the whole address where a proxy is asked."""
        return f"http://{self._server.name}" if self._proxy and not self.is_secure else ""

    @functools.cached_property
    def header(self) -> str:
        """The header line for the proxy, empty where there is none to send."""
        return self._proxy.header if self._proxy and not self.is_secure else ""

    def take(self, *, fresh: bool = False) -> Connection:
        """Return a connection, an idle one unless it must be `fresh`; raises Failed."""
        while not fresh and self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if time.monotonic() - connection.idle_since < _FRESH or not _is_over(connection):
                return connection
            connection.close()
        return Connection(self._connect())

    def give(self, connection: Connection) -> None:
        """Keep a connection whose last answer was read to its end."""
        if len(self._idle) < KEPT:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def __del__(self) -> None:
        self.close()

    def _connect(self) -> socket.socket:
        nearest = self._proxy.server if self._proxy else self._server
        try:
            sock = socket.create_connection((nearest.host, nearest.port), timeout=CONNECT_TIMEOUT)
        except (OSError, UnicodeError) as error:
            raise Failed("proxy" if self._proxy else "unreachable") from error
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if not self.is_secure:
                return sock
            if self._proxy:
                self._tunnel(sock, self._proxy)
            return self._secured(sock)
        except BaseException:
            sock.close()
            raise

    def _tunnel(self, sock: socket.socket, proxy: Proxy) -> None:
        """Ask the proxy for a way through (RFC 9110, 9.3.6)."""
        to = self._server.authority
        asked = f"CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{proxy.header}\r\n".encode()
        connection = Connection(sock, silence=CONNECT_TIMEOUT)
        saw = connection.watch("the proxy")
        try:
            connection.send(asked, b"", saw, None)
            status = connection.head("CONNECT", saw).status
        except Failed as failure:
            raise Failed("proxy") from failure
        if status in {401, 403, 407}:
            raise NotAllowedError(
                f"the proxy on the way to `{self._server.host}` refuses to connect ({status})",
                hint="check `HTTPS_PROXY`, its user and its password, and `NO_PROXY`",
            )
        if status != 200:
            raise Failed("proxy")

    def _secured(self, sock: socket.socket) -> socket.socket:
        sock.settimeout(CONNECT_TIMEOUT)
        try:
            return self._context.wrap_socket(sock, server_hostname=self._server.host)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError, and so is a server's silence
            raise Failed("tls") from error

    @functools.cached_property
    def _context(self) -> ssl.SSLContext:
        import ssl

        try:
            return ssl.create_default_context(cafile=self._ca_bundle or _own_bundle())
        except OSError as error:
            raise InvalidError(
                "the file of certificates that the environment names cannot be read",
                path=self._ca_bundle,
                hint="check `AWS_CA_BUNDLE`",
            ) from error


def _own_bundle() -> str | None:
    """Return botocore's certificates where the system has none, as in many small images; else None."""
    import importlib.util
    import ssl

    paths = ssl.get_default_verify_paths()
    if paths.cafile or (paths.capath and os.listdir(paths.capath)):
        return None
    found = importlib.util.find_spec("botocore")
    folders = found.submodule_search_locations if found else None
    return os.path.join(folders[0], "cacert.pem") if folders else None


def _is_over(connection: Connection) -> bool:
    """Say whether an idle connection has ended: then, or when something unasked came, it is readable."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))
