"""The path of the environment alone: spec, lock, build, kernel; back again; to the mirror and from it.

Each function takes an opened `Lab`, changes what its name says, and returns an `Outcome`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from labsync.report import Report
from labsync.steps.outcome import Outcome, actions, finish
from labsync.workflow import requests_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labsync.report import Built
    from labsync.steps.lab import Lab


def lock(lab: Lab, *, check: bool) -> Outcome:
    """Resolve the environment's spec to exact packages with digests."""
    from labsync.steps.env_lock import lock_environment

    line, errors = lock_environment(lab, check=check)
    return finish(errors, items=[line])


def build(lab: Lab) -> Outcome:
    """Build the environment, or find that it is built already; a registered kernel follows it."""
    from labsync.steps.environment import built_environment

    return _with_kernel(lab, built_environment(lab))


def add(lab: Lab, requirements: Sequence[str], *, pip: bool) -> Outcome:
    """Ask for packages in the spec, lock them, build and switch; everything else stays as it was."""
    from labsync.steps.env_lock import add_packages, kept_on_failure

    with kept_on_failure(lab):
        add_packages(lab, requirements, pip=pip)
        return finish(()) if lab.options.dry_run else build(lab)


def remove(lab: Lab, names: Sequence[str]) -> Outcome:
    """Take packages out of the spec, lock what is left, build and switch."""
    from labsync.steps.env_lock import kept_on_failure, remove_packages

    with kept_on_failure(lab):
        remove_packages(lab, names)
        return finish(()) if lab.options.dry_run else build(lab)


def rollback(lab: Lab) -> Outcome:
    """Make the environment's previous version current again; a registered kernel follows it."""
    from labsync.steps.environment import rolled_back

    return _with_kernel(lab, rolled_back(lab))


def archive(lab: Lab) -> Outcome:
    """Bring the environment's packages to the mirror, so that a new box needs no channel."""
    from labsync.steps.env_archive import archived

    done = archived(lab)
    return finish((), items=actions(done.plans), requests=requests_of(lab), transferred=done.transferred)


def restore(lab: Lab) -> Outcome:
    """Build the environment from the mirror alone; a registered kernel follows it."""
    from labsync.steps.environment import restored_environment

    environment, moved = restored_environment(lab)
    outcome = _with_kernel(lab, environment)
    return replace(outcome, report=replace(outcome.report, transferred=moved))


def _with_kernel(lab: Lab, environment: Built) -> Outcome:
    from labsync.steps.environment import renewed_kernel

    report = Report(environment=environment, kernel=renewed_kernel(lab, environment))
    return Outcome(replace(report, mirror_requests=requests_of(lab)))


def kernel(lab: Lab) -> Outcome:
    """Register the environment's Jupyter kernel and prove it by starting it."""
    from labsync.steps.environment import built_environment, proven_kernel

    environment = built_environment(lab)
    return Outcome(Report(environment=environment, kernel=proven_kernel(lab, environment)))
