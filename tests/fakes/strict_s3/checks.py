"""What a strict server verifies of a request: its signature, its age, every digest that came with it.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html,
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

from __future__ import annotations

import base64
import calendar
import functools
import hashlib
import hmac
import re
import time
import zlib
from typing import TYPE_CHECKING

from tests.fakes.strict_s3.request import ProblemError, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SKEW = 15 * 60
_UNSIGNED = {"UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}
_CHUNKED = "STREAMING-"
_AUTH = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<access>[^/]+)/(?P<scope>[^,]+), ?"
    r"SignedHeaders=(?P<names>[^,]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)


def check_signature(request: Request, secrets: Mapping[str, str], now: float) -> str:
    """Return the access key that signed the request; ProblemError when the signature is not right."""
    match = _AUTH.fullmatch(request.headers.get("authorization", ""))
    if match is None:
        raise ProblemError(403, "AccessDenied", "anonymous requests are refused")
    if match["access"] not in secrets:
        raise ProblemError(403, "InvalidAccessKeyId")
    stamp = request.headers.get("x-amz-date", "")
    sent = calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ"))
    if abs(sent - now) > SKEW:
        raise ProblemError(403, "RequestTimeTooSkewed", "the difference is too large")
    names = match["names"].split(";")
    missing = [n for n in request.headers if (n.startswith("x-amz-") or n == "host") and n not in names]
    if missing or not _is_signed(request, match, secrets[match["access"]], names):
        raise ProblemError(403, "SignatureDoesNotMatch")
    return match["access"]


def _is_signed(request: Request, match: re.Match[str], secret: str, names: list[str]) -> bool:
    headers = "".join(f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in names)
    pairs = sorted(pair if "=" in pair else f"{pair}=" for pair in request.raw_query.split("&") if pair)
    canonical = "\n".join(
        [
            request.method,
            request.raw_path or "/",
            "&".join(pairs),
            headers,
            match["names"],
            request.headers.get("x-amz-content-sha256", ""),
        ]
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{request.headers['x-amz-date']}\n{match['scope']}\n{digest}"
    key = f"AWS4{secret}".encode()
    for part in match["scope"].split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.compare_digest(hmac.digest(key, to_sign.encode(), "sha256").hex(), match["signature"])


def decoded_body(request: Request) -> tuple[bytes, Mapping[str, str]]:
    """Return the body without the frames of `aws-chunked`, and the checksums of its trailer."""
    if "aws-chunked" not in request.headers.get("content-encoding", ""):
        return request.body, {}
    data, rest = bytearray(), request.body
    while True:
        line, _, rest = rest.partition(b"\r\n")
        size = int(line.split(b";")[0], 16)
        if not size:
            break
        data += rest[:size]
        rest = rest[size + 2 :]
    trailer = dict(line.split(":", 1) for line in rest.decode("ascii").split("\r\n") if ":" in line)
    if str(len(data)) != request.headers.get("x-amz-decoded-content-length"):
        raise ProblemError(400, "IncompleteBody")
    return bytes(data), trailer


def check_body(request: Request, data: bytes, headers: Mapping[str, str]) -> None:
    """Raise ProblemError when the body is not what the request says of it."""
    payload = request.headers.get("x-amz-content-sha256", "")
    if not payload:
        raise ProblemError(400, "InvalidRequest", "x-amz-content-sha256 is missing")
    is_plain = payload not in _UNSIGNED and not payload.startswith(_CHUNKED)
    if is_plain and payload != hashlib.sha256(request.body).hexdigest():
        raise ProblemError(400, "XAmzContentSHA256Mismatch")
    if (md5 := request.headers.get("content-md5")) is not None:
        if len(_binary(md5)) != 16:
            raise ProblemError(400, "InvalidDigest")
        if _binary(md5) != hashlib.md5(request.body).digest():
            raise ProblemError(400, "BadDigest")
    check_checksums(headers, data)


def check_checksums(headers: Mapping[str, str], data: bytes) -> None:
    """Raise ProblemError when one of the `x-amz-checksum-…` headers is not that of the data."""
    for name, digest in DIGESTS.items():
        sent = headers.get(f"x-amz-checksum-{name}")
        if sent is not None and _binary(sent.strip()) != digest(data):
            raise ProblemError(400, "BadDigest", f"the {name} is another one")


def _binary(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ProblemError(400, "InvalidDigest") from None


@functools.cache
def _crc64_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x9A6C9329AC4BC9B5 if value & 1 else 0)  # noqa: PLW2901  the register
        table.append(value)
    return tuple(table)


def crc64nvme(data: bytes) -> bytes:
    """Return the CRC-64/NVME of the data; https://reveng.sourceforge.io/crc-catalogue/all.htm."""
    table, value = _crc64_table(), 0xFFFFFFFFFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return (value ^ 0xFFFFFFFFFFFFFFFF).to_bytes(8, "big")


DIGESTS: Mapping[str, Callable[[bytes], bytes]] = {
    "sha256": lambda data: hashlib.sha256(data).digest(),
    "sha1": lambda data: hashlib.sha1(data).digest(),
    "crc32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "crc64nvme": crc64nvme,
}
