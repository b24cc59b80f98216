"""The path of a working day: `up` in the morning, then the guard until the session ends.

Each function changes what its name says and returns an `Outcome`, as those of `workflow` do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from labsync import workflow
from labsync.errors import LabsyncError
from labsync.events import Note
from labsync.manifest.select import Selection
from labsync.report import ErrorReport, Report, exit_code_of
from labsync.steps.guard_control import cron_line, start_guard, stop_guard
from labsync.steps.guard_process import run_guard
from labsync.steps.outcome import Location, Outcome
from labsync.steps.session_status import guard_status, last_session, session_status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from labsync.report import Built
    from labsync.settings import Options
    from labsync.steps.guard_process import GuardOptions
    from labsync.steps.lab import Lab


def up(lab: Lab, options: GuardOptions, argv: Sequence[str]) -> Outcome:
    """Bring a box that was set up before to work again: pull, environment, kernel, guard, status.

    A failure of one keeps none of the others from its turn. With nothing to do it takes a moment.
    """
    pulled = workflow.pull(lab, [Selection(artifact) for artifact in lab.manifest.artifacts])
    errors = list(pulled.report.errors)
    environment = kernel = None
    try:
        environment = _environment(lab)
        kernel = _kernel(lab, environment)
    except LabsyncError as error:
        errors.append(ErrorReport.of(error))
    try:
        if not lab.options.dry_run and any(artifact.is_made for artifact in lab.manifest.artifacts):
            start_guard(lab, options, argv, lambda text: lab.observe(Note(text)))
    except LabsyncError as error:
        errors.append(ErrorReport.of(error))
    stood = workflow.status(lab, lab.manifest.artifacts)
    errors += [error for error in stood.report.errors if error not in errors]
    report = replace(
        stood.report,
        exit_code=exit_code_of(errors) or stood.report.exit_code,
        transferred=pulled.report.transferred,
        environment=environment,
        kernel=kernel,
        errors=tuple(errors),
    )
    return Outcome(report, (*pulled.items, *stood.items))


def _environment(lab: Lab) -> Built | None:
    if lab.manifest.environment is None:
        return None
    from labsync.steps.environment import built_environment

    return built_environment(lab)


def _kernel(lab: Lab, environment: Built | None) -> Built | None:
    """Prove the kernel, unless it is as it was proven: starting one takes seconds."""
    if environment is None:
        return None
    from labsync.steps.environment import kernel_finding, proven_kernel

    found = kernel_finding(lab, environment)
    return found if found.state == "ok" else proven_kernel(lab, environment)


def run(lab: Lab, reopen: Callable[[Options], Lab], options: GuardOptions) -> Outcome:
    """Guard the lab until the session ends; the report's exit code says how it ended."""
    code = run_guard(lab, reopen, options, lambda text: lab.observe(Note(text)))
    return Outcome(Report(exit_code=int(code)))


def start(lab: Lab, options: GuardOptions, argv: Sequence[str]) -> Outcome:
    """Start the guard as a process of its own; one that runs already is fine."""
    start_guard(lab, options, argv, lambda text: lab.observe(Note(text)))
    return Outcome(Report(), (session_status(lab), guard_status(lab)))


def show(lab: Lab) -> Outcome:
    """Say how the guard and the session stand; the mirror is not asked."""
    last = last_session(lab)
    return Outcome(Report(), (session_status(lab), guard_status(lab), *([last] if last else ())))


def stop(lab: Lab) -> Outcome:
    """Let the guard push once more, and end."""
    stop_guard(lab, lambda text: lab.observe(Note(text)))
    return Outcome(Report(), (guard_status(lab),))


def cron(lab: Lab) -> Outcome:
    """Say which crontab line keeps the guard running on a box that has cron."""
    return Outcome(Report(), (Location("", cron_line(lab)),))
