"""Contents to store: right ones, ones that are not what they claim, ones that fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsync.digest import sha256_bytes
from labsync.errors import ChangedError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@dataclass(frozen=True)
class FakeContent:
    """A `places.Content`: `data` is what reading gives, `size` and `sha256` what is claimed.

    Reading ends with `failure` where there is one, with ChangedError where the claim is wrong.
    """

    data: bytes
    size: int
    sha256: str
    file: Path | None = None
    failure: BaseException | None = None
    running: None = None

    def blocks(self, size: int) -> Generator[bytes, None, None]:
        for at in range(0, len(self.data), size):
            yield self.data[at : at + size]
        if self.failure:
            raise self.failure
        if len(self.data) != self.size or self.sha256 not in {"", sha256_bytes(self.data)}:
            raise ChangedError("the content changed while it was read")


def right(data: bytes, *, file: Path | None = None) -> FakeContent:
    """Return a content that is what it claims."""
    return FakeContent(data, len(data), sha256_bytes(data), file)


def unknown(data: bytes) -> FakeContent:
    """Return a content whose digest only reading tells."""
    return FakeContent(data, len(data), "")


def changed(before: bytes, now: bytes, *, file: Path | None = None) -> FakeContent:
    """Return a content that was `before` when it was planned."""
    return FakeContent(now, len(before), sha256_bytes(before), file)


def failing(data: bytes, failure: BaseException) -> FakeContent:
    """Return a content whose reading fails at the end."""
    return FakeContent(data, len(data), sha256_bytes(data), failure=failure)
