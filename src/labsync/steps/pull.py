"""Pull: bring artifacts to the disk, and what came from an origin to the mirror as well."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from labsync.artifact_locks import hold
from labsync.errors import LabsyncError
from labsync.merge import base_after
from labsync.plan import Goal, make_plan
from labsync.report import NOTHING_MOVED, ErrorReport, Transferred
from labsync.snapshot import Snapshot
from labsync.steps.carry import Carried, Task, carry_out, prepare
from labsync.steps.conflicts import pull_conflict
from labsync.steps.fetched import drop
from labsync.steps.goals import find_index, sourced_goal, unchanged, within
from labsync.steps.publish import publish_sourced

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from labsync.disk.base import Home
    from labsync.manifest.model import Artifact
    from labsync.manifest.select import Selection
    from labsync.mirrors.base import Index
    from labsync.names import ArtifactName
    from labsync.places import Inventory, Ref
    from labsync.plan import Plan
    from labsync.snapshot import FileEntry
    from labsync.steps.lab import Lab


@dataclass(frozen=True)
class Pulled:
    """What a pull did: plans, failures, bytes moved, and the artifacts that were found as they should be."""

    plans: tuple[Plan, ...] = ()
    errors: tuple[ErrorReport, ...] = ()
    transferred: Transferred = NOTHING_MOVED
    unchanged: frozenset[ArtifactName] = frozenset()


def pull(lab: Lab, selections: Sequence[Selection]) -> Pulled:
    """Pull the selected artifacts; one artifact's failure does not stop the others."""
    return _with_histories(lab, selections, _carry(lab, selections, _task, notes_base=True, may_skip=True))


def repair(lab: Lab, selections: Sequence[Selection]) -> Pulled:
    """Read every byte again and fetch what is damaged or missing; what the user changed stays."""
    repaired = _carry(lab, selections, _repair_task, notes_base=False, may_skip=False)
    return _with_histories(lab, selections, repaired, repair=True)


def _carry(
    lab: Lab,
    selections: Sequence[Selection],
    make_task: Callable[[Lab, Selection], Task | None],
    *,
    notes_base: bool,
    may_skip: bool,
) -> Pulled:
    errors = list(lab.reach_mirror())
    tasks: list[Task] = []
    same: set[ArtifactName] = set()
    with contextlib.ExitStack() as locks:
        for selection in selections:
            try:
                if not lab.options.dry_run:
                    locks.enter_context(hold(lab.manifest.state_dir, selection.artifact.name, "disk"))
                if may_skip and _is_unchanged(lab, selection):
                    same.add(selection.artifact.name)
                elif (task := make_task(lab, selection)) is not None:
                    tasks.append(task)
            except LabsyncError as error:
                errors.append(ErrorReport.of(error, selection.artifact.name))
        plans = tuple(task.plan for task in tasks)
        if lab.options.dry_run:
            return Pulled(plans, tuple(errors), unchanged=frozenset(same))
        carried = carry_out(lab, tasks, "pull")
        errors += carried.errors
        for task in tasks:
            errors += _settle(lab, task, carried, notes_base=notes_base)
    return Pulled(plans, tuple(errors), carried.transferred, frozenset(same))


def _with_histories(
    lab: Lab, selections: Sequence[Selection], pulled: Pulled, *, repair: bool = False
) -> Pulled:
    libraries = [selection.artifact for selection in selections if selection.artifact.history]
    if not libraries or lab.options.dry_run:
        return pulled
    from labsync.steps.histories import bring_histories

    brought = bring_histories(lab, libraries, repair=repair)
    return replace(
        pulled,
        errors=pulled.errors + brought.errors,
        transferred=pulled.transferred + brought.transferred,
    )


def _is_unchanged(lab: Lab, selection: Selection) -> bool:
    artifact = selection.artifact
    return not selection.snapshot and unchanged(lab, artifact, mirrored=lab.mirrors(artifact))


def _task(lab: Lab, selection: Selection) -> Task | None:
    artifact = selection.artifact
    if not artifact.is_made:
        return _sourced_task(lab, artifact, rehash=False)
    wanted = _wanted(lab, selection)
    if wanted is None:
        return None
    home = lab.home(artifact)
    return prepare(lab, artifact, _made_goal(lab, selection, wanted, home), home)


def _sourced_task(lab: Lab, artifact: Artifact, *, rehash: bool) -> Task:
    locked = lab.locked(artifact)
    home = lab.home(artifact)
    goal = sourced_goal(lab, artifact, locked, home.inventory(rehash=rehash))
    if lab.options.dry_run:
        return Task(artifact, goal, make_plan(goal), home)
    return prepare(lab, artifact, goal, home)


