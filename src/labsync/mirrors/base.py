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
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from labsync.errors import ConflictError
from labsync.places import Advance, Content, Reader, Ref, UploadJournal
from labsync.snapshot import ABBREVIATION, FileEntry, Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labsync.names import ArtifactName
    from labsync.report import MirrorRequests

__all__ = [
    "Advance", "Content", "Head", "HeadMovedError", "HeadName", "Index", "Located", "Mirror", "Reader",
    "Ref", "UploadJournal",
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
    `host` say when and where it was made. `packs` are the sizes of the shards that hold files of this
    snapshot, by key.
    """

    artifact: ArtifactName
    files: tuple[Located, ...]
    parent: str = ""
    time: str = ""
    host: str = ""
    packs: Mapping[str, int] = field(default_factory=dict, hash=False)

    @cached_property
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


class OtherBytesError(ConflictError):
    """A key that is written once holds something else already. It was not touched."""


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

    def write(self, key: str, content: Content, advance: Advance, journal: UploadJournal) -> None:
        """Store the content under `key`, which is written once and never changed.

        Reads the content once, in order, in bounded memory whatever its size, and makes the key
        visible only after the content has ended without an error: until then nothing is there.
        `advance` is called as bytes go out, with -n when n bytes have to go out again.

        A large content goes out in parts, several at once. What `journal` knows of an earlier, killed
        attempt under this key is continued: parts that the server lists and whose `prefix` still fits
        are read again, to hash them, but not sent. When the content fails, the upload is dropped; when
        the place or the run does, it is left for the next attempt. Calls for different keys may run
        at once, calls for one key not.

        A key that already holds exactly these bytes is success, one with other bytes is OtherBytesError,
        also for a content whose digest only reading it tells. A mirror without conditional
        writes (`single_writer`) writes the key without looking.
        """

    def abandon(self, key: str, journal: UploadJournal) -> None:
        """Drop the unfinished upload under `key`, on the server and in the journal; none is fine."""

    def stored(self, folder: str) -> Mapping[str, int]:
        """Return the size of everything that is stored below a batch's folder, by one request per 1,000.

        `folder` ends in a slash; nothing there is an empty answer, an error while listing is raised.
        """

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
