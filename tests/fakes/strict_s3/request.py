"""A request as the server got it, and an answer before it is sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import unquote, unquote_plus

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Request:
    """`target` is as it was sent, path-style; header names are lower-case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def raw_path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def raw_query(self) -> str:
        return self.target.partition("?")[2]

    @cached_property
    def query(self) -> Mapping[str, str]:
        pairs = (pair.partition("=") for pair in self.raw_query.split("&") if pair)
        return {unquote_plus(name): unquote_plus(value) for name, _, value in pairs}

    @property
    def bucket(self) -> str:
        return unquote(self.raw_path.lstrip("/").partition("/")[0])

    @property
    def key(self) -> str:
        return unquote(self.raw_path.lstrip("/").partition("/")[2], errors="surrogateescape")

    @property
    def path(self) -> str:
        return unquote(self.raw_path)

    @cached_property
    def action(self) -> str:
        """The right of IAM that the request needs.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
        """
        query = self.query
        if not self.key:
            if "uploads" in query:
                return "s3:ListBucketMultipartUploads"
            if "location" in query:
                return "s3:GetBucketLocation"
            return {"PUT": "s3:CreateBucket", "DELETE": "s3:DeleteBucket"}.get(self.method, "s3:ListBucket")
        if "uploadId" in query and self.method in {"GET", "DELETE"}:
            return {"GET": "s3:ListMultipartUploadParts", "DELETE": "s3:AbortMultipartUpload"}[self.method]
        return {"PUT": "s3:PutObject", "POST": "s3:PutObject", "DELETE": "s3:DeleteObject"}.get(
            self.method, "s3:GetObject"
        )


@dataclass(frozen=True)
class Response:
    """An answer; of its body only `cut` bytes are sent before the connection breaks, all if None.

    With `lost` not a byte of it is sent.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    lost: bool = False


class ProblemError(Exception):
    """The request is refused, in S3's words."""

    def __init__(self, status: int, code: str, message: str = "no", **headers: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
