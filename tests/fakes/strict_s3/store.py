"""What the server holds: buckets of objects and unfinished uploads, and the limits it keeps."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.fakes.strict_s3.request import ProblemError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Limits:
    """S3's limits, scaled down so that small tests meet them: bytes, counts, and keys per page."""

    least_part: int = 1 << 18
    most_parts: int = 10_000
    most_put: int = 5 << 30
    page: int = 2
    parts_page: int = 2


@dataclass(frozen=True)
class Object:
    data: bytes
    etag: str
    modified: float
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    data: bytes
    etag: str


@dataclass
class Upload:
    key: str
    metadata: Mapping[str, str]
    parts: dict[int, Part] = field(default_factory=dict)


@dataclass
class Bucket:
    """Objects by key, uploads by id; `history` are all objects there ever were, by key."""

    objects: dict[str, Object] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    history: dict[str, list[Object]] = field(default_factory=dict)

    def put(self, key: str, stored: Object) -> None:
        self.objects[key] = stored
        self.history.setdefault(key, []).append(stored)

    def check_conditions(self, key: str, headers: Mapping[str, str]) -> None:
        """Raise ProblemError where a conditional write must not be carried out.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
        """
        found = self.objects.get(key)
        if headers.get("if-none-match") == "*" and found:
            raise ProblemError(412, "PreconditionFailed")
        if (expected := headers.get("if-match")) is not None:
            if found is None:
                raise ProblemError(404, "NoSuchKey")
            if expected.strip('"') not in {found.etag, "*"}:
                raise ProblemError(412, "PreconditionFailed")


def etag_of(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def etag_of_parts(parts: Sequence[Part]) -> str:
    return f"{etag_of(b''.join(bytes.fromhex(part.etag) for part in parts))}-{len(parts)}"


def chosen_parts(upload: Upload, asked: Sequence[tuple[int, str]], limits: Limits) -> list[Part]:
    """Return the parts that complete an upload; ProblemError for any that is not there or too small."""
    if not asked:
        raise ProblemError(400, "MalformedXML")
    if any(after <= before for (before, _), (after, _) in itertools.pairwise(asked)):
        raise ProblemError(400, "InvalidPartOrder")
    parts = []
    for number, etag in asked:
        part = upload.parts.get(number)
        if part is None or part.etag != etag:
            raise ProblemError(400, "InvalidPart")
        parts.append(part)
    if any(len(part.data) < limits.least_part for part in parts[:-1]):
        raise ProblemError(400, "EntityTooSmall")
    return parts
