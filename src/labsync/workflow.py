"""The path of the product, readable top to bottom; `bootstrap` at the end walks all of it.

manifest -> lock -> inventory -> plan -> transfer -> mirror -> environment -> kernel -> smoke -> report

Each function takes an opened `Lab`, changes what its name says, and returns an `Outcome`: data lines
and the report. A failure of one artifact is in the report; only what stops everything is raised.

Each imports its own steps, so that a command starts with what it needs and nothing else.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from labsync.errors import LabsyncError
from labsync.report import ErrorReport, MirrorRequests, Report, Transferred, exit_code_of
from labsync.steps.outcome import Location, Outcome, actions, finish

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from labsync.manifest.model import Artifact
    from labsync.manifest.select import Selection
    from labsync.names import ArtifactName
    from labsync.report import ArtifactReport, Built, Skipped
    from labsync.steps.lab import Lab
    from labsync.steps.outcome import Item
    from labsync.steps.prove import SmokeOptions
    from labsync.steps.pull import Pulled


@dataclass(frozen=True, slots=True)
class LockOptions:
    """How `lock` works: only check, resolve again what is locked already, or only fill what has gaps."""

    check: bool = False
    upgrade: bool = False
    fill: bool = False


def lock(lab: Lab, artifacts: Sequence[Artifact], options: LockOptions) -> Outcome:
    """Resolve the origins and write the lock; with `check` only say whether it fits the manifest."""
    from labsync.artifact_locks import hold
    from labsync.lock import read_lock, write_lock
    from labsync.steps.locking import check_lines, make_lock

    if options.check:
        if lab.lock is not None:
            lab.lock.read_listings()
        checked = check_lines(lab, artifacts)
        return finish(checked.errors, items=checked.lines)
    path = lab.manifest.lock_path
    with contextlib.ExitStack() as locks:
        if not lab.options.dry_run:
            locks.enter_context(hold(lab.manifest.state_dir, "lock", "write"))
        lab.use_lock(read_lock(path, salvage=True))
        locked = make_lock(lab, artifacts, upgrade=options.upgrade, fill=options.fill)
        if not lab.options.dry_run:
            write_lock(path, locked.lock)
    lab.use_lock(locked.lock)
    return finish(locked.errors, items=locked.lines)


def status(lab: Lab, artifacts: Sequence[Artifact]) -> Outcome:
    """Say how everything stands; one request to the mirror when nothing changed."""
    from labsync.steps.advice import advise, with_guard
    from labsync.steps.environment import standing_environment
    from labsync.steps.session_status import guard_status, last_session, session_status
    from labsync.steps.status import examine

    unreached = lab.reach_mirror()
    stands = [examine(lab, artifact) for artifact in artifacts]
    errors = unreached + tuple(error for stand in stands for error in stand.errors)
    reports = tuple(stand.report for stand in stands)
    skipped = tuple(item for stand in stands for item in stand.skipped)
    code = exit_code_of(errors)
    if code == 0 and any(report.disk not in ("ok", "ahead") for report in reports):
        code = 4
    report = Report(
        exit_code=code,
        artifacts=reports,
        mirror_requests=requests_of(lab),
        environment=standing_environment(lab),
        skipped=skipped,
        errors=errors,
    )
    session, guarded, last = session_status(lab), guard_status(lab), last_session(lab)
    advice = with_guard(advise(lab, stands), session, guarded)
    return Outcome(report, (advice, session, guarded, *([last] if last else ())))


def pull(lab: Lab, selections: Sequence[Selection]) -> Outcome:
    """Bring the selected artifacts to the disk: from the disk itself, the mirror, the origin."""
    from labsync.steps.fetched import make_room
    from labsync.steps.pull import pull as pull_selected

    make_room(lab)
    return _transferred(lab, pull_selected(lab, selections), [s.artifact for s in selections])


def push(lab: Lab, artifacts: Sequence[Artifact], *, prune: bool = False) -> Outcome:
    """Bring what was made here to the mirror."""
    from labsync.steps.push import push as push_selected

    pushed = push_selected(lab, artifacts, prune=prune)
    if lab.options.dry_run:
        return finish(
            pushed.errors, items=(*actions(pushed.plans), *pushed.dropped), requests=requests_of(lab)
        )
    return _report(
        lab, _stands(lab, artifacts, pushed.unchanged), pushed.errors, pushed.transferred, pushed.skipped
    )


def mirror(lab: Lab, artifacts: Sequence[Artifact]) -> Outcome:
    """Bring sourced artifacts from their origins to the mirror, past the disk."""
    from labsync.steps.fill_mirror import fill_mirror

    return _transferred(lab, fill_mirror(lab, artifacts), artifacts)


def verify(
    lab: Lab, selections: Sequence[Selection], *, repair: bool = False, environment: bool = False
) -> Outcome:
    """Read every byte on the disk again; with `repair` fetch what is damaged or missing.

    `environment` includes the environment's own files.
    """
    from labsync.steps.environment import verified_environment

    outcome = _verified(lab, selections, repair=repair)
    if not environment or lab.manifest.environment is None:
        return outcome
    built, errors = verified_environment(lab, repair=repair)
    errors = (*outcome.report.errors, *errors)
    report = replace(outcome.report, environment=built, errors=errors, exit_code=exit_code_of(errors))
    return replace(outcome, report=report)


def _verified(lab: Lab, selections: Sequence[Selection], *, repair: bool) -> Outcome:
    from labsync.steps.fetched import make_room
    from labsync.steps.pull import repair as repair_selected
    from labsync.steps.status import examine

    artifacts = [selection.artifact for selection in selections]
    if repair:
        make_room(lab)
        return _transferred(lab, repair_selected(lab, selections), artifacts)
    stands = [examine(lab, artifact, rehash=True, with_mirror=False) for artifact in artifacts]
    errors = tuple(error for stand in stands for error in stand.errors)
    return _report(lab, tuple(stand.report for stand in stands), errors, Transferred())


def log(lab: Lab, artifacts: Sequence[Artifact]) -> Outcome:
    """List the snapshots of the artifacts that the mirror has."""
    from labsync.steps.inspect import history

    return _each_mirrored(lab, artifacts, lambda artifact: history(lab, artifact))


def path(lab: Lab, artifacts: Sequence[Artifact]) -> Outcome:
    """Say where the artifacts are on the disk, whether they are there yet or not."""
    return _each(lab, artifacts, lambda artifact: [Location(artifact.name, str(lab.home(artifact).path))])


def url(lab: Lab, artifacts: Sequence[Artifact]) -> Outcome:
    """Say where the artifacts are in the mirror."""
    from labsync.steps.inspect import mirror_url

    return _each_mirrored(lab, artifacts, lambda artifact: [mirror_url(lab, artifact)])


def du(lab: Lab, artifacts: Sequence[Artifact]) -> Outcome:
    """Say what takes how much of the disk."""
    from labsync.steps.inspect import usage

    lines, errors = usage(lab, artifacts)
    return finish(errors, items=lines)


def doctor(lab: Lab) -> Outcome:
    """Check everything that labsync stands on, without changing anything of the user's."""
    from labsync.steps import doctor as checks

    found, code = checks.examine(lab)
    return Outcome(Report(exit_code=code, mirror_requests=requests_of(lab)), tuple(found))


