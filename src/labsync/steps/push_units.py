"""Push of checkpoints: each complete unit is a snapshot of its own, and the head moves to the newest."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from labsync.errors import ConflictError
from labsync.merge import is_complete, units
from labsync.mirrors.base import HeadMovedError, HeadName
from labsync.report import Skipped
from labsync.session.atomic_folder import is_saved
from labsync.snapshot import Snapshot
from labsync.steps.goals import within
from labsync.steps.publish import new_index, publish
from labsync.steps.storing import Pushed, keep_loser, store
from labsync.steps.uploads import end_uploads

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from labsync.disk.base import Home
    from labsync.manifest.model import Artifact
    from labsync.mirrors.base import Head
    from labsync.steps.lab import Lab
    from labsync.steps.settled import Settled

OLDER, NEWEST, PUSHING = "older-unit", "newest-unit", "pushing-unit"  # what is remembered in the state


def push_units(lab: Lab, artifact: Artifact, home: Home, found: Sequence[Snapshot], pushed: Pushed) -> None:
    """Push each complete unit that the head's history does not have yet, the oldest first.

    The head ends at the newest: where all of them are older than what it names, that is published again.
    """
    _catch_up(lab, artifact, found)
    head, base = _restored(lab, artifact), lab.base(artifact)
    base = within(artifact, base) if base is not None else None
    known = _known_units(lab, artifact, head)
    waiting = [unit for unit in found if unit.id not in known]
    if not waiting:
        return
    if head is not None and not lab.options.force and base != _newest_unit(lab, artifact, head):
        raise _unit_conflict(lab, artifact, home, waiting, pushed)
    older = [unit for unit in waiting if _was_overtaken(lab, artifact, home, unit)]
    newer = [unit for unit in waiting if unit not in older]
    if older and head is not None and not lab.options.dry_run:
        lab.state.put(NEWEST, lab.memory_key(artifact), head.snapshot.encode())
    contents = lab.view.contents(artifact.name)
    units_left = [*older, *newer]
    while units_left:
        unit = units_left[0]
        located = store(lab, artifact, home, unit, contents, pushed)
        index = new_index(lab, artifact.name, located, head.index if head else "")
        lab.state.put(PUSHING, lab.memory_key(artifact), unit.id.encode())
        try:
            head = publish(lab, HeadName(artifact.name), index, head)
        except HeadMovedError:
            lab.view.refresh()
            raise _unit_conflict(lab, artifact, home, units_left, pushed) from None
        if units_left.pop(0) in newer:
            lab.state.delete(NEWEST, lab.memory_key(artifact))
        home.finish(unit)
        lab.set_base(artifact, unit)
        end_uploads(lab, artifact)
    _restored(lab, artifact)


def _catch_up(lab: Lab, artifact: Artifact, found: Sequence[Snapshot]) -> None:
    """Take note of the newest unit as seen where it lies here whole, or was being pushed from here.

    A push of it that was killed behind its last step could not: it is no other box's.
    """
    head, base = lab.view.newest(artifact.name), lab.base(artifact)
    if head is None:
        return
    newest = _newest_unit(lab, artifact, head)
    if newest.id.encode() == lab.state.get(PUSHING, lab.memory_key(artifact)):
        found = [*found, newest]  # rotation may have removed it since
    if newest in found and (base is None or within(artifact, base) != newest):
        lab.set_base(artifact, newest)


def _restored(lab: Lab, artifact: Artifact) -> Head | None:
    """Return the head, after a head that names an older checkpoint was moved to the newest again.

    A push of older ones was killed, or has just ended, where that is remembered.
    """
    head, memory = lab.view.newest(artifact.name), lab.memory_key(artifact)
    wanted = lab.state.get(NEWEST, memory)
    if head is None or wanted is None or lab.options.dry_run or lab.state.base_id(memory) != head.snapshot:
        return head
    for _, index in lab.view.history(artifact.name):
        if index.snapshot.id.encode() == wanted != head.snapshot.encode():
            again = new_index(lab, artifact.name, index.files, head.index)
            with contextlib.suppress(HeadMovedError):  # then another box has a say
                head = publish(lab, HeadName(artifact.name), again, head)
                lab.set_base(artifact, index.snapshot)
            break
    lab.state.delete(NEWEST, memory)
    return head


def note_older(lab: Lab, artifact: Artifact, unit: str, stats: Iterable[tuple[int, int]]) -> None:
    """Remember of a unit, with the size and mtime of its files by path, that a newer one was pushed."""
    lab.state.put(OLDER, _older_key(lab, artifact, unit, stats), b"yes")


def is_older(lab: Lab, artifact: Artifact, unit: str, stats: Iterable[tuple[int, int]]) -> bool:
    """Say whether that is remembered."""
    return lab.state.get(OLDER, _older_key(lab, artifact, unit, stats)) is not None


def _was_overtaken(lab: Lab, artifact: Artifact, home: Home, snapshot: Snapshot) -> bool:
    """Say whether a newer checkpoint than this one was pushed from this disk."""
    found = [home.source(entry.path).stat() for entry in snapshot]
    child, slash, _ = snapshot.entries[0].path.partition("/")
    stats = [(stat.st_size, stat.st_mtime_ns) for stat in found]
    return is_older(lab, artifact, child if slash else "", stats)


def _older_key(lab: Lab, artifact: Artifact, unit: str, stats: Iterable[tuple[int, int]]) -> str:
    return f"{lab.memory_key(artifact)} {unit} {sorted(stats)}"


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


def complete_units(artifact: Artifact, home: Home, settled: Settled, pushed: Pushed) -> list[Snapshot]:
    """Return the finished units of which every file may be pushed, the oldest first."""
    found = []
    mine, waiting = settled.snapshot, units(settled.busy)
    for unit, members in units(mine.by_path).items():
        if is_finished(artifact, home.path, unit, members) is False:
            pushed.skipped.append(Skipped(unit or artifact.path, "the checkpoint is not finished"))
        elif unit in waiting:
            pushed.skipped.append(Skipped(unit or artifact.path, "a file of the checkpoint is not settled"))
        else:
            newest = max(home.source(path).stat().st_mtime_ns for path in members)
            found.append((newest, unit, Snapshot.of(mine.by_path[path] for path in members)))
    return [snapshot for _, _, snapshot in sorted(found, key=lambda item: item[:2])]


def is_finished(artifact: Artifact, folder: Path, unit: str, members: Iterable[str]) -> bool | None:
    """Say what a checkpoint's own rule says of it, None where it has no rule.

    `folder` is the artifact's. A folder that `labsync.session.saving` made is finished.
    """
    if unit and is_saved(folder / unit):
        return True
    if artifact.complete or unit.startswith("checkpoint-"):
        return is_complete(unit, members, artifact.complete)
    return None


def _unit_conflict(
    lab: Lab, artifact: Artifact, home: Home, waiting: Sequence[Snapshot], pushed: Pushed
) -> ConflictError:
    """Keep this box's units beside the head, and return the conflict to report."""
    contents = lab.view.contents(artifact.name)
    for unit in waiting:
        keep_loser(lab, artifact, home, unit, contents, pushed)
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
