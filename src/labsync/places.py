"""What the places share: where a file lies, how its bytes are read, how they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from labsync.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from labsync.report import Skipped
    from labsync.snapshot import FileEntry

Place = Literal["disk", "mirror", "origin"]
FoundState = Literal["recorded", "changed", "damaged"]
Replace = Literal["nothing", "recorded", "aside"]


@dataclass(frozen=True, slots=True)
class Ref:
    """Where one file lies in a place.

    In an origin `location` is the artifact's origin URL, `revision` its locked revision, `path` the
    file's path there. In a mirror `location` is the key; `offset` is the byte where the file begins
    inside a pack, None where the key holds the file alone.
    """

    location: str
    revision: str = ""
    path: str = ""
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it lies on the disk; `entry` tells the bytes that are there now.

    `recorded`: labsync published these bytes here, or took note of them as known. `changed`: the
    user made or changed it (size or mtime differ from the record, or there is no record).
    `damaged`: the bytes are not the recorded ones although size and mtime are.
    """

    entry: FileEntry
    state: FoundState = "recorded"


@dataclass(frozen=True)
class Inventory:
    """What lies at an artifact's home: files by path, what is not carried, whether it is whole.

    `complete` is false while an update of the folder has not ended, or (Hugging Face cache) while
    links or refs are missing. `exists` says whether the artifact's folder or file is there at all.
    """

    files: Mapping[str, Found]
    skipped: tuple[Skipped, ...] = ()
    complete: bool = True
    exists: bool = True


class NoRangesError(RefusedError):
    """The place cannot give a part of this file; from its first byte to its end it can."""


Buffer: TypeAlias = "bytes | bytearray | memoryview"
Blocks: TypeAlias = 'Generator["Buffer", None, None]'


class Advance(Protocol):
    """Called with the number of bytes just sent or stored; negative for a rewind.

    It may wait (a bandwidth limit) and it may raise to stop the transfer; the caller lets that pass.
    It may be called from several threads at once.
    """

    def __call__(self, count: int) -> None:
        """Take note of `count` more bytes."""


class Reader(Protocol):
    """A place that files can be read from. Safe to call from several threads at once."""

    def read(self, ref: Ref, entry: FileEntry, start: int = 0, stop: int | None = None) -> Blocks:
        """Yield the bytes of `entry` from `start` up to `stop` (None: to its end), in order.

        Nothing is asked of the place before the first block is. A block has 1 byte to 1 MiB and is
        valid until the next one is asked for: its memory may be used again. Closing the generator
        early lets go of the connection. Blocks are yielded as the bytes come in, so that what had
        arrived before a failure is not lost.

        The blocks are exactly the bytes asked for: a place that gives more, or whose file has another
        size than `entry`, raises IntegrityError, one that gives fewer UnavailableError. Nothing else
        is verified: who reads checks the digest. An entry of negative size is one whose size nobody
        knows; it is read from 0 to its end, and what comes is taken.

        Raises NoRangesError before the first block when the place cannot give this part of the file,
        NotFoundError only when the place says that the file does not exist, NotAllowedError for 401
        and 403, UnavailableError (retryable) for network failures, stalls, 429 and 5xx. No foreign
        exception leaves it.
        """


class Running(Protocol):
    """A SHA-256 under way, as `hashlib` has it."""

    def copy(self) -> Running:
        """Return one of its own that goes on from here."""

    def hexdigest(self) -> str:
        """Return the digest of what it has seen so far."""


class Content(Protocol):
    """Bytes to store under one key; whoever gives them also proves them."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    @property
    def sha256(self) -> str:
        """The digest that the bytes must have; empty where only reading them tells (a pack)."""

    @property
    def file(self) -> Path | None:
        """A file on the disk that holds exactly these bytes, for a mirror that can share its blocks."""

    @property
    def running(self) -> Running | None:
        """The SHA-256 of what the last call of `blocks` has yielded so far; None where nobody keeps it.

        Who needs it as well is spared hashing the bytes a second time. It is not to be updated.
        """

    def blocks(self, size: int) -> Generator[bytes, None, None]:
        """Yield all bytes in order, in blocks of `size`, the last one shorter; each is the caller's.

        Every call reads anew. The end is reached only when the bytes are the right ones: otherwise
        this raises ChangedError or IntegrityError instead of ending, and whatever reading raises.
        """


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part of an unfinished upload that the server has: its number from 1, the ETag it was given.

    `prefix` is the SHA-256 of all bytes from the first to the end of this part, as they were sent:
    while it is the same, the stored part has the right bytes.
    """

    number: int
    etag: str
    prefix: str


@dataclass(frozen=True, slots=True)
class UnfinishedUpload:
    """A multipart upload that was begun and not completed."""

    id: str
    part_size: int
    parts: tuple[StoredPart, ...] = ()


class UploadJournal(Protocol):
    """What outlives a killed run of the multipart uploads under way, by key. Safe for several threads."""

    def unfinished(self, key: str) -> UnfinishedUpload | None:
        """Return the upload that was begun under the key, if any."""

    def begin(self, key: str, sha256: str, upload_id: str, part_size: int) -> None:
        """Take note of a new upload, durably, before its first part is sent; replaces an older one."""

    def add(self, key: str, part: StoredPart) -> None:
        """Take note of a part that the server has."""

    def end(self, key: str) -> None:
        """Forget the upload: it was completed, aborted, or is gone."""
