"""The lock as frozen values, and the pure comparison of it with the manifest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, overload

from labsync.digest import sha256_bytes
from labsync.snapshot import FileEntry, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from labsync.manifest.model import Artifact, Manifest
    from labsync.names import ArtifactName

Problem = Literal["missing", "stale", "left over"]


@dataclass(frozen=True, slots=True)
class LockedFile:
    """One file as it was resolved; `oid`, `lfs` and `xet` are what the hub says of it besides."""

    entry: FileEntry
    oid: str = ""
    lfs: bool = False
    xet: str = ""


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Why the origin could not be resolved: the exit code, what happened, what to do."""

    code: int
    message: str
    hint: str


class Listing(Sequence[LockedFile]):
    """The files of a large artifact, which lie beside the lock and are read when one is asked for.

    What the lock's own line says is known without reading: how many they are, their `size` in bytes,
    and their snapshot's id. Reading checks all three, and raises InvalidError (3) where something is
    missing or damaged.
    """

    def __init__(
        self,
        snapshot_id: str,
        count: int,
        size: int,
        read: Callable[[], tuple[tuple[LockedFile, ...], Snapshot]],
    ) -> None:
        self.snapshot_id = snapshot_id
        self.size = size
        self._count = count
        self._read = read

    @cached_property
    def _content(self) -> tuple[tuple[LockedFile, ...], Snapshot]:
        return self._read()

    @property
    def files(self) -> tuple[LockedFile, ...]:
        """The files, read now or before."""
        return self._content[0]

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot of the files, read now or before."""
        return self._content[1]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[LockedFile]:
        return iter(self.files)

    @overload
    def __getitem__(self, at: int) -> LockedFile: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[LockedFile, ...]: ...

    def __getitem__(self, at: int | slice) -> LockedFile | tuple[LockedFile, ...]:
        return self.files[at]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Listing | tuple) or len(self) != len(other):
            return False
        return self.files == tuple(other)

    def __hash__(self) -> int:
        return hash(self.files)


@dataclass(frozen=True)
class LockedArtifact:
    """What one artifact is exactly.

    `inputs` is the digest of the manifest's keys that decided it, `origin` the origin as written.
    `files` are sorted by UTF-8 path; `skipped` are (path, reason) of what is not carried; `filtered`
    says that include or exclude left something out. A made artifact has its name only.

    Of a large artifact `files` is a `Listing`: `snapshot_id`, `size` and the number of files are known
    without reading it, everything else reads it.
    """

    name: ArtifactName
    inputs: str = ""
    origin: str = ""
    revision: str = ""
    files: Sequence[LockedFile] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    filtered: bool = False
    made: bool = False
    unresolved: Unresolved | None = None

    @property
    def snapshot_id(self) -> str:
        """The id of `snapshot`."""
        return self.files.snapshot_id if isinstance(self.files, Listing) else self.snapshot.id

    @property
    def size(self) -> int:
        """The total size of the files in bytes."""
        return self.files.size if isinstance(self.files, Listing) else self.snapshot.size

    @cached_property
    def snapshot(self) -> Snapshot:
        """The snapshot of the files; raises RefusedError (12) for a refused name."""
        if isinstance(self.files, Listing):
            return self.files.snapshot
        return Snapshot.of(file.entry for file in self.files)

    @cached_property
    def by_path(self) -> Mapping[str, LockedFile]:
        """The files by path."""
        return {file.entry.path: file for file in self.files}


@dataclass(frozen=True)
class Lock:
    """All artifacts of a lock by `kind/name`."""

    artifacts: Mapping[ArtifactName, LockedArtifact] = field(default_factory=dict)

    @classmethod
    def of(cls, artifacts: Iterable[LockedArtifact]) -> Lock:
        """Return the lock of these artifacts."""
        return cls({artifact.name: artifact for artifact in artifacts})

    def read_listings(self) -> None:
        """Read what lies beside the lock now; raises InvalidError (3) for the first that is damaged."""
        for artifact in self.artifacts.values():
            if isinstance(artifact.files, Listing):
                _ = artifact.files.files


@dataclass(frozen=True, slots=True)
class StaleReason:
    """One difference between manifest and lock; `what` completes the sentence that `name` begins.

    An `informational` one stops nothing: what is left over in the lock, and what is made here, which
    needs no lock. Any other stops its artifact until `labsync lock`.
    """

    name: ArtifactName
    problem: Problem
    what: str
    informational: bool


def inputs_digest(artifact: Artifact) -> str:
    """Return the digest of the manifest's keys that decide what an artifact is.

    It is the SHA-256 of the canonical JSON of origin (as written), revision, include, exclude and
    sha256; the order of the patterns does not count. It is empty for a made artifact, whose content
    no key decides.
    """
    if artifact.is_made:
        return ""
    keys = {
        "origin": artifact.written or artifact.origin,
        "revision": artifact.revision,
        "include": sorted(set(artifact.filter.include)),
        "exclude": sorted(set(artifact.filter.exclude)),
        "sha256": artifact.sha256,
    }
    return sha256_bytes(json.dumps(keys, ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode())


def check_lock(manifest: Manifest, lock: Lock | None) -> tuple[StaleReason, ...]:
    """Return what differs between manifest and lock, sorted by name; nothing when they agree."""
    locked = lock.artifacts if lock else {}
    reasons = [_compare(artifact, locked.get(artifact.name)) for artifact in manifest.artifacts]
    known = manifest.by_name
    reasons += [
        StaleReason(name, "left over", "is in the lock but no longer in the manifest", informational=True)
        for name in locked
        if name not in known
    ]
    return tuple(sorted((reason for reason in reasons if reason), key=lambda reason: reason.name))


def _compare(artifact: Artifact, locked: LockedArtifact | None) -> StaleReason | None:
    needed = not artifact.is_made
    if locked is None:
        return StaleReason(artifact.name, "missing", "is not in the lock", informational=not needed)
    if locked.made != artifact.is_made:
        what = "is sourced now, but was made here" if needed else "is made here now, but had an origin"
        return StaleReason(artifact.name, "stale", f"{what} when it was locked", informational=not needed)
    if needed and locked.inputs != inputs_digest(artifact):
        return StaleReason(
            artifact.name, "stale", "was changed in the manifest since it was locked", informational=False
        )
    return None
