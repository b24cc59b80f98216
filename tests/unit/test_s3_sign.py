"""Signatures: the same as botocore's, for whatever is signed."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import TYPE_CHECKING
from unittest import mock

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.utils import percent_encode
from hypothesis import given, settings
from hypothesis import strategies as st

from labsync.mirrors.s3_sign import EMPTY, UNSIGNED, Keys, Signer, encode_path, encode_query, payload_hash

if TYPE_CHECKING:
    from collections.abc import Mapping

ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
PATHS = st.one_of(ANY, st.text(" +%~/.*'()!@=&?#:;,é€😀aZ0", max_size=30)).map(lambda key: f"/bucket/{key}")
NAMES = st.sampled_from(
    ["range", "content-md5", "if-match", "if-none-match", "content-type", "x-amz-checksum-crc32", "a", "zz"]
)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
TIMES = st.integers(0, 4_000_000_000)
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def sent(text: str) -> dict[str, str]:
    """Read header lines as a server does."""
    lines = text.split("\r\n")
    assert lines.pop() == ""
    found = dict(line.split(": ", 1) for line in lines)
    assert len(found) == len(lines)
    return found


def botocores(  # noqa: PLR0917  all that is signed
    keys: Keys, region: str, method: str, url: str, headers: Mapping[str, str], body: bytes, second: int
) -> dict[str, str]:
    """Sign as botocore does at that second."""
    request = AWSRequest(method, url, headers=headers, data=body)
    at = dt.datetime.fromtimestamp(second, dt.timezone.utc)
    with mock.patch("botocore.auth.get_current_datetime", return_value=at):
        credentials = Credentials(keys.access, keys.secret, keys.token or None)
        S3SigV4Auth(credentials, "s3", region).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


@settings(deadline=None)
@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE"]),
    path=PATHS,
    query=st.lists(st.tuples(ANY, ANY), max_size=4),
    extra=st.dictionaries(NAMES, VALUES, max_size=4),
    body=st.binary(max_size=64),
    token=st.sampled_from(["", "FwoGZXIvYXdzE//abc+=="]),
    second=TIMES,
)
def test_a_signature_is_botocores(  # noqa: PLR0917  all that is signed
    method: str,
    path: str,
    query: list[tuple[str, str]],
    extra: dict[str, str],
    body: bytes,
    token: str,
    second: int,
) -> None:
    keys = Keys("AKIDEXAMPLE", SECRET, token)
    signer = Signer(keys, "eu-west-1", "host.example:9000", now=lambda: second + 0.9)
    encoded = encode_query(query)
    got = sent(signer.headers(method, encode_path(path), encoded, tuple(extra.items()), payload_hash(body)))
    url = f"http://host.example:9000{encode_path(path)}" + (f"?{encoded}" if encoded else "")
    expected = botocores(keys, "eu-west-1", method, url, extra, body, second)
    assert got.pop("host") == "host.example:9000"
    assert got == expected


@settings(deadline=None)
@given(path=PATHS, query=st.lists(st.tuples(ANY, ANY), max_size=4))
def test_encoding_is_botocores(path: str, query: list[tuple[str, str]]) -> None:
    assert encode_path(path) == percent_encode(path, safe="/~")
    request = AWSRequest("GET", "http://host/", params=query)
    assert encode_query(query) == S3SigV4Auth(None, "s3", "r").canonical_query_string(request)


@settings(deadline=None)
@given(seconds=st.lists(TIMES, min_size=2, max_size=5))
def test_one_signer_signs_at_any_time(seconds: list[int]) -> None:
    keys = Keys("AKIDEXAMPLE", SECRET)
    times = iter(seconds)
    signer = Signer(keys, "us-east-1", "h", now=lambda: next(times))
    for second in seconds:
        got = sent(signer.headers("GET", "/b/k", "", (), EMPTY))
        expected = botocores(keys, "us-east-1", "GET", "http://h/b/k", {}, b"", second)
        assert got["authorization"] == expected["authorization"]


def test_a_body_may_stay_unsigned() -> None:
    signer = Signer(Keys("AKIDEXAMPLE", SECRET), "us-east-1", "h", now=lambda: 0)
    got = sent(signer.headers("PUT", "/b/k", "", (), UNSIGNED))
    assert got["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    signed = sent(signer.headers("PUT", "/b/k", "", (), EMPTY))
    assert got["authorization"] != signed["authorization"]
    assert hashlib.sha256().hexdigest() == EMPTY


def test_secrets_are_not_shown() -> None:
    shown = repr(Keys("AKIDEXAMPLE", SECRET, "the token"))
    assert "AKIDEXAMPLE" in shown
    assert SECRET not in shown
    assert "the token" not in shown
