"""Push of results: the newest push and what changed here since, merged; both contents of a conflict kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labsync.errors import ConflictError, RefusedError
from labsync.merge import merge_results
from labsync.mirrors.base import HeadMovedError, HeadName
from labsync.plan import make_plan
from labsync.report import ErrorReport
from labsync.snapshot import EMPTY, Snapshot
from labsync.steps.conflicts import push_conflict
from labsync.steps.goals import within
from labsync.steps.outcome import Action
from labsync.steps.publish import new_index, publish
from labsync.steps.storing import Pushed, head_contents, keep_loser, store, store_goal
from labsync.steps.uploads import end_uploads

if TYPE_CHECKING:
    from labsync.disk.base import Home
    from labsync.manifest.model import Artifact
    from labsync.merge import Merge
    from labsync.places import Ref
    from labsync.steps.lab import Lab

ROUNDS = 8  # of compare-and-swap, before another box that never rests is reported


def push_results(
    lab: Lab, artifact: Artifact, home: Home, mine: Snapshot, pushed: Pushed, *, prune: bool
) -> None:
    """Publish the newest push merged with what changed here, again while other boxes move the head.

    Raises ConflictError when they never rest, RefusedError when `prune` would drop most names.
    """
    base = lab.base(artifact)
    base = within(artifact, base) if base is not None else None
    if prune and not lab.options.force:
        _refuse_mass_prune(artifact, mine, base)
    for _ in range(ROUNDS):
        head = lab.view.newest(artifact.name)
        theirs = lab.view.index(head.index).snapshot if head else EMPTY
        # A mirror without a head has lost what was pushed to it: all of it is new again.
        seen = base if head else None
        merge = merge_results(mine, seen, theirs, prune=prune, force=lab.options.force)
        contents = head_contents(lab, head)
        if lab.options.dry_run:
            _say_results(artifact, home, merge, theirs, contents, pushed)
            return
        if merge.snapshot.id != theirs.id:
            located = store(lab, artifact, home, merge.snapshot, contents, pushed)
            index = new_index(lab, artifact.name, located, head.index if head else "")
            try:
                publish(lab, HeadName(artifact.name), index, head)
            except HeadMovedError:
                lab.view.refresh()
                continue
        if merge.loser is not None:
            keep_loser(lab, artifact, home, merge.loser, contents, pushed)
            pushed.errors.append(ErrorReport.of(push_conflict(artifact.name, merge.conflicts, merge.loser)))
        else:
            home.finish(merge.snapshot)
        lab.set_base(artifact, merge.base)
        end_uploads(lab, artifact)
        return
    raise ConflictError(
        f"the head of `{artifact.name}` moved {ROUNDS} times while this box pushed",
        safe="what was uploaded is kept and is not sent again",
        hint="run the same command again",
    )


def _say_results(
    artifact: Artifact,
    home: Home,
    merge: Merge,
    theirs: Snapshot,
    contents: dict[str, Ref],
    pushed: Pushed,
) -> None:
    """Note what a push would send, drop and leave in conflict, as a dry run tells it."""
    goal = store_goal(artifact, home, merge.loser or merge.snapshot, contents)
    pushed.plans.append(make_plan(goal))
    dropped = sorted(theirs.by_path.keys() - merge.snapshot.by_path.keys())
    pushed.dropped += [
        Action(artifact.name, path, "", (), 0, "dropped from the newest push") for path in dropped
    ]
    if merge.loser is not None:
        pushed.errors.append(ErrorReport.of(push_conflict(artifact.name, merge.conflicts, merge.loser)))


def _refuse_mass_prune(artifact: Artifact, mine: Snapshot, base: Snapshot | None) -> None:
    gone = len((base or EMPTY).by_path.keys() - mine.by_path.keys())
    if base is not None and gone * 2 > len(base):
        raise RefusedError(
            f"`--prune` would drop {gone} of {len(base)} names of `{artifact.name}`",
            safe="the mirror keeps what it has",
            hint=f"`labsync push {artifact.name} --prune --force` if that is meant",
        )
