"""Where the project keeps what it needs: the contract of a mirror, and the values it deals in.

```
<kind>/<name>/<batch>/<path>                      the bytes, written once
.labsync/index/<sha256 of itself>.jsonl.zst       where each file of a snapshot lies, written after all bytes
.labsync/heads/<kind>/<name>@<id12>.json          sourced: one per snapshot
.labsync/heads/<kind>/<name>.json                 made: the newest, moved by compare-and-swap
.labsync/heads/<kind>/<name>@conflict-<id12>.json the loser of a real conflict, kept
```
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from labsync.errors import ConflictError
from labsync.places import Advance, Reader, Ref
from labsync.snapshot import ABBREVIATION, FileEntry, Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from labsync.names import ArtifactName
    from labsync.report import MirrorRequests

__all__ = [
    "Advance", "Head", "HeadMovedError", "HeadName", "Index", "Located", "Mirror", "Reader", "Ref",
]  # fmt: skip

HEADS = ".labsync/heads/"
INDEXES = ".labsync/index/"
CONFLICT = "conflict-"
_HEAD = re.compile(r"(?P<artifact>[a-z]+/[a-z0-9][a-z0-9._-]*)(?:@(?P<label>(?:conflict-)?[0-9a-f]{12}))?")


@dataclass(frozen=True, slots=True, order=True)
class HeadName:
    """The name of a head: the artifact, and the label behind `@` (empty for a made artifact's newest)."""

    artifact: ArtifactName
    label: str = ""

    @classmethod
    def sourced(cls, artifact: ArtifactName, snapshot: str) -> HeadName:
        """Return the name of a sourced snapshot's head."""
        return cls(artifact, snapshot[:ABBREVIATION])

    @classmethod
    def conflict(cls, artifact: ArtifactName, snapshot: str) -> HeadName:
        """Return the name under which the loser of a conflict is kept."""
        return cls(artifact, CONFLICT + snapshot[:ABBREVIATION])

    @classmethod
    def parse(cls, text: str) -> HeadName | None:
        """Return the head named by `kind/name[@label]`, None when this is no head's name."""
        match = _HEAD.fullmatch(text)
        return match and cls(match["artifact"], match["label"] or "")  # type: ignore[arg-type]

    @property
    def is_conflict(self) -> bool:
        """Say whether the head keeps the loser of a conflict."""
        return self.label.startswith(CONFLICT)

    def __str__(self) -> str:
        return f"{self.artifact}@{self.label}" if self.label else str(self.artifact)


@dataclass(frozen=True, slots=True)
class Located:
    """A file entry and where its bytes lie in the mirror."""

    entry: FileEntry
    key: str
    offset: int | None = None

    @property
    def ref(self) -> Ref:
        """The reference to read it by."""
        return Ref(self.key, path=self.entry.path, offset=self.offset)


@dataclass(frozen=True)
class Index:
    """Where every file of one snapshot lies; written once, named by the digest of its stored bytes.

    `parent` is the id of the index it follows, empty for the first; `time` (UTC, RFC 3339) and
    `host` say when and where it was made.
    """

    artifact: ArtifactName
    files: tuple[Located, ...]
    parent: str = ""
    time: str = ""
    host: str = ""

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that this index locates."""
        return Snapshot.of(located.entry for located in self.files)


@dataclass(frozen=True, slots=True)
class Head:
    """The small pointer to a snapshot and its index.

    `parent` is the snapshot that the head named before, empty for the first. `mark` is the mirror's
    opaque change mark of this head, of these bytes and no others (an ETag): compare-and-swap expects it.
    """

    name: HeadName
    snapshot: str
    index: str
    parent: str
    time: str
    host: str
    nonce: str
    mark: str


class HeadMovedError(ConflictError):
    """The head is not the expected one any more: somebody else published. Nothing was moved."""


class Mirror(Reader, Protocol):
    """A place where data and indexes are written once and only heads move. Safe for several threads.

    Errors are those of `Reader`; besides, every writing method raises RefusedError when the mirror
    has no conditional writes and the manifest does not say `single_writer`, NotAllowedError when a
    bucket may not be written, DiskError when a directory mirror's disk is full or cannot be written.
    """

    @property
    def url(self) -> str:
        """The mirror's own address, without secrets."""

    def heads(self) -> Mapping[HeadName, str]:
        """Return every head's name and change mark, by one request per 1,000 heads.

        A mirror that does not exist yet (an absent folder, an empty prefix) has no heads; a missing
        bucket is NotFoundError, a refusal NotAllowedError: neither is ever an empty answer.
        """

    def head(self, name: HeadName) -> Head:
        """Return one head; NotFoundError when there is none; InvalidError for a newer version."""

    def index(self, index_id: str) -> Index:
        """Return an index, its bytes checked against its id; IntegrityError when they differ."""

    def write(self, key: str, entry: FileEntry, staged: Path, advance: Advance) -> None:
        """Store the bytes of `staged` under `key`, which is written once and never changed.

        Reads each byte of `staged` once, sends what was hashed, and makes the key visible only when
        size and SHA-256 are those of `entry`; otherwise raises ChangedError and leaves nothing
        visible. A key that already holds exactly these bytes is success, one with other bytes is
        ConflictError.
        """

    def has(self, key: str, size: int) -> bool:
        """Say whether `key` holds exactly `size` bytes, by one request; they are not read."""

    def publish(self, name: HeadName, index: Index, expected: Head | None) -> Head:
        """Write the index, then move the head by compare-and-swap; the return is the new head.

        `expected` is the head as read before, None to create the first. Raises HeadMovedError when
        the head is another one; a lost reply to one's own publication is recognised by the nonce
        and is success.
        """

    def probe(self) -> bool:
        """Say whether conditional writes work here, by trying them on a scratch key."""

    def requests(self) -> MirrorRequests:
        """Return how many requests were sent so far."""
