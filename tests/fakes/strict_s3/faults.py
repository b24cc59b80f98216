"""How the server fails: faults of single requests, rights that are missing, manners of lesser stores."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.fakes.strict_s3.request import Request

Listing: TypeAlias = Literal["", "repeat-token", "drop-page", "no-token", "cut", "foreign-key"]


@dataclass
class Fault:
    """One way to fail, for requests that match; `times` counts down, negative means for ever.

    `after` lets that many matching requests pass first. What happens is one of: the answer is an error
    (`status`, `code`), what was asked is done and the answer lost (`lose_reply`), the answer is cut
    after `cut` bytes, one byte of the body that arrived is flipped (`flip_up`) or of the one that is
    sent (`flip_down`), a status of 200 carries the error (`late_error`), a listing is not right.
    """

    method: str = "*"
    path: str = "*"
    query: str = "*"
    times: int = 1
    after: int = 0
    status: int = 500
    code: str = "InternalError"
    headers: Mapping[str, str] = field(default_factory=dict)
    lose_reply: bool = False
    cut: int | None = None
    flip_up: bool = False
    flip_down: bool = False
    late_error: bool = False
    listing: Listing = ""

    def matches(self, request: Request) -> bool:
        """Say whether it is this request's turn to fail; counts the ones that pass."""
        fits = (
            self.times != 0
            and fnmatch.fnmatchcase(request.method, self.method)
            and fnmatch.fnmatchcase(request.path, self.path)
            and fnmatch.fnmatchcase(request.raw_query, self.query)
        )
        if fits and self.after:
            self.after -= 1
            return False
        return fits

    @property
    def is_error(self) -> bool:
        """Say whether nothing is done and an error is the answer."""
        spoils = self.lose_reply or self.flip_up or self.flip_down or self.late_error or self.listing
        return not spoils and self.cut is None


@dataclass(frozen=True)
class Deny:
    """Rights that the caller has not; `s3:ListBucket` missing makes every missing key a 403."""

    actions: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Manners:
    """What a store can; Amazon's can everything.

    Without `conditional` it ignores the conditions, with `honest` it says so (501). Without `chunked`
    it stores the frames of `aws-chunked` inside the object. Without `metadata` it drops it, without
    `checksums` it verifies no digest, without `ranges` it always gives the whole.
    """

    conditional: bool = True
    honest: bool = False
    chunked: bool = True
    metadata: bool = True
    checksums: bool = True
    ranges: bool = True
