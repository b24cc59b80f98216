"""Lock: resolve each origin to an exact revision and every file to its size and SHA-256."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from labsync.disk.budget import measure, reserve_of
from labsync.errors import InvalidError, LabsyncError, UsageError
from labsync.events import BytesMoved, Note, TransferEnded, TransferPlanned
from labsync.lock import Lock, LockedArtifact, LockedFile, Unresolved, check_lock, inputs_digest
from labsync.report import ErrorReport
from labsync.snapshot import FileEntry, Snapshot
from labsync.steps.arriving import sweep
from labsync.steps.fetched import Fetcher, drop_spare
from labsync.steps.outcome import LockLine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labsync.manifest.model import Artifact
    from labsync.names import ArtifactName
    from labsync.origins.base import Listed, Listing
    from labsync.steps.lab import Lab

ASK_ABOVE = 1 << 30


@dataclass
class Locked:
    """A new lock, how each artifact came into it, and what could not be resolved."""

    lock: Lock
    lines: list[LockLine] = field(default_factory=list)
    errors: list[ErrorReport] = field(default_factory=list)


def make_lock(lab: Lab, chosen: Sequence[Artifact], *, upgrade: bool, fill: bool = False) -> Locked:
    """Return the lock of the whole manifest; what is locked already and still fits stays as it is.

    With `upgrade` the chosen artifacts are resolved again; with `fill` only what has no line or an
    `unresolved` one is resolved. An origin that cannot be resolved keeps its old line where that
    still fits the manifest, and otherwise gets an `unresolved` one. A dry run reads no file's bytes.
    """
    if not lab.options.dry_run:
        sweep(lab.fetched_dir)
        drop_spare(lab)
    old = dict(lab.lock.artifacts) if lab.lock is not None else {}
    again = {artifact.name for artifact in chosen} if upgrade else set()
    artifacts: dict[ArtifactName, LockedArtifact] = dict(old) if fill else {}
    locked = Locked(Lock(artifacts))
    for artifact in lab.manifest.artifacts:
        before = old.get(artifact.name)
        resolved = before is not None and before.unresolved is None
        if (
            before is not None
            and resolved
            and artifact.name not in again
            and (fill or _fits(before, artifact))
        ):
            artifacts[artifact.name] = before
            locked.lines.append(_line(before, "unchanged"))
        else:
            _renew(lab, artifact, before, locked, artifacts)
    return locked


def gaps(lab: Lab) -> list[Artifact]:
    """Return the sourced artifacts that have no line in the lock, or an `unresolved` one."""
    known = lab.lock.artifacts if lab.lock else {}
    return [
        artifact
        for artifact in lab.manifest.artifacts
        if not artifact.is_made and (artifact.name not in known or known[artifact.name].unresolved)
    ]


def check_lines(lab: Lab, chosen: Sequence[Artifact]) -> Locked:
    """Return how each chosen artifact stands in the lock, and an error for each that must be locked."""
    reasons = {r.name: r for r in check_lock(lab.manifest, lab.lock) if not r.informational}
    locked = Locked(lab.lock or Lock())
    for artifact in chosen:
        line = locked.lock.artifacts.get(artifact.name, LockedArtifact(artifact.name, made=True))
        reason = reasons.get(artifact.name)
        if reason is None:
            locked.lines.append(_line(line, "unresolved" if line.unresolved else "unchanged"))
            continue
        locked.lines.append(_line(line, reason.problem))
        error = InvalidError(
            f"`{artifact.name}` {reason.what}",
            artifact=artifact.name,
            hint="`labsync lock` brings it up to date",
        )
        locked.errors.append(ErrorReport.of(error))
    return locked


def _fits(before: LockedArtifact, artifact: Artifact) -> bool:
    return before.inputs == inputs_digest(artifact)


def _renew(
    lab: Lab,
    artifact: Artifact,
    before: LockedArtifact | None,
    locked: Locked,
    artifacts: dict[ArtifactName, LockedArtifact],
) -> None:
    """Resolve one artifact into the lock; what the options alone forbid leaves no trace in it."""
    line: LockedArtifact | None
    try:
        line = _lock_one(lab, artifact)
    except _UnreadError as unread:
        locked.lines.append(LockLine(artifact.name, "to read", unread.revision, unread.files, unread.bytes))
        return
    except LabsyncError as error:
        locked.errors.append(ErrorReport.of(error, artifact.name))
        keeps = before is not None and before.unresolved is None and _fits(before, artifact)
        keeps = keeps or not lab.may_ask_origin(artifact)
        line = before if keeps else _unresolved(artifact, error)
    if line is None:
        locked.lines.append(LockLine(artifact.name, "missing", "", 0, 0))
        return
    artifacts[artifact.name] = line
    locked.lines.append(_line(line, _state(before, line)))


class _UnreadError(Exception):
    """A dry run would have to read bytes to go on: so many files, so many bytes."""

    def __init__(self, revision: str, files: int, size: int) -> None:
        super().__init__(f"{files} files are not read")
        self.revision = revision
        self.files = files
        self.bytes = size


def _state(before: LockedArtifact | None, after: LockedArtifact) -> str:
    if after.unresolved is not None:
        return "unresolved"
    if before is None or before.unresolved is not None:
        return "locked"
    return "unchanged" if before == after else "upgraded"


def _line(locked: LockedArtifact, state: str) -> LockLine:
    snapshot = locked.snapshot
    return LockLine(locked.name, state, locked.revision, len(snapshot), snapshot.size)


def _unresolved(artifact: Artifact, error: LabsyncError) -> LockedArtifact:
    why = Unresolved(int(error.exit_code), error.what, error.hint)
    return LockedArtifact(artifact.name, inputs_digest(artifact), _written(artifact), unresolved=why)


def _written(artifact: Artifact) -> str:
    """Return the origin as the manifest writes it: a lock must not know where this box keeps its files."""
    return artifact.written or artifact.origin


def _lock_one(lab: Lab, artifact: Artifact) -> LockedArtifact:
    inputs = inputs_digest(artifact)
    if artifact.is_made:
        return LockedArtifact(artifact.name, inputs, made=True)
    origin = lab.origin(artifact)
    if lab.options.dry_run and artifact.origin.startswith("git+"):
        raise _UnreadError("", 0, 0)  # a repository tells its files to those who fetched it
    lab.observe(Note(f"resolving {artifact.name} from {artifact.origin}"))
    listing = origin.resolve(artifact)
    files = _digest_files(lab, artifact, listing)
    Snapshot.of(file.entry for file in files)
    return LockedArtifact(
        artifact.name,
        inputs,
        _written(artifact),
        revision=listing.revision,
        files=tuple(sorted(files, key=lambda file: file.entry.path.encode())),
        skipped=tuple(sorted(listing.skipped.items())),
        filtered=listing.filtered,
    )


def _digest_files(lab: Lab, artifact: Artifact, listing: Listing) -> list[LockedFile]:
    unknown = [listed for listed in listing.files if not _is_known(listed)]
    to_read = sum(max(listed.size, 0) for listed in unknown)
    if unknown and lab.options.dry_run:
        lab.observe(
            Note(f"{artifact.name}: would read {len(unknown)} files, {to_read:,} bytes, to know them")
        )
        raise _UnreadError(listing.revision, len(unknown), to_read)
    if to_read > ASK_ABOVE and not lab.options.agrees(
        f"{artifact.name}: read {to_read / 2**30:.1f} GiB once to know its digests?"
    ):
        raise UsageError(
            f"the origin of `{artifact.name}` gives no SHA-256: {to_read / 2**30:.1f} GiB must be read once",
            hint="add `--yes`, or `sha256:` to the manifest for a single file",
        )
    entries = {listed.path: _entry(listed) for listed in listing.files if _is_known(listed)}
    if unknown:
        lab.observe(TransferPlanned(f"digests of {artifact.name}", len(unknown), to_read))
        try:
            fetched = _fetcher(lab, artifact).fetch(artifact.origin, listing.revision, unknown)
        finally:
            lab.observe(TransferEnded())
        entries |= {entry.path: entry for entry in fetched}
    return [LockedFile(entries[listed.path], listed.oid, listed.lfs, listed.xet) for listed in listing.files]


def _is_known(listed: Listed) -> bool:
    return bool(listed.sha256) and listed.size >= 0


def _entry(listed: Listed) -> FileEntry:
    return FileEntry(listed.path, listed.sha256, listed.size, listed.executable)


def _fetcher(lab: Lab, artifact: Artifact) -> Fetcher:
    room = measure(lab.fetched_dir)
    reserve = reserve_of(room.total, lab.manifest.disk)
    return Fetcher(
        lab.origin(artifact),
        lab.fetched_dir,
        lab.options.jobs,
        room=lambda: measure(lab.fetched_dir).free - reserve,
        keep_above=reserve,
        advance=lambda count: lab.observe(BytesMoved(count)),
    )
