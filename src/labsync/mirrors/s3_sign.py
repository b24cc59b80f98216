"""AWS Signature Version 4 for S3, header form: pure, and cheap enough for many small requests.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from labsync.places import Buffer

Headers: TypeAlias = "tuple[tuple[str, str], ...]"
EMPTY = sha256(b"").hexdigest()
UNSIGNED = "UNSIGNED-PAYLOAD"
_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Keys:
    """An access key and its secret; `token` is the session's, empty for keys that last."""

    access: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class _Moment:
    """What is the same for all requests of one second."""

    second: int
    stamp: str
    scope: str
    key: bytes
    signed: str
    credential: str


def payload_hash(data: Buffer) -> str:
    """Return what is signed for a body: its SHA-256 in hex."""
    return sha256(data).hexdigest()


def encode_path(path: str) -> str:
    """Return a path as it is sent and signed: every byte but `A-Z a-z 0-9 - . _ ~ /` as `%XX`."""
    return quote(path, safe="/~", errors="surrogatepass")  # a key that cannot be is the server's to refuse


def encode_query(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a query as it is sent and signed: encoded, then sorted."""
    encoded = sorted((quote(name, safe="~"), quote(value, safe="~")) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)


class Signer:
    """Signs what is sent to one host in one region with one pair of keys. Safe for several threads.

    `now` is the wall clock in seconds.
    """

    def __init__(self, keys: Keys, region: str, host: str, *, now: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._region = region
        self._host = host
        self._now = now
        self._moment = _Moment(-1, "", "", b"", "", "")

    def headers(self, method: str, path: str, query: str, extra: Headers, payload: str) -> str:
        """Return the request's header lines, each with its CRLF: `extra` and those of the signature.

        `path` and `query` are encoded already; names in `extra` are lower-case; `payload` is the
        body's SHA-256 or `UNSIGNED`.
        """
        second = int(self._now())
        moment = self._moment
        if moment.second != second:
            self._moment = moment = self._at(second)
        headers = [("host", self._host), ("x-amz-content-sha256", payload), ("x-amz-date", moment.stamp)]
        if self._keys.token:
            headers.append(("x-amz-security-token", self._keys.token))
        names = moment.signed
        if extra:
            headers += extra
            headers.sort()
            names = ";".join([name for name, _ in headers])
        canonical = "".join([f"{name}:{' '.join(value.split())}\n" for name, value in headers])
        request = f"{method}\n{path}\n{query}\n{canonical}\n{names}\n{payload}"
        to_sign = (
            f"{_ALGORITHM}\n{moment.stamp}\n{moment.scope}\n{sha256(request.encode('utf-8')).hexdigest()}"
        )
        signature = hmac.digest(moment.key, to_sign.encode(), "sha256").hex()
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
        return f"{lines}authorization: {moment.credential}, SignedHeaders={names}, Signature={signature}\r\n"

    def _at(self, second: int) -> _Moment:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        scope = f"{stamp[:8]}/{self._region}/s3/aws4_request"
        key = b"AWS4" + self._keys.secret.encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        names = "host;x-amz-content-sha256;x-amz-date"
        return _Moment(
            second,
            stamp,
            scope,
            key,
            f"{names};x-amz-security-token" if self._keys.token else names,
            f"{_ALGORITHM} Credential={self._keys.access}/{scope}",
        )
