"""How two histories of a made artifact meet: pure rules over snapshots.

Absence is never taken for deletion: a file that is not on this disk stays in the head, unless the
user prunes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsync.snapshot import EMPTY, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Merge:
    """The outcome of a push of results.

    `snapshot` is the new head's; `conflicts` are the paths that changed both here and there, whose
    head's content stays; `loser` is then the same snapshot with this disk's content at those paths,
    to be kept beside the head. `base` is what this disk has seen of the head after the push.
    """

    snapshot: Snapshot
    base: Snapshot
    conflicts: tuple[str, ...] = ()
    loser: Snapshot | None = None


def merge_results(
    disk: Snapshot, base: Snapshot | None, head: Snapshot, *, prune: bool, force: bool
) -> Merge:
    """Return head ∪ what changed on this disk since the base.

    A path that changed on both sides to different contents is a conflict, and so is a path that
    differs when there is no base; with `force` this disk's content wins. `prune` removes the names
    that the base knew and the disk no longer has.
    """
    known = base or EMPTY
    merged = dict(head.by_path)
    conflicts = []
    for path, mine in disk.by_path.items():
        theirs, before = head.by_path.get(path), known.by_path.get(path)
        if mine in (theirs, before):
            continue
        if theirs in (None, before) or force:
            merged[path] = mine
        else:
            conflicts.append(path)
    if prune:
        for path in known.by_path.keys() - disk.by_path.keys():
            if merged.get(path) == known.by_path[path]:
                del merged[path]
    snapshot = Snapshot.of(merged.values())
    seen = base_after(disk, known, snapshot)
    if not conflicts:
        return Merge(snapshot, seen)
    loser = Snapshot.of({**merged, **{path: disk.by_path[path] for path in conflicts}}.values())
    return Merge(snapshot, seen, tuple(sorted(conflicts)), loser)


def base_after(disk: Snapshot, base: Snapshot | None, head: Snapshot) -> Snapshot:
    """Return what a disk has seen of `head`, after a push to it or a pull of it.

    A path whose content is the head's has been seen. Every other path keeps its old base: a change
    of somebody else's that has not been pulled yet must not look like a change made here, or the
    next push would take it back; nor may a name that was never here be pruned. A name that is
    neither here nor there any more is forgotten.
    """
    known = (base or EMPTY).by_path
    seen = {path: entry for path, entry in disk.by_path.items() if head.by_path.get(path) == entry}
    for path, before in known.items():
        if path not in seen and (path in head.by_path or path in disk.by_path):
            seen[path] = before
    return Snapshot.of(seen.values())


def units(paths: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the checkpoint units of these paths: each direct child folder is one, and the files
    that lie directly in the artifact's folder together are another, named by the empty string.
    """
    grouped: dict[str, list[str]] = {}
    for path in paths:
        child, slash, _ = path.partition("/")
        grouped.setdefault(child if slash else "", []).append(path)
    return {unit: tuple(sorted(members)) for unit, members in sorted(grouped.items())}


TRAINER_STATE = "trainer_state.json"


def is_complete(unit: str, members: Iterable[str], marker: str) -> bool:
    """Say whether a checkpoint unit is finished, as far as its file names can tell.

    `marker` is the file that the manifest says marks a finished unit; without one, a folder in the
    layout of transformers' Trainer (`checkpoint-<step>`) is finished by its `trainer_state.json`,
    which Trainer writes last of all (https://huggingface.co/docs/transformers/main_classes/trainer).
    """
    names = set(members)
    prefix = f"{unit}/" if unit else ""
    if marker:
        return f"{prefix}{marker}" in names
    if unit.startswith("checkpoint-"):
        return f"{prefix}{TRAINER_STATE}" in names
    return True
