"""Prove more models than the disk can hold: pull one, prove it, make room for the next."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.artifact_locks import hold
from labsync.atomic import disk_errors
from labsync.disk.budget import Need, check_room, measure
from labsync.errors import DiskError, LabsyncError
from labsync.events import Note
from labsync.manifest.select import Selection
from labsync.report import ErrorReport
from labsync.steps.prove import Proven, prove_models, runs_here
from labsync.steps.pull import pull
from labsync.steps.room import used_by
from labsync.steps.status import examine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from labsync.manifest.model import Artifact
    from labsync.report import Built
    from labsync.steps.lab import Lab
    from labsync.steps.prove import SmokeOptions


def prove_in_turn(
    lab: Lab, models: Sequence[Artifact], environment: Built | None, options: SmokeOptions
) -> Proven:
    """Run each model once, each pulled when its turn comes.

    Where the disk cannot hold them all, a model that was not there before is removed again after its
    turn; `labsync pull` brings it back. What was on the disk before stays.
    """
    absent = [
        artifact for artifact in models if _is_absent(lab, artifact) and runs_here(lab, artifact, options)
    ]
    keep = not absent or _all_fit(lab, absent)
    if not keep:
        lab.observe(Note("not all models fit the disk: each is removed again after its turn"))
    proven = Proven()
    for artifact in models:
        errors = _pull(lab, artifact) if artifact in absent else ()
        one = prove_models(lab, [artifact], environment, options)
        # What could not be pulled was not proven, which its own error has said already.
        told = errors or one.errors
        proven = Proven(proven.results + one.results, proven.errors + told)
        if artifact in absent and not keep and not errors:
            remove(lab, artifact)
    return proven


def _pull(lab: Lab, artifact: Artifact) -> tuple[ErrorReport, ...]:
    try:
        return pull(lab, [Selection(artifact)]).errors
    except LabsyncError as error:  # such as that it does not fit even alone
        return (ErrorReport.of(error, artifact.name),)


def _is_absent(lab: Lab, artifact: Artifact) -> bool:
    """Say whether there is nothing at all of a sourced artifact, so that all of it will be labsync's."""
    try:
        return not artifact.is_made and not os.path.lexists(_place(lab, artifact))
    except LabsyncError:
        return False


def _place(lab: Lab, artifact: Artifact) -> Path:
    """Return what holds the artifact and nothing else: its path, or its repository in the cache."""
    home = lab.home(artifact).path
    return home if artifact.path else home.parents[1]


def _all_fit(lab: Lab, artifacts: Sequence[Artifact]) -> bool:
    needs, free, total = [], {}, {}
    for artifact in artifacts:
        device, device_free, device_total = measure(_place(lab, artifact))
        needs.append(Need(artifact.name, device, sum(entry.size for entry in lab.locked(artifact).snapshot)))
        free[device], total[device] = device_free, device_total
    try:
        check_room(needs, free, total, lab.manifest.disk, used_by(lab))
    except DiskError:
        return False
    return True


def remove(lab: Lab, artifact: Artifact) -> None:
    """Remove what this run brought, unless somebody has changed it or put something beside it since."""
    place = _place(lab, artifact)
    with hold(lab.manifest.state_dir, artifact.name, "disk"):
        stands = examine(lab, artifact, with_mirror=False).report.disk
        known = {entry.path for entry in lab.locked(artifact).snapshot}
        if stands != "ok" or (artifact.path and not known.issuperset(_names(place, artifact))):
            lab.observe(Note(f"{artifact.name} stays: it is not as it was pulled", "warning"))
            return
        with disk_errors(place):
            if place.is_dir():
                shutil.rmtree(place)
            else:
                place.unlink()
    lab.observe(Note(f"{artifact.name}: removed to make room; `labsync pull {artifact.name}` brings it back"))


def _names(place: Path, artifact: Artifact) -> Iterator[str]:
    if artifact.is_file:
        return
    for folder, _, names in os.walk(place):
        for name in names:
            yield Path(folder, name).relative_to(place).as_posix()
