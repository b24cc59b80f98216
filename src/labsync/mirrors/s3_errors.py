"""What S3's and botocore's errors mean: the one place where they become labsync's."""

from __future__ import annotations

import contextlib
import email.utils
import time
from typing import TYPE_CHECKING, TypedDict

from labsync.errors import (
    DiskError,
    IntegrityError,
    InvalidError,
    LabsyncError,
    NotAllowedError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from labsync.origins.http_errors import retry_after
from labsync.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from botocore.exceptions import BotoCoreError, ClientError


class _Error(TypedDict, total=False):
    Code: str
    Message: str
    Region: str


class _Metadata(TypedDict, total=False):
    HTTPStatusCode: int
    HTTPHeaders: Mapping[str, str]


class _Response(TypedDict, total=False):
    Error: _Error
    ResponseMetadata: _Metadata


class NotImplementedByServerError(RefusedError):
    """The server does not know what was asked, for example a conditional write."""


_KEYS = "set `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or write them to `~/.aws/credentials`"
_RENEW = "fetch new credentials and run the same command again: what had arrived is kept"
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_DENIED: Mapping[str, tuple[str, str]] = {
    "InvalidAccessKeyId": ("does not know the access key", _KEYS),
    "SignatureDoesNotMatch": ("says that the secret key does not belong to the access key", _KEYS),
    "InvalidToken": ("does not accept the session token", "set or unset `AWS_SESSION_TOKEN`"),
    "ExpiredToken": ("says that the credentials have expired", _RENEW),
    "ExpiredTokenException": ("says that the credentials have expired", _RENEW),
    "TokenRefreshRequired": ("says that the credentials have expired", _RENEW),
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
    "ConditionalRequestConflict", "IncompleteBody", "429",
}  # fmt: skip
_FULL = {"XMinioStorageFull", "QuotaExceeded", "InsufficientStorage"}


@contextlib.contextmanager
def s3_errors(at: str) -> Iterator[None]:
    """Translate what botocore raises in the block; `at` is the address of the bucket or the object."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as error:
        raise client_error(error, at) from error
    except BotoCoreError as error:
        raise transport_error(error, at) from error
    except ResponseParserError as error:
        raise UnavailableError(f"the answer of the server of `{at}` cannot be read") from error


def error_code(error: ClientError) -> str:
    """Return S3's own word for the error; the HTTP status where the answer had no body."""
    response: _Response = error.response
    return response.get("Error", {}).get("Code", "")


def client_error(error: ClientError, at: str) -> LabsyncError:
    """Return the error that S3's answer means; a 403 is never read as absence."""
    response: _Response = error.response
    metadata = response.get("ResponseMetadata", {})
    code, status = error_code(error), metadata.get("HTTPStatusCode", 0)
    headers = metadata.get("HTTPHeaders", {})
    if code in _DENIED:
        what, hint = _DENIED[code]
        return NotAllowedError(f"`{at}` {what} ({code})", hint=hint)
    if code == "RequestTimeTooSkewed":
        return _skewed(at, headers)
    if code in {"NoSuchBucket", "NoSuchKey", "NoSuchUpload", "404"} or status == 404:
        return _absent(code, at)
    if code in _ELSEWHERE or status == 301:
        return _elsewhere(at, response, headers)
    if code in _WRONG_BYTES:
        return IntegrityError(f"`{at}` did not get or does not hold the bytes it should ({code})")
    if code in _FULL or status == 507:
        return DiskError(f"the storage of `{at}` is full ({code})", hint="make room in the bucket")
    return _by_status(error, at, status, retry_after(headers))


def _by_status(error: ClientError, at: str, status: int, wait: float) -> LabsyncError:
    code = error_code(error)
    if status in {401, 403}:
        return NotAllowedError(
            f"`{at}` refuses access ({code or status})",
            hint=(
                "check the credentials and the bucket's policy; without `s3:ListBucket` AWS answers so for "
                "missing objects too"
            ),
        )
    if status == 501 or code == "NotImplemented":
        return NotImplementedByServerError(f"`{at}` does not know this request ({code or status})")
    if code in _LATER or status == 429 or status >= 500:
        return UnavailableError(f"`{at}` cannot answer now ({code or status})", retry_after=wait)
    response: _Response = error.response
    message = redact(response.get("Error", {}).get("Message", ""))
    return RefusedError(f"`{at}` refuses the request: {code or status} {message}".rstrip())


def _absent(code: str, at: str) -> NotFoundError:
    if code == "NoSuchBucket":
        return NotFoundError(
            f"the bucket of `{at}` does not exist", hint="create it, or correct `mirror:` in the manifest"
        )
    return NotFoundError(f"`{at}` does not exist", path=at)


def _elsewhere(at: str, response: _Response, headers: Mapping[str, str]) -> NotFoundError:
    region = headers.get("x-amz-bucket-region") or response.get("Error", {}).get("Region", "")
    return NotFoundError(
        f"the bucket of `{at}` is not in this region",
        hint=f"write `mirror: {{url: …, region: {region or '…'}}}` in the manifest, or set `AWS_REGION`",
    )


def _skewed(at: str, headers: Mapping[str, str]) -> NotAllowedError:
    parsed = email.utils.parsedate_tz(headers.get("date", ""))
    off = f" by {time.time() - email.utils.mktime_tz(parsed):+.0f} s" if parsed else ""
    return NotAllowedError(
        f"`{at}` refuses access because this machine's clock is wrong{off}",
        hint="set the clock: S3 allows 15 minutes",
    )


def transport_error(error: BotoCoreError, at: str) -> LabsyncError:
    """Return the error that botocore's own failure means: credentials, settings, or the network."""
    import botocore.exceptions as foreign

    match error:
        case foreign.NoCredentialsError() | foreign.PartialCredentialsError():
            return NotAllowedError(f"there are no credentials for `{at}`", hint=_KEYS)
        case foreign.ProfileNotFound():
            return NotAllowedError(
                f"the profile that `{at}` is to be opened with does not exist",
                hint="write it to `~/.aws/config`, or correct `profile:` or `AWS_PROFILE`",
            )
        case (
            foreign.CredentialRetrievalError()
            | foreign.TokenRetrievalError()
            | foreign.SSOError()
            | foreign.InvalidConfigError()
            | foreign.ConfigParseError()
        ):
            return NotAllowedError(
                f"the credentials for `{at}` could not be fetched ({type(error).__name__})", hint=_KEYS
            )
        case foreign.ParamValidationError():
            return InvalidError(f"`{at}` is no address that S3 knows", hint="check `mirror:` in the manifest")
        case _:
            return _network_error(error, at)


def _network_error(error: BotoCoreError, at: str) -> UnavailableError:
    import botocore.exceptions as foreign

    match error:
        case (
            foreign.EndpointConnectionError() | foreign.ConnectTimeoutError() | foreign.ProxyConnectionError()
        ):
            return UnavailableError(
                f"the server of `{at}` does not answer", hint="check the network and `endpoint:`"
            )
        case foreign.SSLError():
            return UnavailableError(
                f"the secure connection to the server of `{at}` failed",
                hint="check for a proxy that inspects traffic; `AWS_CA_BUNDLE` names its certificate",
            )
        case foreign.ReadTimeoutError():
            return UnavailableError(f"the server of `{at}` stopped answering")
        case foreign.HTTPClientError() | foreign.IncompleteReadError():
            return UnavailableError(f"the connection to the server of `{at}` broke")
        case _:
            return UnavailableError(f"`{at}` could not be asked ({type(error).__name__})")
