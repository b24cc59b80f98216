"""Prove the models: one probe process each, in the environment they will be used in."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.errors import LabsyncError, SmokeFailedError
from labsync.events import Note
from labsync.report import ErrorReport, SmokeResult
from labsync.smoke.checks import plan_smoke
from labsync.smoke.run import Subject, smoke_one
from labsync.steps.status import examine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labsync.manifest.model import Artifact
    from labsync.report import Built
    from labsync.steps.lab import Lab

GPU_SIGNS = ("/proc/driver/nvidia/version", "/dev/nvidiactl")


@dataclass(frozen=True, slots=True)
class SmokeOptions:
    """Where models run: `device` as typed, empty for the manifest's own; `pending` only what waits."""

    device: str = ""
    require_gpu: bool = False
    pending: bool = False


def has_gpu() -> bool:
    """Say whether this session has an NVIDIA driver; on Studio Lab only GPU sessions have one."""
    return any(Path(sign).exists() for sign in GPU_SIGNS)


def prove_models(
    lab: Lab, artifacts: Sequence[Artifact], environment: Built | None, options: SmokeOptions
) -> tuple[list[SmokeResult], list[ErrorReport]]:
    """Return each model's result, and an error for each that failed; results are remembered."""
    python = Path(environment.prefix) / "bin" / "python" if environment else Path(sys.executable)
    results = [
        _prove(lab, artifact, python, options)
        for artifact in artifacts
        if artifact.smoke is not None and (not options.pending or _waits(lab, artifact))
    ]
    for result in results:
        lab.state.put("smoke", result.name, result.result.encode())
    pending = [result.name for result in results if result.result == "pending"]
    if pending:
        lab.observe(
            Note(
                f"{len(pending)} models wait for a GPU session: run `labsync smoke --pending` there",
                "warning",
            )
        )
    return results, [_failure(result) for result in results if result.result == "fail"]


def _waits(lab: Lab, artifact: Artifact) -> bool:
    return lab.state.get("smoke", artifact.name) in (None, b"pending")


def _prove(lab: Lab, artifact: Artifact, python: Path, options: SmokeOptions) -> SmokeResult:
    spec = artifact.smoke
    assert spec is not None
    plan = plan_smoke(
        spec,
        examine(lab, artifact).report.disk,
        has_gpu=has_gpu(),
        device_option=options.device,
        manifest_device=lab.manifest.device,
        require_gpu=options.require_gpu,
    )
    try:
        if artifact.path:
            subject = Subject(artifact.name, spec, str(_model_path(lab, artifact)), lab.manifest.root)
        else:
            model = artifact.origin.removeprefix("hf://")
            revision = lab.locked(artifact).revision
            subject = Subject(artifact.name, spec, model, lab.manifest.root, revision)
        if plan.decision == "run":
            lab.observe(Note(f"{artifact.name}: running {spec.task} on {plan.device}"))
        return smoke_one(subject, plan, python, lab.options.env)
    except LabsyncError as error:
        return SmokeResult(artifact.name, spec.task, "fail", error.what)


def _model_path(lab: Lab, artifact: Artifact) -> Path:
    """Return the model's folder or file; of made checkpoints the newest unit this disk knows."""
    home = lab.home(artifact).path
    base = lab.base(artifact) if artifact.is_made else None
    if base is not None and len(base) and "/" in base.entries[0].path:
        return home / base.entries[0].path.partition("/")[0]
    return home


def _failure(result: SmokeResult) -> ErrorReport:
    return ErrorReport.of(
        SmokeFailedError(
            f"`{result.name}` did not pass {result.task}: {result.reason}",
            safe="its files are verified and stay as they are",
            hint=f"`labsync smoke {result.name}` runs it again",
            artifact=result.name,
        )
    )