def smoke(lab: Lab, artifacts: Sequence[Artifact], options: SmokeOptions) -> Outcome:
    """Run each model once and judge what comes out; builds the environment where it is missing."""
    from labsync.steps.one_at_a_time import prove_in_turn
    from labsync.steps.prove import chosen_models, prove_models

    models = chosen_models(lab, artifacts, options)
    if not models:
        return finish(())
    errors: list[ErrorReport] = []
    environment = _environment(lab, errors)
    in_turn = options.one_at_a_time and not lab.options.dry_run
    proven = (prove_in_turn if in_turn else prove_models)(lab, models, environment, options)
    errors += proven.errors
    report = Report(
        exit_code=exit_code_of(errors), environment=environment, smoke=proven.results, errors=tuple(errors)
    )
    return Outcome(report, proven.actions)


def bootstrap(lab: Lab, options: SmokeOptions) -> Outcome:
    """Bring a fresh machine from the manifest to a proven lab; every stage's failures are kept."""
    from labsync.events import StageStarted
    from labsync.manifest.select import Selection
    from labsync.steps.fetched import make_room
    from labsync.steps.locking import gaps
    from labsync.steps.prove import prove_models
    from labsync.steps.pull import pull as pull_selected

    artifacts = lab.manifest.artifacts

    lab.observe(StageStarted("lock", lab.manifest.lock_path.name))
    locked = _ensure_lock(lab)
    errors = list(locked.report.errors)
    unlocked = gaps(lab)  # why is among the errors
    ready = [artifact for artifact in artifacts if artifact not in unlocked]

    lab.observe(StageStarted("pull", f"{len(ready)} artifacts"))
    make_room(lab)
    pulled = pull_selected(lab, [Selection(artifact) for artifact in ready])
    errors += pulled.errors
    if lab.options.dry_run:
        planned = (*locked.items, *actions(pulled.plans))
        return finish(errors, items=planned, requests=requests_of(lab))

    if lab.manifest.environment:
        lab.observe(StageStarted("environment", lab.manifest.environment.name))
    environment = _environment(lab, errors, locks=True)
    kernel_built = _kernel(lab, environment, errors) if environment else None

    lab.observe(StageStarted("smoke", "every model runs once"))
    proven = prove_models(lab, [a for a in artifacts if a.smoke is not None], environment, options)
    errors += proven.errors

    outcome = _report(lab, _stands(lab, artifacts, pulled.unchanged), errors, pulled.transferred)
    report = replace(outcome.report, environment=environment, kernel=kernel_built, smoke=proven.results)
    return Outcome(report)


