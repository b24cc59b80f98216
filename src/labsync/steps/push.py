"""Push: what was made here goes to the mirror; nothing there is lost, nothing unfinished becomes visible."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from labsync.artifact_locks import hold
from labsync.errors import ConflictError, LabsyncError, NotFoundError, RefusedError, UsageError
from labsync.events import Note
from labsync.merge import is_complete, merge_results, units
from labsync.mirrors.base import HeadMovedError, HeadName
from labsync.plan import Goal, Plan, make_plan
from labsync.report import NOTHING_MOVED, ErrorReport, Skipped, Transferred
from labsync.snapshot import EMPTY, Snapshot
from labsync.steps.carry import Task, carry_out, prepare
from labsync.steps.conflicts import push_conflict
from labsync.steps.goals import mirrored, within
from labsync.steps.publish import new_index, publish, publish_sourced
from labsync.steps.settled import settle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labsync.disk.base import Home
    from labsync.manifest.model import Artifact
    from labsync.mirrors.base import Head, Located
    from labsync.places import Inventory, Ref
    from labsync.steps.lab import Lab
    from labsync.steps.settled import Settled

ROUNDS = 8  # of compare-and-swap, before another box that never rests is reported


@dataclass
class Pushed:
    """What a push did, gathered artifact by artifact."""

    plans: list[Plan] = field(default_factory=list)
    errors: list[ErrorReport] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    transferred: Transferred = NOTHING_MOVED


class _FailedError(LabsyncError):
    """Some file could not be stored; its errors are already reported."""


def push(lab: Lab, artifacts: Sequence[Artifact], *, prune: bool) -> Pushed:
    """Push the selected artifacts one after the other; one's failure does not stop the others."""
    pushed = Pushed()
    if not lab.has_mirror:
        raise UsageError(
            "`push` needs the mirror, and `--offline` forbids it", hint="run it without `--offline`"
        )
    if unreached := lab.reach_mirror():
        pushed.errors += unreached
        return pushed
    for artifact in artifacts:
        try:
            with hold(lab.manifest.state_dir, artifact.name, "mirror"):
                _push_one(lab, artifact, pushed, prune=prune)
        except _FailedError:
            continue
        except LabsyncError as error:
            pushed.errors.append(ErrorReport.of(error, artifact.name))
    return pushed


def _push_one(lab: Lab, artifact: Artifact, pushed: Pushed, *, prune: bool) -> None:
    home = lab.home(artifact)
    inventory = home.inventory(rehash=False)
    if not artifact.is_made:
        _push_sourced(lab, artifact, home, inventory, pushed)
        return
    base = lab.base(artifact)
    if not inventory.exists and base is None:
        lab.observe(Note(f"`{artifact.name}`: `{artifact.path}` does not exist yet, nothing to push"))
        return
    _refuse_lost_folder(artifact, inventory, base)
    settled = settle(artifact, home, inventory)
    pushed.skipped += settled.skipped
    pushed.errors += settled.errors
    if artifact.kind == "checkpoints":
        _push_units(lab, artifact, home, _complete_units(artifact, home, settled, pushed), pushed)
    else:
        mine, known = settled.snapshot, (base or EMPTY).by_path
        # What cannot be pushed now is as this disk knew it: it must not look deleted.
        waiting = [known[path] for path in inventory.files if path in known and path not in mine.by_path]
        _push_results(lab, artifact, home, Snapshot.of([*mine, *waiting]), pushed, prune=prune)


def _refuse_lost_folder(artifact: Artifact, inventory: Inventory, base: Snapshot | None) -> None:
    """Stop before a lost or emptied folder is mistaken for the user's wish (aws/aws-cli#1564)."""
    if not inventory.exists:
        raise NotFoundError(
            f"the folder `{artifact.path}` is gone",
            safe="the mirror keeps what it has",
            hint=f"`labsync pull {artifact.name}` brings it back",
        )
    if base is not None and len(base) and not inventory.files:
        raise RefusedError(
            f"the folder `{artifact.path}` is suddenly empty",
            safe="the mirror keeps what it has",
            hint=f"`labsync pull {artifact.name}` brings its files back",
        )


