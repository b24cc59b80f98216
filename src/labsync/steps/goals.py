"""From what is known of an artifact to its goal: which snapshot, and where its contents lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labsync.errors import NotFoundError, UsageError
from labsync.events import Note
from labsync.mirrors.base import HeadName
from labsync.places import Ref
from labsync.snapshot import ABBREVIATION, Snapshot

if TYPE_CHECKING:
    from labsync.lock import LockedArtifact
    from labsync.manifest.model import Artifact
    from labsync.mirrors.base import Head, Index
    from labsync.places import Inventory
    from labsync.plan import Goal
    from labsync.steps.lab import Lab


def unchanged(lab: Lab, artifact: Artifact, *, mirrored: bool = True) -> bool:
    """Say that neither a pull nor a push of the artifact has anything to do; False when in doubt.

    One walk of the disk and one listing of the heads tell it: no listing and no index is read. For what
    is sourced the disk must have what the lock says, and with `mirrored` the mirror too; for what is made
    the disk, the newest head and what this disk has last seen of it must be the same snapshot, with no
    conflict open. An older snapshot that a selector names is not meant.
    """
    wanted = _made_id(lab, artifact) if artifact.is_made else _sourced_id(lab, artifact, mirrored=mirrored)
    if not wanted or any(key.startswith(f"{artifact.name}/") for key in _damaged(lab)):
        return False
    if mirrored and lab.state.multipart(lab.memory_key(artifact)).keys():
        return False  # an upload that a killed run left is to be dropped
    return lab.home(artifact).identity() == wanted


def _damaged(lab: Lab) -> frozenset[str]:
    return lab.view.damaged if lab.has_mirror else frozenset()


def _sourced_id(lab: Lab, artifact: Artifact, *, mirrored: bool) -> str:
    wanted = lab.locked(artifact).snapshot_id
    if not mirrored:
        return wanted
    head = lab.view.head(HeadName.sourced(artifact.name, wanted)) if lab.has_mirror else None
    return wanted if head is not None and head.snapshot == wanted else ""


def _made_id(lab: Lab, artifact: Artifact) -> str:
    head = lab.view.newest(artifact.name) if lab.has_mirror else None
    if head is None or open_conflicts(lab, artifact):
        return ""
    memory = lab.memory_key(artifact)
    seen = lab.state.get("base-head", memory)
    same = seen == head.index.encode() and lab.state.base_id(memory) == head.snapshot
    return head.snapshot if same else ""


def open_conflicts(lab: Lab, artifact: Artifact) -> tuple[Head, ...]:
    """Return the losers of conflicts that nobody chose about at this box."""
    heads = (lab.view.head(name) for name in lab.view.conflicts(artifact.name))
    return tuple(head for head in heads if head is not None and not lab.is_settled(head))


def sourced_goal(lab: Lab, artifact: Artifact, locked: LockedArtifact, inventory: Inventory | None) -> Goal:
    """Return the goal of a sourced artifact: what the lock says, on the disk (unless None) and mirrored."""
    from labsync.plan import NO_FILES, Goal

    origin = origin_refs(artifact, locked) if lab.may_ask_origin(artifact) else {}
    return Goal(
        artifact.name,
        locked.snapshot,
        disk=inventory or NO_FILES,
        mirrored=mirrored(lab, artifact, locked.snapshot),
        origin=origin,
        to_disk=inventory is not None,
        to_mirror=lab.mirrors(artifact),
        force=lab.options.force,
    )


def origin_refs(artifact: Artifact, locked: LockedArtifact) -> dict[str, Ref]:
    """Return where each file of a locked artifact lies in its origin."""
    return {
        file.entry.path: Ref(artifact.origin, revision=locked.revision, path=file.entry.path)
        for file in locked.files
    }


def mirrored(lab: Lab, artifact: Artifact, wanted: Snapshot) -> dict[str, Ref]:
    """Return where the mirror holds contents of a sourced artifact.

    The wanted snapshot's own index is enough when there is one; otherwise every older snapshot of
    the artifact is looked at, so that unchanged files are referenced and not sent again. An
    index or a key that is lost or damaged counts as none, for the origin can fill the mirror again.
    """
    if not lab.has_mirror:
        return {}
    own = HeadName.sourced(artifact.name, wanted.id)
    names = lab.view.names(artifact.name)
    found: dict[str, Ref] = {}
    for name in sorted(names, key=lambda name: name != own):
        head = lab.view.head(name)
        if head is None:
            continue
        index = lab.view.readable(head)
        if index is None:
            what = f"the mirror's index of `{name}` is lost or damaged: it counts as not mirrored"
            lab.observe(Note(what, "warning"))
            continue
        for file in index.files:
            if file.key not in lab.view.damaged:
                found.setdefault(file.entry.sha256, file.ref)
        if head.snapshot == wanted.id:
            break
    return found


def within(artifact: Artifact, snapshot: Snapshot) -> Snapshot:
    """Return the part of a made artifact's snapshot that the manifest still wants on this disk.

    A snapshot in the mirror may be older than the manifest's `include` and `exclude`.
    """
    if artifact.filter.is_open:
        return snapshot
    return Snapshot.of(entry for entry in snapshot if artifact.filter.keeps(entry.path))


def find_index(lab: Lab, artifact: Artifact, prefix: str) -> Index:
    """Return the index of the made artifact's snapshot whose id begins with `prefix`."""
    found = {
        index.snapshot.id: index
        for _, index in lab.view.history(artifact.name)
        if index.snapshot.id.startswith(prefix)
    }
    if not found:
        raise NotFoundError(
            f"`{artifact.name}` has no snapshot `{prefix}` in the mirror",
            artifact=artifact.name,
            hint=f"`labsync log {artifact.name}` lists its snapshots",
        )
    if len(found) > 1:
        ids = ", ".join(sorted(snapshot[:ABBREVIATION] for snapshot in found))
        raise UsageError(f"`{prefix}` names several snapshots: {ids}", hint="give more digits")
    return next(iter(found.values()))
