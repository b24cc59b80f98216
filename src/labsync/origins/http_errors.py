"""What an HTTP answer or a broken connection means, in words for a person and without secrets."""

from __future__ import annotations

import email.utils
import http
import re
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from labsync.errors import LabsyncError, NotAllowedError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

_RATE_LIMIT = re.compile(r"r=(\d+)[^,]*?t=(\d+)")


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an HTTP answer; header names are lower-case, `url` is where it came from."""

    url: str
    status: int
    headers: Mapping[str, str]

    @property
    def is_encoded(self) -> bool:
        """Say whether the body is not the file's own bytes."""
        return self.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}


def bare(url: str) -> str:
    """Return the address without user, password, query and fragment: those may be secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def retry_after(headers: Mapping[str, str]) -> float:
    """Return how many seconds the server asks us to wait, 0 where it does not say.

    `Retry-After` comes in seconds or as a date; the hub says `RateLimit: "api";r=0;t=55`
    (https://huggingface.co/docs/hub/rate-limits), which counts only when nothing remains.
    """
    asked = headers.get("retry-after", "").strip()
    if asked.isdigit():
        return float(asked)
    if asked and (parsed := email.utils.parsedate_tz(asked)) is not None:
        return max(0.0, email.utils.mktime_tz(parsed) - time.time())
    limits = _RATE_LIMIT.finditer(headers.get("ratelimit", ""))
    return max((float(limit[2]) for limit in limits if limit[1] == "0"), default=0.0)


def status_error(answer: Answer) -> LabsyncError:
    """Return the error that a status of 400 and above, or an unexpected one, means."""
    where, status = bare(answer.url), answer.status
    match status:
        case 401 | 403 | 407 | 451:
            return NotAllowedError(
                f"`{where}` answered {_named(status)}",
                hint="check that the address is public or that your credentials allow it",
            )
        case 404 | 410:
            return NotFoundError(f"`{where}` does not exist", hint="check the address")
        case 429:
            wait = retry_after(answer.headers)
            return UnavailableError(f"`{where}` asks for fewer requests (429)", retry_after=wait)
        case _:
            wait = retry_after(answer.headers)
            return UnavailableError(f"`{where}` answered {_named(status)}", retry_after=wait)


def _named(status: int) -> str:
    try:
        return f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def transport_error(url: str, error: Exception) -> UnavailableError:
    """Return the error that a failed connection to `url` means; `error` is urllib3's or the system's."""
    import urllib3.exceptions as foreign

    host = urlsplit(url).hostname or bare(url)
    match error:
        case foreign.ProxyError():
            return UnavailableError(
                f"the proxy on the way to `{host}` does not answer", hint="check `HTTPS_PROXY` and `NO_PROXY`"
            )
        case foreign.SSLError():
            return _tls_error(host, error)
        case foreign.NameResolutionError():
            return UnavailableError(
                f"the name `{host}` could not be looked up", hint="check the network: is this machine online?"
            )
        case foreign.NewConnectionError():
            return UnavailableError(
                f"no connection to `{host}` could be made", hint="check the address and the network"
            )
        case foreign.ConnectTimeoutError():
            return UnavailableError(f"`{host}` does not answer", hint="check the network")
        case foreign.ReadTimeoutError():
            return UnavailableError(f"`{host}` stopped sending")
        case _:
            return UnavailableError(f"the connection to `{host}` broke")


def _tls_error(host: str, error: Exception) -> UnavailableError:
    text = str(error)
    if "expired" in text or "not yet valid" in text:
        now = datetime.now(tz=timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        return UnavailableError(
            f"the certificate of `{host}` is not valid at this machine's time, {now}",
            hint="check the clock: `date -u`",
        )
    return UnavailableError(
        f"the secure connection to `{host}` failed: its certificate or protocol was not accepted",
        hint="check for a proxy that inspects traffic; `SSL_CERT_FILE` names its certificate",
    )
