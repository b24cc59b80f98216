"""What every push needs: contents brought to the mirror, and the losers of conflicts kept beside the head."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from labsync.errors import LabsyncError
from labsync.mirrors.base import HeadName
from labsync.plan import Goal, Plan, make_plan
from labsync.report import NOTHING_MOVED, ErrorReport, Skipped, Transferred
from labsync.steps.carry import Task, carry_out, prepare
from labsync.steps.publish import new_index, publish

if TYPE_CHECKING:
    from labsync.disk.base import Home
    from labsync.manifest.model import Artifact
    from labsync.mirrors.base import Head, Located
    from labsync.names import ArtifactName
    from labsync.places import Ref
    from labsync.snapshot import Snapshot
    from labsync.steps.lab import Lab
    from labsync.steps.outcome import Action


@dataclass
class Pushed:
    """What a push did, gathered artifact by artifact."""

    plans: list[Plan] = field(default_factory=list)
    errors: list[ErrorReport] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    dropped: list[Action] = field(default_factory=list)
    transferred: Transferred = NOTHING_MOVED
    unchanged: set[ArtifactName] = field(default_factory=set)


class NotStoredError(LabsyncError):
    """Some file could not be stored; its errors are already reported."""


def store(
    lab: Lab, artifact: Artifact, home: Home, snapshot: Snapshot, contents: dict[str, Ref], pushed: Pushed
) -> tuple[Located, ...]:
    """Bring every content of the snapshot to the mirror and return where it lies."""
    goal = store_goal(artifact, home, snapshot, contents)
    if lab.options.dry_run:
        pushed.plans.append(make_plan(goal))
        raise NotStoredError("a dry run stores nothing")
    task: Task = prepare(lab, artifact, goal, home)
    pushed.plans.append(task.plan)
    carried = carry_out(lab, [task], f"push {artifact.name}")
    pushed.errors += carried.errors
    pushed.transferred += carried.transferred
    located = carried.located(task)
    if located is None:
        raise NotStoredError("some contents could not be stored")
    contents.update({file.entry.sha256: file.ref for file in located})
    return located


def store_goal(artifact: Artifact, home: Home, snapshot: Snapshot, contents: dict[str, Ref]) -> Goal:
    """Return the goal of bringing a snapshot from this disk to the mirror."""
    return Goal(
        artifact.name,
        snapshot,
        disk=home.inventory(rehash=False),
        mirrored=contents,
        made=artifact.is_made,
        to_disk=False,
    )


def head_contents(lab: Lab, head: Head | None) -> dict[str, Ref]:
    """Return where the contents of a head's snapshot lie, by SHA-256."""
    return {f.entry.sha256: f.ref for f in lab.view.index(head.index).files} if head else {}


def keep_loser(
    lab: Lab, artifact: Artifact, home: Home, loser: Snapshot, contents: dict[str, Ref], pushed: Pushed
) -> None:
    """Keep this disk's side of a conflict in the mirror, under a head of its own."""
    name = HeadName.conflict(artifact.name, loser.id)
    kept = lab.view.head(name)
    if kept is not None and kept.snapshot == loser.id:
        return
    located = store(lab, artifact, home, loser, contents, pushed)
    head = lab.view.newest(artifact.name)
    publish(lab, name, new_index(lab, artifact.name, located, head.index if head else ""), kept)
