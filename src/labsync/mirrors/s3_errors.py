"""What S3's answers and its failing connections mean: the one place where they become labsync's errors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from labsync.errors import (
    DiskError,
    IntegrityError,
    LabsyncError,
    NotAllowedError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from labsync.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labsync.mirrors.s3_answers import Answer
    from labsync.mirrors.s3_connection import Kind


class RightMissingError(NotAllowedError):
    """The server knows who asks, and that they may not: a right is missing in the policy."""


class NotImplementedByServerError(RefusedError):
    """The server does not know what was asked, for example a conditional write."""


NO_KEYS = "set `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or write them to `~/.aws/credentials`"
_RENEW = "fetch new credentials and run the same command again: what had arrived is kept"
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_DENIED: Mapping[str, tuple[str, str]] = {
    "InvalidAccessKeyId": ("does not know the access key", NO_KEYS),
    "SignatureDoesNotMatch": ("says that the secret key does not belong to the access key", NO_KEYS),
    "InvalidToken": ("does not accept the session token", "set or unset `AWS_SESSION_TOKEN`"),
    **dict.fromkeys(EXPIRED, ("says that the credentials have expired", _RENEW)),
}
_ELSEWHERE = {
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "301",
}
_WRONG_BYTES = {
    "BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch",
    "InvalidRange", "416",
}  # fmt: skip
_LATER = {
    "SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "OperationAborted",
    "ConditionalRequestConflict", "IncompleteBody", "429", "TemporaryRedirect",
}  # fmt: skip
_S3_TOO = {301, 307, 401, 403, 429}  # what S3 and a proxy before it say by the status alone
_FULL = {"XMinioStorageFull", "QuotaExceeded", "InsufficientStorage"}


def answer_error(answer: Answer, at: str) -> LabsyncError:
    """Return the error that S3's answer means; `at` is the address of the bucket or the object.

    A 403 is never read as absence.
    """
    code, status = answer.problem.code, answer.status
    if code in _DENIED:
        what, hint = _DENIED[code]
        return NotAllowedError(f"`{at}` {what} ({code})", hint=hint)
    if code == "RequestTimeTooSkewed":
        return _skewed(at, answer.headers)
    if code in {"NoSuchBucket", "NoSuchKey", "NoSuchUpload", "404"} or status == 404:
        return _absent(code, at)
    if code in _ELSEWHERE or status == 301:
        return _elsewhere(at, region_of(answer))
    if code in _WRONG_BYTES:
        return IntegrityError(f"`{at}` did not get or does not hold the bytes it should ({code})")
    if code in _FULL or status == 507:
        return DiskError(f"the storage of `{at}` is full ({code})", hint="make room in the bucket")
    return _by_status(answer, at)


def listing_error(answer: Answer, at: str) -> LabsyncError:
    """Return the error that the answer to a listing means; one without S3's words is somebody else's."""
    is_known = answer.has_problem or answer.status in _S3_TOO or answer.status >= 500
    return answer_error(answer, at) if is_known else no_s3(at)


def no_s3(at: str) -> NotFoundError:
    """Return the error that something answers, but not as S3 does."""
    return NotFoundError(
        f"what answers at `endpoint:` is no S3 server, or has no bucket for `{at}`",
        safe="it was not taken for an empty mirror",
        hint="check `endpoint:` and the name of the bucket in the manifest",
        path=at,
    )


def _by_status(answer: Answer, at: str) -> LabsyncError:
    code, status = answer.problem.code, answer.status
    if status in {401, 403}:
        return RightMissingError(
            f"`{at}` refuses access ({code})",
            hint=(
                "check the credentials and the bucket's policy; without `s3:ListBucket` AWS answers so for "
                "missing objects too"
            ),
        )
    if status == 501 or code == "NotImplemented":
        return NotImplementedByServerError(f"`{at}` does not know this request ({code})")
    if code in _LATER or status in {307, 429} or status >= 500:
        from labsync.origins.http_errors import retry_after  # slow to import, and seldom needed

        wait = retry_after(answer.headers)
        return UnavailableError(f"`{at}` cannot answer now ({code})", retry_after=wait)
    return RefusedError(f"`{at}` refuses the request: {code} {redact(answer.problem.message)}".rstrip())


def region_of(answer: Answer) -> str:
    """Return the region that an answer says the bucket is in, empty where it does not say."""
    return answer.headers.get("x-amz-bucket-region", "") or answer.problem.region


def _absent(code: str, at: str) -> NotFoundError:
    if code == "NoSuchBucket":
        return NotFoundError(
            f"the bucket of `{at}` does not exist", hint="create it, or correct `mirror:` in the manifest"
        )
    return NotFoundError(f"`{at}` does not exist", path=at)


def _elsewhere(at: str, region: str) -> NotFoundError:
    return NotFoundError(
        f"the bucket of `{at}` is not in this region",
        hint=f"write `mirror: {{url: …, region: {region or '…'}}}` in the manifest, or set `AWS_REGION`",
    )


def _skewed(at: str, headers: Mapping[str, str]) -> NotAllowedError:
    import email.utils

    parsed = email.utils.parsedate_tz(headers.get("date", ""))
    off = f" by {time.time() - email.utils.mktime_tz(parsed):+.0f} s" if parsed else ""
    return NotAllowedError(
        f"`{at}` refuses access because this machine's clock is wrong{off}",
        hint="set the clock: S3 allows 15 minutes",
    )


def transport_error(kind: Kind, at: str) -> UnavailableError:
    """Return the error that a failed connection means."""
    match kind:
        case "unreachable":
            return UnavailableError(
                f"the server of `{at}` does not answer", hint="check the network and `endpoint:`"
            )
        case "proxy":
            return UnavailableError(
                f"the proxy on the way to the server of `{at}` does not answer",
                hint="check `HTTPS_PROXY` and `NO_PROXY`",
            )
        case "tls":
            return UnavailableError(
                f"the secure connection to the server of `{at}` failed",
                hint=(
                    "check `endpoint:`, where a server without TLS has `http://`, and for a proxy that "
                    "inspects traffic: `AWS_CA_BUNDLE` names its certificate"
                ),
            )
        case "silent":
            return UnavailableError(f"the server of `{at}` stopped answering")
        case "garbled":
            return UnavailableError(f"the answer of the server of `{at}` cannot be read")
        case "broken":
            return UnavailableError(f"the connection to the server of `{at}` broke")
