"""Bring artifacts from their origins to the mirror without giving them a place on the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labsync.artifact_locks import hold
from labsync.errors import LabsyncError, UsageError
from labsync.events import Note
from labsync.plan import make_plan
from labsync.report import ErrorReport
from labsync.steps.carry import Task, carry_out, prepare
from labsync.steps.goals import sourced_goal
from labsync.steps.histories import mirror_histories
from labsync.steps.publish import publish_sourced
from labsync.steps.pull import Pulled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labsync.manifest.model import Artifact
    from labsync.steps.lab import Lab


def fill_mirror(lab: Lab, artifacts: Sequence[Artifact]) -> Pulled:
    """Write every locked file that the mirror lacks; made artifacts are `push`'s business."""
    if not lab.has_mirror:
        raise UsageError("`mirror` needs the network, and `--offline` forbids it")
    if unreached := lab.reach_mirror():
        return Pulled(errors=unreached)
    _say_what_is_left_out(lab, artifacts)
    errors: list[ErrorReport] = []
    tasks: list[Task] = []
    for artifact in artifacts:
        if artifact.is_made or not artifact.mirror:
            continue
        try:
            goal = sourced_goal(lab, artifact, lab.locked(artifact), None)
            plan_only = lab.options.dry_run
            tasks.append(
                Task(artifact, goal, make_plan(goal), None)
                if plan_only
                else prepare(lab, artifact, goal, None)
            )
        except LabsyncError as error:
            errors.append(ErrorReport.of(error, artifact.name))
    plans = tuple(task.plan for task in tasks)
    if lab.options.dry_run:
        return Pulled(plans, tuple(errors))
    carried = carry_out(lab, tasks, "mirror")
    errors += carried.errors
    for task in tasks:
        try:
            if (located := carried.located(task)) is not None:
                with hold(lab.manifest.state_dir, task.artifact.name, "mirror"):
                    publish_sourced(lab, task.artifact, located)
        except LabsyncError as error:
            errors.append(ErrorReport.of(error, task.artifact.name))
    brought = mirror_histories(lab, artifacts)
    return Pulled(plans, (*errors, *brought.errors), carried.transferred + brought.transferred)


def _say_what_is_left_out(lab: Lab, artifacts: Sequence[Artifact]) -> None:
    made = [artifact.name for artifact in artifacts if artifact.is_made]
    if made:
        names = ", ".join(f"`{name}`" for name in made)
        lab.observe(Note(f"{names}: made here, so `labsync push` brings it to the mirror"))
    for artifact in artifacts:
        if not artifact.is_made and not artifact.mirror:
            lab.observe(Note(f"`{artifact.name}`: the manifest says `mirror: false`, so it is left out"))
