"""Where artifacts are used: the contract of an artifact's home on the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from labsync.places import Inventory, Replace
    from labsync.snapshot import FileEntry, Snapshot


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

    def source(self, path: str) -> Path:
        """Return where the bytes of the file `path` lie, to read them for an upload."""

    def begin(self) -> None:
        """Mark the artifact incomplete before the first file is published."""

    def publish(self, entry: FileEntry, staged: Path, replace: Replace) -> None:
        """Make verified, fsynced bytes visible under `entry.path` by a rename, and record them.

        The file is wholly old or wholly new at every instant; `staged` is consumed. `replace` says
        what may stand in the way: `nothing`; `recorded`: a file that still is as labsync recorded
        it; `aside`: any file, which is set aside under `.labsync/aside/` first. Anything else in
        the way raises ConflictError, a link or a folder RefusedError; DiskError for the disk's own.
        """

    def finish(self, snapshot: Snapshot) -> None:
        """Make the artifact whole (links, refs last) and take the mark of `begin` away.

        Every file whose digest is the snapshot's is recorded as known, so that a later version may
        replace it.
        """