def _ensure_lock(lab: Lab) -> Outcome:
    """Fill what the lock lacks or could not resolve; what is stale is the user's to update."""
    from labsync.events import Note
    from labsync.steps.locking import gaps

    missing = gaps(lab)
    if lab.lock is not None and not missing:
        return Outcome(Report())
    why = f"{len(missing)} artifacts are not resolved yet" if lab.lock else "no lock yet"
    lab.observe(Note(f"{why}: writing {lab.manifest.lock_path.name}"))
    return lock(lab, missing, LockOptions(fill=True))


def _environment(lab: Lab, errors: list[ErrorReport], *, locks: bool = False) -> Built | None:
    """Build the environment that the manifest asks for; one that cannot be built is `failed`."""
    from labsync.steps.env_lock import ensure_environment_lock
    from labsync.steps.environment import built_environment, failed_environment

    if lab.manifest.environment is None:
        return None
    try:
        if locks:
            ensure_environment_lock(lab)
        return built_environment(lab)
    except LabsyncError as error:
        if not error.artifact or error.artifact not in {known.artifact for known in errors}:
            errors.append(ErrorReport.of(error))  # else a library could not be brought, which was said
        return failed_environment(lab)


def _kernel(lab: Lab, environment: Built, errors: list[ErrorReport]) -> Built | None:
    from labsync.events import StageStarted
    from labsync.steps.environment import proven_kernel

    if environment.state == "failed":
        return None
    lab.observe(StageStarted("kernel", environment.name))
    try:
        return proven_kernel(lab, environment)
    except LabsyncError as error:
        errors.append(ErrorReport.of(error))
        return replace(environment, state="failed")


def _transferred(lab: Lab, pulled: Pulled, artifacts: Sequence[Artifact]) -> Outcome:
    if lab.options.dry_run:
        return finish(pulled.errors, items=actions(pulled.plans), requests=requests_of(lab))
    return _report(lab, _stands(lab, artifacts, pulled.unchanged), pulled.errors, pulled.transferred)


def _stands(
    lab: Lab, artifacts: Sequence[Artifact], unchanged: Collection[ArtifactName]
) -> tuple[ArtifactReport, ...]:
    """Return how the artifacts stand after a command, which has found some `unchanged` just now."""
    from labsync.steps.status import examine

    return tuple(examine(lab, a, unchanged=a.name in unchanged).report for a in artifacts)


def _report(
    lab: Lab,
    artifacts: tuple[ArtifactReport, ...],
    errors: Sequence[ErrorReport],
    transferred: Transferred,
    skipped: Sequence[Skipped] = (),
) -> Outcome:
    """Return the outcome of a command that moved things, with how every artifact stands after it."""
    return Outcome(
        Report(
            exit_code=exit_code_of(errors),
            artifacts=artifacts,
            transferred=transferred,
            mirror_requests=requests_of(lab),
            skipped=tuple(skipped),
            errors=tuple(errors),
        )
    )


def _each(lab: Lab, artifacts: Sequence[Artifact], look: Callable[[Artifact], Sequence[Item]]) -> Outcome:
    """Return what a look at each artifact finds; where one cannot be looked at, the others still are."""
    items: list[Item] = []
    errors: list[ErrorReport] = []
    for artifact in artifacts:
        try:
            items += look(artifact)
        except LabsyncError as error:
            errors.append(ErrorReport.of(error, artifact.name))
    return finish(errors, items=items, requests=requests_of(lab))


def _each_mirrored(
    lab: Lab, artifacts: Sequence[Artifact], look: Callable[[Artifact], Sequence[Item]]
) -> Outcome:
    """Return what a look at each artifact in the mirror finds; one error when it cannot be asked at all."""
    _ = lab.mirror  # raises under `--offline`
    if unreached := lab.reach_mirror():
        return finish(unreached, requests=requests_of(lab))
    return _each(lab, artifacts, look)


def requests_of(lab: Lab) -> MirrorRequests:
    """Return how many requests the mirror got from this command."""
    return lab.mirror.requests() if lab.requests_made else MirrorRequests()
