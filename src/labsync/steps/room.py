"""Whether plans fit: what they write to the homes, to a directory mirror, and to the stage on the way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from labsync.disk.budget import Need, check_room, measure
from labsync.steps.fetched import movable
from labsync.steps.inspect import measure_tree
from labsync.transfer.carry import SMALL
from labsync.transfer.parts import held

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labsync.disk.base import Home
    from labsync.steps.carry import Task
    from labsync.steps.lab import Lab


def ensure_room(lab: Lab, tasks: Sequence[Task]) -> None:
    """Check the whole plan against the disks it writes to, before the first byte."""
    needs, free, total = [], {}, {}
    writes: list[tuple[Path, int, str]] = [
        (task.home.path, task.plan.bytes_to_disk - _here_already(lab, task, task.home), task.artifact.name)
        for task in tasks
        if task.home is not None
    ]
    url = lab.manifest.mirror.url
    if url.startswith("file://"):
        target = Path(url.removeprefix("file://"))
        writes += [(target, t.plan.bytes_to_mirror, f"{t.artifact.name} (mirror)") for t in tasks]
    for path, size, label in writes:
        if size:
            device, device_free, device_total = measure(path)
            needs.append(Need(label, device, size))
            free[device], total[device] = device_free, device_total
    check_room(needs, free, total, lab.manifest.disk, used_by(lab))


def _here_already(lab: Lab, task: Task, home: Home) -> int:
    """Return the bytes that take no new room: what `lock` fetched, and what a stopped run staged."""
    large = {r.entry.sha256 for r in task.plan.routes if r.publications and r.entry.size > SMALL}
    stage = home.stage if large else None
    staged = sum(held(stage, sha256) for sha256 in large) if stage else 0
    return staged + movable(lab.fetched_dir, home.path, task.plan)


def used_by(lab: Lab) -> int:
    """Return the bytes that labsync uses on this disk; only looked at when the manifest sets a budget."""
    if lab.manifest.disk.budget is None:
        return 0
    folders = [lab.manifest.state_dir, *(lab.home(a).path for a in lab.manifest.artifacts if a.path)]
    return sum(measure_tree(folder)[1] for folder in folders)
