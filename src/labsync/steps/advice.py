"""What a tired person needs first: what would be lost if the box died now, and the next command."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from labsync.names import ArtifactName
from labsync.steps.outcome import Advice

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from labsync.manifest.model import Artifact
    from labsync.places import Inventory
    from labsync.report import ArtifactReport
    from labsync.snapshot import FileEntry
    from labsync.steps.lab import Lab
    from labsync.steps.outcome import GuardStatus, SessionStatus
    from labsync.steps.status import Stand


def advise(lab: Lab, stands: Sequence[Stand]) -> Advice:
    """Return the advice for artifacts that stand so.

    While the mirror lies in the manifest's own folder nothing that was made here is safe.
    """
    files = size = 0
    names, unknown = [], []
    made = {artifact.name for artifact in lab.manifest.artifacts if artifact.is_made}
    for stand in stands:
        if stand.report.name not in made:
            continue
        if stand.report.disk == "failed":
            unknown.append(stand.report.name)
            continue
        count, bytes_ = _at_risk(lab, stand)
        files, size = files + count, size + bytes_
        names += [stand.report.name] if count else []
    return Advice(
        files,
        size,
        tuple(names),
        next_command([stand.report for stand in stands], names, made) or _proof_command(lab),
        tuple(unknown),
        lab.mirror_is_embedded and bool(made),
    )


def _at_risk(lab: Lab, stand: Stand) -> tuple[int, int]:
    """Return how many files and bytes would be lost."""
    if lab.mirror_is_embedded:
        return stand.report.files, stand.report.bytes
    if stand.inventory is None:
        return 0, 0
    fresh = _unpushed(lab, lab.manifest.by_name[ArtifactName(stand.report.name)], stand.inventory)
    return len(fresh), sum(entry.size for entry in fresh)


def _unpushed(lab: Lab, artifact: Artifact, inventory: Inventory) -> list[FileEntry]:
    found = inventory.files.values()
    if lab.has_mirror:
        stored = _stored(lab, artifact)
        return [f.entry for f in found if f.entry.sha256 not in stored]
    known = set(lab.base(artifact) or ())
    # An older checkpoint was pushed when labsync has a record of it.
    settled = ("recorded",) if artifact.kind == "checkpoints" else ()
    return [f.entry for f in found if f.entry not in known and f.state not in settled]


def _stored(lab: Lab, artifact: Artifact) -> set[str]:
    """Return the contents that the mirror has, losers of conflicts and older checkpoints too."""
    if artifact.kind == "checkpoints":
        indexes = (index for _, index in lab.view.history(artifact.name))
    else:
        heads = (lab.view.head(name) for name in lab.view.names(artifact.name))
        indexes = (lab.view.index(head.index) for head in heads if head is not None)
    return {located.entry.sha256 for index in indexes for located in index.files}


def _proof_command(lab: Lab) -> str:
    """Return what is left to prove once everything is in its place."""
    if lab.manifest.environment is not None:
        from labsync.steps.environment import environment_is_missing

        if environment_is_missing(lab):
            return "labsync env build"
    if any(artifact.smoke is not None for artifact in lab.manifest.artifacts):
        from labsync.steps.prove import has_gpu, pending_models

        if not pending_models(lab):
            return ""
        return "labsync smoke --pending" + ("" if has_gpu() else " (on a GPU session)")
    return ""


def with_guard(advice: Advice, session: SessionStatus, guard: GuardStatus) -> Advice:
    """Advise to start the guard, where nothing is more urgent and the session may end before it is seen.

    Where it runs, what is new is its business; what it has looked at and left may be the person's.
    """
    is_busy = guard.state == "running" and (guard.pushed_age is None or not guard.waiting_files)
    if is_busy and advice.next_command.startswith("labsync push "):
        return replace(advice, next_command="")
    is_wanted = session.seconds_left is not None or guard.state == "died"
    if advice.next_command or advice.embedded or guard.state == "running" or not is_wanted:
        return advice
    return replace(advice, next_command="labsync guard start")


def next_command(
    reports: Sequence[ArtifactReport], at_risk: Sequence[str], made: Collection[str] = frozenset()
) -> str:
    """Return the one command to type next, empty when everything is as it should be.

    `at_risk` names what would be lost, `made` all that is made here. A conflict has two commands,
    between which a person chooses.
    """
    by_state: dict[str, list[str]] = {}
    for report in reports:
        by_state.setdefault(report.disk, []).append(report.name)
    if any(report.disk == "failed" and "labsync lock" in report.reason for report in reports):
        return "labsync lock"
    if conflicts := by_state.get("conflict"):
        name = conflicts[0]
        return (
            f"labsync pull {name} --force (theirs; yours is set aside) or labsync push {name} --force (yours)"
        )
    if ahead := [name for name in by_state.get("ahead", ()) if name in at_risk]:
        return f"labsync push {' '.join(ahead)}"
    if any("damaged" in report.reason for report in reports):
        return "labsync verify --repair"
    if wanting := [r.name for r in reports if r.disk in ("missing", "behind", "incomplete")]:
        return "labsync pull" if len(wanting) > 3 else f"labsync pull {' '.join(wanting)}"
    lacking = [r.name for r in reports if r.mirror == "missing" and r.name not in made and r.disk != "failed"]
    return f"labsync mirror {' '.join(lacking[:3])}" if lacking else ""