def _store(
    lab: Lab, artifact: Artifact, home: Home, snapshot: Snapshot, contents: dict[str, Ref], pushed: Pushed
) -> tuple[Located, ...]:
    """Bring every content of the snapshot to the mirror and return where it lies."""
    goal = Goal(
        artifact.name,
        snapshot,
        disk=home.inventory(rehash=False),
        mirrored=contents,
        made=artifact.is_made,
        to_disk=False,
    )
    if lab.options.dry_run:
        pushed.plans.append(make_plan(goal))
        raise _FailedError("a dry run stores nothing")
    task: Task = prepare(lab, artifact, goal, home)
    pushed.plans.append(task.plan)
    carried = carry_out(lab, [task], f"push {artifact.name}")
    pushed.errors += carried.errors
    pushed.transferred += carried.transferred
    located = carried.located(task)
    if located is None:
        raise _FailedError("some contents could not be stored")
    contents.update({file.entry.sha256: file.ref for file in located})
    return located


def _contents(lab: Lab, head: Head | None) -> dict[str, Ref]:
    return {f.entry.sha256: f.ref for f in lab.view.index(head.index).files} if head else {}


def _push_results(
    lab: Lab, artifact: Artifact, home: Home, mine: Snapshot, pushed: Pushed, *, prune: bool
) -> None:
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
        contents = _contents(lab, head)
        if merge.snapshot.id != theirs.id:
            located = _store(lab, artifact, home, merge.snapshot, contents, pushed)
            index = new_index(artifact.name, located, head.index if head else "")
            try:
                publish(lab, HeadName(artifact.name), index, head)
            except HeadMovedError:
                lab.view.refresh()
                continue
        if merge.loser is not None:
            _keep_loser(lab, artifact, home, merge.loser, contents, pushed)
            pushed.errors.append(ErrorReport.of(push_conflict(artifact.name, merge.conflicts, merge.loser)))
        elif not lab.options.dry_run:
            home.finish(merge.snapshot)
        if not lab.options.dry_run:
            lab.set_base(artifact, merge.base)
            lab.state.close_batches(lab.memory_key(artifact))
        return
    raise ConflictError(
        f"the head of `{artifact.name}` moved {ROUNDS} times while this box pushed",
        safe="what was uploaded is kept and is not sent again",
        hint="run the same command again",
    )


def _refuse_mass_prune(artifact: Artifact, mine: Snapshot, base: Snapshot | None) -> None:
    gone = len((base or EMPTY).by_path.keys() - mine.by_path.keys())
    if base is not None and gone * 2 > len(base):
        raise RefusedError(
            f"`--prune` would drop {gone} of {len(base)} names of `{artifact.name}`",
            safe="the mirror keeps what it has",
            hint=f"`labsync push {artifact.name} --prune --force` if that is meant",
        )


def _keep_loser(
    lab: Lab, artifact: Artifact, home: Home, loser: Snapshot, contents: dict[str, Ref], pushed: Pushed
) -> None:
    name = HeadName.conflict(artifact.name, loser.id)
    kept = lab.view.head(name)
    if kept is not None and kept.snapshot == loser.id:
        return
    located = _store(lab, artifact, home, loser, contents, pushed)
    head = lab.view.newest(artifact.name)
    publish(lab, name, new_index(artifact.name, located, head.index if head else ""), kept)


