"""What a tired person needs first: what would be lost if the box died now, and the next command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labsync.steps.outcome import Advice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labsync.manifest.model import Artifact
    from labsync.report import ArtifactReport
    from labsync.snapshot import FileEntry
    from labsync.steps.lab import Lab

AT_RISK = ("ahead", "conflict", "modified")


def advise(lab: Lab, reports: Sequence[ArtifactReport]) -> Advice:
    """Return the advice for these reports; looks at the disk only for what is not pushed."""
    files: list[FileEntry] = []
    names = []
    for report in reports:
        artifact = lab.manifest.by_name[report.name]
        if artifact.is_made and report.disk in AT_RISK:
            fresh = _unpushed(lab, artifact)
            files += fresh
            names += [report.name] if fresh else []
    return Advice(len(files), sum(entry.size for entry in files), tuple(names), next_command(reports, names))


def _unpushed(lab: Lab, artifact: Artifact) -> list[FileEntry]:
    found = lab.home(artifact).inventory(rehash=False).files
    if lab.has_mirror:
        stored = _stored(lab, artifact)
        return [f.entry for f in found.values() if f.entry.sha256 not in stored]
    known = set(lab.base(artifact) or ())
    # An older checkpoint was pushed when labsync has a record of it.
    settled = ("recorded",) if artifact.kind == "checkpoints" else ()
    return [f.entry for f in found.values() if f.entry not in known and f.state not in settled]


def _stored(lab: Lab, artifact: Artifact) -> set[str]:
    """Return the contents that the mirror has, losers of conflicts and older checkpoints too."""
    if artifact.kind != "checkpoints":
        return set(lab.view.contents(artifact.name))
    indexes = (index for _, index in lab.view.history(artifact.name))
    return {located.entry.sha256 for index in indexes for located in index.files}


def next_command(reports: Sequence[ArtifactReport], at_risk: Sequence[str]) -> str:
    """Return the one command to type next, empty when everything is as it should be."""
    states = {report.disk for report in reports}
    if any(report.disk == "failed" and "labsync lock" in report.reason for report in reports):
        return "labsync lock"
    if "conflict" in states:
        return f"labsync pull {next(r.name for r in reports if r.disk == 'conflict')}"
    if at_risk:
        return f"labsync push {' '.join(at_risk)}"
    if any("damaged" in report.reason for report in reports):
        return "labsync verify --repair"
    if states & {"missing", "behind", "incomplete"}:
        wanting = [r.name for r in reports if r.disk in ("missing", "behind", "incomplete")]
        return "labsync pull" if len(wanting) > 3 else f"labsync pull {' '.join(wanting)}"
    lacking = [report.name for report in reports if report.mirror == "missing"]
    return f"labsync mirror {' '.join(lacking[:3])}" if lacking else ""
