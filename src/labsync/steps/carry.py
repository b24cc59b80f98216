"""Carry plans out: room first, then every route in one pool, then what lies where."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.disk.budget import Need, check_room, measure
from labsync.errors import InterruptedRunError, LabsyncError, NotFoundError, UsageError
from labsync.events import Note, TransferEnded, TransferPlanned
from labsync.mirrors.base import Located
from labsync.mirrors.records import new_batch
from labsync.places import Ref
from labsync.plan import Goal, Plan, locate, make_plan
from labsync.report import ErrorReport, Transferred
from labsync.steps.fetched import FetchedFirst
from labsync.steps.inspect import measure_tree
from labsync.transfer.engine import Engine, workload
from labsync.transfer.work import Work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from labsync.disk.base import Home
    from labsync.manifest.model import Artifact
    from labsync.names import ArtifactName
    from labsync.plan import Route
    from labsync.steps.lab import Lab
from labsync.transfer.engine import Outcome as EngineOutcome

ASK_ABOVE = 1 << 30


@dataclass(frozen=True)
class Task:
    """One artifact's goal and plan, and its home where the disk takes part."""

    artifact: Artifact
    goal: Goal
    plan: Plan
    home: Home | None


@dataclass(frozen=True)
class Carried:
    """What became of the tasks: failures by artifact, bytes moved, and where contents now lie."""

    errors: tuple[ErrorReport, ...]
    transferred: Transferred
    written: Mapping[tuple[ArtifactName, str], str]

    def failed(self, artifact: ArtifactName) -> bool:
        """Say whether anything of this artifact could not be done."""
        return any(error.artifact == artifact for error in self.errors)

    def located(self, task: Task) -> tuple[Located, ...] | None:
        """Return where each file of the goal lies in the mirror, None while some content is missing."""
        places: dict[str, Ref] = {}
        for path, ref in locate(task.goal, task.plan).items():
            sha256 = task.goal.wanted.by_path[path].sha256
            if sha256 in task.goal.mirrored or (task.artifact.name, sha256) in self.written:
                places[path] = ref
        if len(places) < len(task.goal.wanted):
            return None
        return tuple(Located(e, places[e.path].location, places[e.path].offset) for e in task.goal.wanted)


def prepare(lab: Lab, artifact: Artifact, goal: Goal, home: Home | None) -> Task:
    """Plan a goal; where content must be written, into a batch that is journalled before its first byte."""
    if goal.to_mirror and any(entry.sha256 not in goal.mirrored for entry in goal.wanted):
        memory = lab.memory_key(artifact)
        batch = lab.state.open_batch(memory, goal.wanted.id, lambda: new_batch(datetime.now(timezone.utc)))
        # Of every batch that was not finished: what is wanted may have changed since one was stopped.
        done = {sha256: Ref(key) for sha256, key in lab.state.uploaded_of(memory).items()}
        prefix = f"{artifact.name}/{batch}/"
        goal = replace(goal, mirrored={**done, **goal.mirrored}, key_prefix=prefix)
    return Task(artifact, goal, make_plan(goal), home)


def carry_out(lab: Lab, tasks: Sequence[Task], title: str) -> Carried:
    """Execute all routes of the tasks; raises only what ends the run before its first byte.

    Raises DiskError (9) when the whole plan does not fit, UsageError when a first upload of more
    than 1 GiB is not agreed to.
    """
    routes = [route for task in tasks for route in task.plan.routes]
    unmet = tuple(_unmet(task) for task in tasks if task.plan.unmet)
    if not routes:
        return Carried(unmet, Transferred(), {})
    ensure_room(lab, tasks)
    _announce_upload(lab, tasks)
    lab.observe(TransferPlanned(title, *workload(routes)))
    try:
        outcome = _execute(lab, tasks, routes)
    finally:
        lab.observe(TransferEnded())
    failures = tuple(ErrorReport.of(f.error, f.route.artifact) for f in outcome.failures)
    written = {(r.artifact, r.entry.sha256): r.key for r in outcome.written}
    return Carried(unmet + failures, outcome.transferred, written)


def _execute(lab: Lab, tasks: Sequence[Task], routes: Sequence[Route]) -> EngineOutcome:
    for task in tasks:
        if task.home is not None and any(route.publications for route in task.plan.routes):
            task.home.begin()

    if any(route.key for route in routes):
        # What keeps the probe from being answered also keeps each write, and is reported there.
        with contextlib.suppress(LabsyncError):
            lab.probe_mirror()

    def on_written(route: Route) -> None:
        lab.state.record_upload(route.key.split("/")[2], route.entry.sha256, route.key)

    work = {
        task.artifact.name: Work(
            stage=lab.stage_dir,
            home=task.home,
            origin=FetchedFirst(lab.origin(task.artifact), lab.fetched_dir) if task.goal.origin else None,
            mirror=lab.mirror if lab.has_mirror else None,
            on_written=on_written,
        )
        for task in tasks
    }
    try:
        return Engine(jobs=lab.options.jobs, observer=lab.observe).execute(routes, work)
    except InterruptedRunError as error:
        # A signal ends the command: it is no failure of one artifact, after which the next one's turn comes.
        if isinstance(error.__cause__, KeyboardInterrupt):
            raise error.__cause__ from None
        raise


def _unmet(task: Task) -> ErrorReport:
    first, count = task.plan.unmet[0].entry.path, len(task.plan.unmet)
    more = f" and {count - 1} more" if count > 1 else ""
    return ErrorReport.of(
        NotFoundError(
            f"no reachable place holds `{first}`{more} of `{task.artifact.name}`",
            artifact=task.artifact.name,
            path=first,
            hint="run it without `--offline`, or push it from the box that has it",
        )
    )


def ensure_room(lab: Lab, tasks: Sequence[Task]) -> None:
    """Check the whole plan against the disks it writes to, before the first byte."""
    needs, free, total = [], {}, {}
    writes: list[tuple[Path, int, str]] = [
        (t.home.path, t.plan.bytes_to_disk, t.artifact.name) for t in tasks if t.home is not None
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


def used_by(lab: Lab) -> int:
    """Return the bytes that labsync uses on this disk; only looked at when the manifest sets a budget."""
    if lab.manifest.disk.budget is None:
        return 0
    folders = [lab.manifest.state_dir, *(lab.home(a).path for a in lab.manifest.artifacts if a.path)]
    return sum(measure_tree(folder)[1] for folder in folders)


def _announce_upload(lab: Lab, tasks: Sequence[Task]) -> None:
    first = sum(task.plan.bytes_to_mirror for task in tasks)
    if first:
        files = sum(1 for task in tasks for route in task.plan.routes if route.key)
        lab.observe(Note(f"writing {files} files, {first:,} bytes, to the mirror {lab.mirror.url}"))
    if first > ASK_ABOVE and not lab.options.agrees(f"upload {first / 2**30:.1f} GiB to {lab.mirror.url}?"):
        raise UsageError(
            f"the first upload to the mirror is {first / 2**30:.1f} GiB and nobody agreed to it",
            hint="add `--yes`, or `--no-mirror` to leave the mirror as it is",
        )
