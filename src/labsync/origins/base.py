"""Where sourced artifacts come from: the contract of an origin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from labsync.places import Blocks, Reader, Ref

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labsync.manifest.model import Artifact

__all__ = ["Blocks", "Listed", "Listing", "Origin", "Reader", "Ref", "Resolver"]


@dataclass(frozen=True, slots=True, order=True)
class Listed:
    """One file as the origin lists it.

    `sha256` is empty where the origin does not know it: then `lock` fetches the bytes. `size` is -1
    where the origin does not know it. `version` is a strong ETag that names these bytes, where an http
    server gives one: the revision of a `Ref` that is to give no others. `oid` is git's blob id (of the
    pointer, for an LFS file).
    """

    path: str
    size: int
    sha256: str = ""
    executable: bool = False
    oid: str = ""
    lfs: bool = False
    xet: str = ""
    version: str = ""


@dataclass(frozen=True)
class Listing:
    """An artifact resolved: the exact revision, its files after include and exclude, what was skipped.

    `skipped` maps the path of each link, submodule or device to the reason it is not carried.
    `filtered` says that include or exclude left something out.
    """

    revision: str
    files: tuple[Listed, ...]
    skipped: Mapping[str, str]
    filtered: bool = False


class Resolver(Protocol):
    """The part of an origin that `lock` uses."""

    def resolve(self, artifact: Artifact) -> Listing:
        """Return what the artifact is now, at the exact revision that its branch or tag names.

        One-file origins list one file, named by the URL's last segment. An empty listing is an
        answer only where the origin really has no file: an error while listing is always raised.

        Raises NotFoundError for a missing repository, revision or file (with close names in the
        hint where the origin offers them), NotAllowedError for 401, 403 and gated models (the hint
        names the page to accept), UnavailableError for everything that may pass.
        """


class Origin(Reader, Resolver, Protocol):
    """A kind of place that artifacts come from; one instance serves all artifacts of its scheme."""