def _repair_task(lab: Lab, selection: Selection) -> Task | None:
    artifact = selection.artifact
    if not artifact.is_made:
        return _sourced_task(lab, artifact, rehash=True)
    base = lab.base(artifact)
    if base is None or not lab.has_mirror:
        return None
    home = lab.home(artifact)
    inventory = home.inventory(rehash=True)
    wrong = [entry for entry in within(artifact, base) if _needs_repair(artifact, entry, inventory)]
    contents = _everywhere(lab, artifact) if wrong else {}
    goal = Goal(
        artifact.name,
        Snapshot.of(wrong),
        disk=inventory,
        mirrored=contents,
        base=base,
        made=True,
        to_mirror=False,
    )
    return prepare(lab, artifact, goal, home)


def _needs_repair(artifact: Artifact, entry: FileEntry, inventory: Inventory) -> bool:
    """Say whether a known file is damaged or missing; of checkpoints the trainer may have removed some."""
    found = inventory.files.get(entry.path)
    if found is None:
        return artifact.kind != "checkpoints"
    return found.state == "damaged" and found.entry != entry


def _everywhere(lab: Lab, artifact: Artifact) -> dict[str, Ref]:
    """Return where any content of a made artifact lies, in its whole history."""
    return {
        located.entry.sha256: located.ref
        for _, index in lab.view.history(artifact.name)
        for located in index.files
    }


def _wanted(lab: Lab, selection: Selection) -> Index | None:
    if not lab.has_mirror:
        return None
    if selection.snapshot:
        return find_index(lab, selection.artifact, selection.snapshot)
    head = lab.view.newest(selection.artifact.name)
    return lab.view.index(head.index) if head else None


def _made_goal(lab: Lab, selection: Selection, wanted: Index, home: Home) -> Goal:
    return Goal(
        selection.artifact.name,
        within(selection.artifact, wanted.snapshot),
        disk=home.inventory(rehash=False),
        mirrored={located.entry.sha256: located.ref for located in wanted.files},
        base=lab.base(selection.artifact),
        made=True,
        to_mirror=False,
        force=lab.options.force,
    )


def _settle(lab: Lab, task: Task, carried: Carried, *, notes_base: bool) -> list[ErrorReport]:
    """Publish in the mirror what is whole there, end the update of the disk, take note of the base.

    Neither the mirror's failure nor the disk's keeps the other from being finished.
    """
    errors: list[ErrorReport] = []
    ends = [_end_mirror, *([_end_disk] if _may_end(task, whole=notes_base) else [])]
    if task.goal.made and notes_base:
        ends.append(_note_base)
    if task.goal.made and task.goal.force:
        ends.append(_settle_conflicts)
    for end in ends:
        try:
            end(lab, task, carried)
        except LabsyncError as error:
            errors.append(ErrorReport.of(error, task.artifact.name))
    if conflict := pull_conflict(task.plan, "newest push" if task.goal.made else "lock"):
        errors.append(ErrorReport.of(conflict))
    return errors


def _may_end(task: Task, *, whole: bool) -> bool:
    """Say whether this run may take the mark of an unfinished update away: a repair of parts may not."""
    return whole or not task.goal.made or task.goal.disk.complete


def _end_mirror(lab: Lab, task: Task, carried: Carried) -> None:
    if task.goal.to_mirror and (located := carried.located(task)) is not None:
        publish_sourced(lab, task.artifact, located)


def _end_disk(lab: Lab, task: Task, carried: Carried) -> None:
    if task.home is None or (task.plan.is_empty and task.goal.disk.complete and not _unrecorded(task)):
        return
    wanted = task.goal.wanted.by_path
    kept = {item.path for item in task.plan.kept}
    disk = task.home.inventory(rehash=False).files if carried.failed(task.artifact.name) else None
    whole = disk is None or all(
        path in kept or (path in disk and disk[path].entry == entry) for path, entry in wanted.items()
    )
    if whole and not task.plan.unmet:
        task.home.finish(task.goal.wanted)
        drop(lab.fetched_dir, task.goal.wanted)


def _unrecorded(task: Task) -> bool:
    """Say whether a file has the wanted bytes although labsync has no record of it yet."""
    wanted, found = task.goal.wanted.by_path, task.goal.disk.files
    return any(
        found[path].entry == entry and found[path].state != "recorded"
        for path, entry in wanted.items()
        if path in found
    )


def _settle_conflicts(lab: Lab, task: Task, carried: Carried) -> None:
    """Remember that the person chose the newest push over the losers of conflicts."""
    if carried.failed(task.artifact.name):
        return
    for name in lab.view.conflicts(task.artifact.name):
        if head := lab.view.head(name):
            lab.settle(head)


def _note_base(lab: Lab, task: Task, carried: Carried) -> None:  # noqa: ARG001  one signature for all ends
    """Take note of what this disk has now seen of the head; a checkpoint counts only as a whole."""
    assert task.home is not None
    wanted = task.goal.wanted
    disk = Snapshot.of(found.entry for found in task.home.inventory(rehash=False).files.values())
    if task.artifact.kind != "checkpoints":
        lab.set_base(task.artifact, base_after(disk, task.goal.base, wanted))
    elif all(disk.by_path.get(entry.path) == entry for entry in wanted):
        lab.set_base(task.artifact, wanted)
