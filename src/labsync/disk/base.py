"""Where artifacts are used: the contract of an artifact's home on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from labsync.errors import LabsyncError
    from labsync.places import Inventory, Replace
    from labsync.snapshot import FileEntry, Snapshot


@dataclass(frozen=True, slots=True)
class Staged:
    """Verified bytes in a home's stage, to be published as `entry`; `path` has mode 0600 to 0755.

    `replace` says what may stand in the way: `nothing`; `recorded`: a file that still is as labsync
    recorded it; `aside`: any file, which is set aside under `.labsync/aside/` first.
    """

    entry: FileEntry
    path: Path
    replace: Replace


class Home(Protocol):
    """One artifact's place on the disk. Publishing is safe from several threads."""

    @property
    def path(self) -> Path:
        """Where a person finds the artifact: the folder, the file, or the snapshot in the cache."""

    @property
    def stage(self) -> Path:
        """A folder on the same file system, for part files; made on the first use."""

    def inventory(self, *, rehash: bool) -> Inventory:
        """Look at every file of the artifact, without following links.

        Digests come from the stat cache where stat is unchanged; `rehash` reads every byte again.
        An unreadable folder raises DiskError: it is never an empty inventory.
        """

    def identity(self) -> str | None:
        """Return the id of the snapshot that lies here, None where finding out takes an `inventory`.

        One walk against the stat cache in bounded memory, for the many times when nothing has changed:
        an answer means that the artifact is whole, that every file's stat is the remembered one and
        that labsync has recorded its digest; nothing was skipped.
        """

    def source(self, path: str) -> Path:
        """Return where the bytes of the file `path` lie, to read them for an upload."""

    def begin(self) -> None:
        """Mark the artifact incomplete before the first file is published."""

    def publish(self, files: Sequence[Staged]) -> list[LabsyncError | None]:
        """Make verified bytes visible under their entries' paths, each by one rename, and record them.

        Makes bytes, then names durable; the cost of that, and of the record, is shared by the files
        of one call. Every file is wholly old or wholly new at every instant. The answer has one item
        per file, in order: None, or why this one was not published; the others were. What was
        published is consumed from the stage, the rest stays there. An mtime of just now is set back
        by a tenth of a second, so that any later write shows in it.

        ConflictError when something is in the way that `replace` does not allow to replace,
        RefusedError for a link or a folder there, DiskError for the disk's own.
        """

    def finish(self, snapshot: Snapshot) -> None:
        """Make the artifact whole (links, refs last) and take the mark of `begin` away.

        Every file whose digest is the snapshot's is recorded as known, so that a later version may
        replace it. Any change after this shows in a file's stat.
        """
