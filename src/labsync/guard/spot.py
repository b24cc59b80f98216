"""The two minutes' notice of an EC2 spot instance, asked of the instance's own metadata service.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

POLL = 5.0  # seconds, as AWS advises
LEAST = 120.0  # seconds between the notice and the end
ADDRESS = "http://169.254.169.254"
_LIMIT = 2.0  # seconds
_TOKEN_LIFE = 21600


class Metadata:
    """The metadata service (IMDSv2); silence and refusals are answers, nothing is raised."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._url = env.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", ADDRESS).rstrip("/")
        self._disabled = env.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
        self._token = ""
        # What an environment's proxy would answer is not the instance's word.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def is_spot(self) -> bool:
        """Say whether this machine is a spot instance."""
        return self._get("instance-life-cycle") == "spot"

    def notice(self, wall: float) -> float | None:
        """Return the seconds until the instance is taken away, None while nobody says so."""
        told = self._get("spot/instance-action")
        if not told:
            return None
        try:
            at = datetime.strptime(json.loads(told)["time"], "%Y-%m-%dT%H:%M:%S%z")
        except (ValueError, KeyError, TypeError):
            return LEAST
        return max(0.0, at.timestamp() - wall)

    def _get(self, path: str) -> str:
        if self._disabled:
            return ""
        for _ in range(2):
            self._token = self._token or self._ask(
                "PUT", "api/token", {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_LIFE)}
            )
            if not self._token:
                return ""
            if answer := self._ask("GET", f"meta-data/{path}", {"X-aws-ec2-metadata-token": self._token}):
                return answer
            if self._token:
                return ""
        return ""

    def _ask(self, method: str, path: str, headers: Mapping[str, str]) -> str:
        request = urllib.request.Request(  # noqa: S310  the address is the link-local one, or the user's own
            f"{self._url}/latest/{path}", method=method, headers=dict(headers)
        )
        try:
            with self._opener.open(request, timeout=_LIMIT) as answer:
                text: str = answer.read(1 << 16).decode("utf-8", "replace")
                return text
        except urllib.error.HTTPError as error:
            if error.code == 401:
                self._token = ""  # it has expired: once more with a new one
            return ""
        except (OSError, ValueError):
            return ""
