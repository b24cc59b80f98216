"""Values that origins, mirrors and the disk share: where a file lies, and how a read reports progress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
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


class Advance(Protocol):
    """Called with the number of bytes just written, after they were written; negative for a rewind.

    It may raise to stop the transfer; the reader lets that pass.
    """

    def __call__(self, count: int) -> None:
        """Take note of `count` more bytes."""


class Reader(Protocol):
    """A place that files can be read from. Safe to call from several threads at once."""

    def read(self, ref: Ref, entry: FileEntry, into: Path, start: int, advance: Advance) -> None:
        """Write the bytes from `start` to the end of `entry` into the file `into` at offset `start`.

        `into` exists when `start > 0` and holds `start` bytes; otherwise it is created or truncated.
        The reader need not verify anything: the engine checks size and digest. It must not write
        past `entry.size` bytes: a longer answer raises IntegrityError, a shorter one UnavailableError.
        When the place cannot continue at `start` it calls `advance(-start)` and begins again at 0.

        Raises NotFoundError only when the place says the file does not exist, NotAllowedError for
        401 and 403, UnavailableError (retryable) for network failures, timeouts, 429 and 5xx,
        DiskError when `into` cannot be written. No foreign exception leaves it.
        """
