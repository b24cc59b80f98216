"""Carry plans out: room first, then every route in one pool, then what lies where."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from labsync.errors import DiskError, InterruptedRunError, LabsyncError, NotFoundError, UsageError
from labsync.events import Note, TransferEnded, TransferPlanned
from labsync.mirrors.base import Located, OtherBytesError
from labsync.names import escape
from labsync.places import Ref
from labsync.plan import NO_FILES, Goal, Pack, Plan, make_plan
from labsync.report import ErrorReport, Transferred
from labsync.snapshot import Snapshot
from labsync.steps.room import ensure_room
from labsync.steps.uploads import Notes, begin_upload, for_packs, without_stored
from labsync.transfer.engine import Engine, workload
from labsync.transfer.pace import Pace
from labsync.transfer.parts import Stages
from labsync.transfer.work import Work

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from labsync.disk.base import Home
    from labsync.manifest.model import Artifact
    from labsync.names import ArtifactName
    from labsync.plan import Route
    from labsync.steps.lab import Lab
    from labsync.transfer.engine import Outcome as EngineOutcome

ASK_ABOVE = 1 << 30


@dataclass(frozen=True)
class Task:
    """One artifact's goal and plan, and its home where the disk takes part.

    `stored` are packs of the goal that a stopped run wrote already.
    """

    artifact: Artifact
    goal: Goal
    plan: Plan
    home: Home | None
    stored: tuple[Pack, ...] = ()


@dataclass(frozen=True)
class Carried:
    """What became of the tasks: failures by artifact, bytes moved, and where contents now lie.

    `packs` are the sizes of the packs that were written, by key; `damaged` the keys of the mirror that
    hold no or other bytes than was said, `spoiled` the contents whose new key was taken by other bytes.
    """

    errors: tuple[ErrorReport, ...]
    transferred: Transferred
    written: Mapping[tuple[ArtifactName, str], Ref]
    packs: Mapping[str, int] = field(default_factory=dict)
    damaged: frozenset[str] = frozenset()
    spoiled: frozenset[tuple[ArtifactName, str]] = frozenset()

    def failed(self, artifact: ArtifactName) -> bool:
        """Say whether anything of this artifact could not be done."""
        return any(error.artifact == artifact for error in self.errors)

    def located(self, task: Task) -> tuple[Located, ...] | None:
        """Return where each file of the goal lies in the mirror, None while some content is missing.

        What this run wrote comes first: it may replace what is damaged there.
        """
        located = []
        stored = _members(task.stored)
        for entry in task.goal.wanted:
            ref = self.written.get((task.artifact.name, entry.sha256)) or stored.get(
                entry.sha256, task.goal.mirrored.get(entry.sha256)
            )
            if ref is None or ref.location in self.damaged:
                return None
            located.append(Located(entry, ref.location, ref.offset))
        return tuple(located)


def prepare(lab: Lab, artifact: Artifact, goal: Goal, home: Home | None) -> Task:
    """Plan a goal; where content must be written, into a batch that is journalled before its first byte."""
    goal = for_packs(lab, artifact, goal)
    if not goal.to_mirror or all(entry.sha256 in goal.mirrored for entry in goal.wanted):
        return Task(artifact, goal, make_plan(goal), home)
    goal, stored = begin_upload(lab, artifact, goal)
    plan, whole = without_stored(make_plan(goal), stored)
    return Task(artifact, goal, plan, home, whole)


def _members(packs: Iterable[Pack]) -> dict[str, Ref]:
    """Return where each content of the packs lies."""
    return {m.entry.sha256: Ref(pack.key, offset=m.offset) for pack in packs for m in pack.members}


def carry_out(lab: Lab, tasks: Sequence[Task], title: str) -> Carried:
    """Execute all routes of the tasks; raises only what ends the run before its first byte.

    What the mirror was said to have and another place had to give is written to the mirror again.

    Raises DiskError (9) when the whole plan does not fit, UsageError when a first upload of more
    than 1 GiB is not agreed to.
    """
    carried = _carried(lab, tasks, title)
    _tidy(tasks)
    return carried


def _carried(lab: Lab, tasks: Sequence[Task], title: str) -> Carried:
    unmet = tuple(_unmet(task) for task in tasks if task.plan.unmet)
    if all(task.plan.is_empty for task in tasks):
        return Carried(unmet, Transferred(), {})
    ensure_room(lab, tasks)
    _announce_upload(lab, tasks)
    first = _run(lab, tasks, title)
    first = replace(first, errors=unmet + first.errors)
    if first.packs:
        lab.view.packs.update(first.packs)
    if not first.damaged and not first.spoiled:
        return first
    if first.damaged:
        lab.view.condemn(first.damaged)
    return _heal(lab, tasks, first)


def _tidy(tasks: Sequence[Task]) -> None:
    """Remove what a killed run left of updates that end now: no transfer may have entered their stages.

    Failing to is no matter; the next run that stages something does it.
    """
    with contextlib.closing(Stages()) as stages, contextlib.suppress(LabsyncError):
        for task in tasks:
            if task.home is not None and not task.goal.disk.complete:
                stages.enter(task.home.stage)


def _run(lab: Lab, tasks: Sequence[Task], title: str) -> Carried:
    routes = [route for task in tasks for route in task.plan.routes]
    packs = [pack for task in tasks for pack in task.plan.packs]
    notes = Notes(lab.state)
    work = {task.artifact.name: _work(lab, task, notes) for task in tasks}
    lab.observe(TransferPlanned(title, *workload(routes, packs, work)))
    try:
        outcome = _execute(lab, tasks, (routes, packs), work)
    finally:
        notes.flush()
        lab.observe(TransferEnded())
    written = {(r.artifact, r.entry.sha256): Ref(r.key) for r in outcome.written}
    for pack in outcome.packed:
        written |= {(pack.artifact, sha256): ref for sha256, ref in _members([pack]).items()}
    spoiled = [failure for failure in outcome.failures if isinstance(failure.error, OtherBytesError)]
    return Carried(
        tuple(ErrorReport.of(f.error, f.item.artifact) for f in outcome.failures if f not in spoiled),
        outcome.transferred,
        written,
        {pack.key: pack.size for pack in (*outcome.packed, *(p for t in tasks for p in t.stored))},
        frozenset(s.ref.location for r in outcome.damaged for s in r.sources if s.place == "mirror"),
        frozenset((f.item.artifact, sha256) for f in spoiled for sha256 in _contents(f.item)),
    )


def _contents(item: Route | Pack) -> tuple[str, ...]:
    return tuple(m.entry.sha256 for m in item.members) if isinstance(item, Pack) else (item.entry.sha256,)


def _heal(lab: Lab, tasks: Sequence[Task], first: Carried) -> Carried:
    """Write what the mirror could not give back once more, under new keys, from where it is whole now."""
    healing: list[Task] = []
    errors = list(first.errors)
    for task in tasks:
        lost = {e.sha256 for e in task.goal.wanted if _ref_key(task, e.sha256) in first.damaged}
        lost |= {sha256 for artifact, sha256 in first.spoiled if artifact == task.artifact.name}
        if not lost:
            continue
        try:
            healing += _healing(lab, task, lost)
        except LabsyncError as error:
            errors.append(ErrorReport.of(error, task.artifact.name))
    if not healing:
        return replace(first, errors=tuple(errors))
    errors += [_unmet(task) for task in healing if task.plan.unmet]
    try:
        ensure_room(lab, healing)
        second = _run(lab, healing, "repair of the mirror")
        lab.view.packs.update(second.packs)
    except DiskError as error:
        return replace(first, errors=(*errors, ErrorReport.of(error)))
    return Carried(
        (*errors, *second.errors),
        first.transferred + second.transferred,
        {**first.written, **second.written},
        {**first.packs, **second.packs},
        first.damaged,
    )


def _ref_key(task: Task, sha256: str) -> str:
    ref = task.goal.mirrored.get(sha256)
    return ref.location if ref else ""


def _healing(lab: Lab, task: Task, lost: set[str]) -> list[Task]:
    """Return the task that writes the lost contents again; none where the mirror is not written to."""
    files = [entry for entry in task.goal.wanted if entry.sha256 in lost]
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    what = f"the mirror's copy of `{escape(files[0].path)}`{more} of `{task.artifact.name}` is damaged"
    if not task.goal.to_mirror:
        lab.observe(Note(f"{what} and stays so: this command does not write to the mirror", "warning"))
        return []
    lab.observe(Note(f"{what}: it is written again", "warning"))
    # Its batch may be open still, with the damaged key in it, and a key is written once.
    lab.state.close_batches(lab.memory_key(task.artifact))
    goal = replace(
        task.goal,
        wanted=Snapshot.of(files),
        disk=task.home.inventory(rehash=False) if task.home else NO_FILES,
        mirrored={sha256: ref for sha256, ref in task.goal.mirrored.items() if sha256 not in lost},
        to_disk=False,
    )
    return [prepare(lab, task.artifact, goal, task.home)]


def _work(lab: Lab, task: Task, notes: Notes) -> Work:
    return Work(
        home=task.home,
        origin=lab.origin(task.artifact) if task.goal.origin else None,
        mirror=lab.mirror if lab.has_mirror else None,
        on_written=notes.take,
        journal=lab.state.multipart(lab.memory_key(task.artifact)),
        fetched=lab.fetched_dir,
    )


def _execute(
    lab: Lab,
    tasks: Sequence[Task],
    items: tuple[Sequence[Route], Sequence[Pack]],
    work: Mapping[ArtifactName, Work],
) -> EngineOutcome:
    routes, packs = items
    for task in tasks:
        if task.home is not None and any(route.publications for route in task.plan.routes):
            task.home.begin()

    if packs or any(route.key for route in routes):
        # What keeps the probe from being answered also keeps each write, and is reported there.
        with contextlib.suppress(LabsyncError):
            lab.probe_mirror()
    engine = Engine(
        jobs=lab.options.jobs,
        observer=lab.observe,
        pace=Pace(lab.options.bandwidth),
        stop=lab.options.stop,
    )
    try:
        return engine.execute(routes, work, packs)
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


def _announce_upload(lab: Lab, tasks: Sequence[Task]) -> None:
    first = sum(task.plan.bytes_to_mirror for task in tasks)
    if first:
        files = sum(task.plan.files_to_mirror for task in tasks)
        noun = "file" if files == 1 else "files"
        lab.observe(Note(f"writing {files} {noun}, {first:,} bytes, to the mirror {lab.mirror.url}"))
    if first > ASK_ABOVE and not lab.options.agrees(f"upload {first / 2**30:.1f} GiB to {lab.mirror.url}?"):
        raise UsageError(
            f"the first upload to the mirror is {first / 2**30:.1f} GiB and nobody agreed to it",
            hint="add `--yes`, or `--no-mirror` to leave the mirror as it is",
        )