def _push_units(lab: Lab, artifact: Artifact, home: Home, found: Sequence[Snapshot], pushed: Pushed) -> None:
    """Push each complete unit that the head's history does not have yet, the oldest first."""
    head, base = lab.view.newest(artifact.name), lab.base(artifact)
    base = within(artifact, base) if base is not None else None
    known = _known_units(lab, artifact, head)
    waiting = [unit for unit in found if unit.id not in known]
    if not waiting:
        return
    if head is not None and not lab.options.force and base != _newest_unit(lab, artifact, head):
        raise _unit_conflict(lab, artifact, home, waiting, pushed)
    contents = lab.view.contents(artifact.name)
    for number, unit in enumerate(waiting):
        located = _store(lab, artifact, home, unit, contents, pushed)
        index = new_index(artifact.name, located, head.index if head else "")
        try:
            head = publish(lab, HeadName(artifact.name), index, head)
        except HeadMovedError:
            lab.view.refresh()
            raise _unit_conflict(lab, artifact, home, waiting[number:], pushed) from None
        home.finish(unit)
        lab.set_base(artifact, unit)
        lab.state.close_batches(lab.memory_key(artifact))


def _newest_unit(lab: Lab, artifact: Artifact, head: Head) -> Snapshot:
    return within(artifact, lab.view.index(head.index).snapshot)


def _known_units(lab: Lab, artifact: Artifact, head: Head | None) -> set[str]:
    """Return the snapshots in the head's history; the loser of a conflict is not in it."""
    known, index_id = set(), head.index if head else ""
    while index_id:
        index = lab.view.index(index_id)
        known.add(within(artifact, index.snapshot).id)
        index_id = index.parent
    return known


def _complete_units(artifact: Artifact, home: Home, settled: Settled, pushed: Pushed) -> list[Snapshot]:
    """Return the finished units of which every file may be pushed, the oldest first."""
    found = []
    mine, waiting = settled.snapshot, units(settled.busy)
    for unit, members in units(mine.by_path).items():
        if not is_complete(unit, members, artifact.complete):
            pushed.skipped.append(Skipped(unit or artifact.path, "the checkpoint is not finished"))
        elif unit in waiting:
            pushed.skipped.append(Skipped(unit or artifact.path, "a file of the checkpoint is not settled"))
        else:
            newest = max(home.source(path).stat().st_mtime_ns for path in members)
            found.append((newest, unit, Snapshot.of(mine.by_path[path] for path in members)))
    return [snapshot for _, _, snapshot in sorted(found, key=lambda item: item[:2])]


def _unit_conflict(
    lab: Lab, artifact: Artifact, home: Home, waiting: Sequence[Snapshot], pushed: Pushed
) -> ConflictError:
    """Keep this box's units beside the head, and return the conflict to report."""
    contents = lab.view.contents(artifact.name)
    for unit in waiting:
        _keep_loser(lab, artifact, home, unit, contents, pushed)
        home.finish(unit)
    newest = waiting[-1]
    return ConflictError(
        f"another box pushed a checkpoint to `{artifact.name}` that this box has not seen",
        safe=f"both are in the mirror: theirs in the head, yours as `{artifact.name}@{newest.short_id}`",
        hint=(
            f"`labsync pull {artifact.name}` takes theirs beside yours; "
            f"`labsync push {artifact.name} --force` makes yours the newest"
        ),
        path=newest.entries[0].path,
    )


def _push_sourced(lab: Lab, artifact: Artifact, home: Home, inventory: Inventory, pushed: Pushed) -> None:
    locked = lab.locked(artifact)
    different = [e.path for e in locked.snapshot if _found(inventory, e.path) != e]
    if different:
        raise RefusedError(
            f"`{different[0]}` of `{artifact.name}` is not what the lock says",
            safe="the mirror keeps what it has",
            hint=f"`labsync pull {artifact.name}` makes the disk match the lock first",
            path=different[0],
        )
    contents = mirrored(lab, artifact, locked.snapshot)
    located = _store(lab, artifact, home, locked.snapshot, contents, pushed)
    publish_sourced(lab, artifact, located)


def _found(inventory: Inventory, path: str) -> object:
    found = inventory.files.get(path)
    return found and found.entry
