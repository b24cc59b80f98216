"""Whether plans fit: what they write to the homes, to a directory mirror, and to the stage on the way."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.disk.budget import Need, check_room, measure
from labsync.steps.fetched import movable
from labsync.steps.inspect import measure_tree
from labsync.transfer.carry import is_direct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labsync.steps.carry import Task
    from labsync.steps.lab import Lab


def ensure_room(lab: Lab, tasks: Sequence[Task]) -> None:
    """Check the whole plan against the disks it writes to, before the first byte."""
    needs, free, total = [], {}, {}
    writes: list[tuple[Path, int, str]] = [
        (t.home.path, t.plan.bytes_to_disk - movable(lab.fetched_dir, t.home.path, t.plan), t.artifact.name)
        for t in tasks
        if t.home is not None
    ]
    writes += [(lab.stage_dir, size, f"{name} (stage)") for name, size in _staged(lab, tasks).items()]
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


def _staged(lab: Lab, tasks: Sequence[Task]) -> Counter[str]:
    """Return what passes through the stage to the mirror, at worst: the largest file of every job."""
    passing = [
        (route.entry.size, task.artifact.name)
        for task in tasks
        for route in task.plan.routes
        if not route.publications and not is_direct(route, route.sources)
    ]
    sizes: Counter[str] = Counter()
    for size, name in sorted(passing, reverse=True)[: lab.options.jobs]:
        sizes[name] += size
    return sizes


def used_by(lab: Lab) -> int:
    """Return the bytes that labsync uses on this disk; only looked at when the manifest sets a budget."""
    if lab.manifest.disk.budget is None:
        return 0
    folders = [lab.manifest.state_dir, *(lab.home(a).path for a in lab.manifest.artifacts if a.path)]
    return sum(measure_tree(folder)[1] for folder in folders)
