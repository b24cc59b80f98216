"""Prove the models: one probe process each, in the environment they will be used in."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.errors import LabsyncError, NotFoundError, RefusedError, SmokeFailedError, UsageError
from labsync.events import Note
from labsync.report import ErrorReport, SmokeResult
from labsync.smoke.checks import RUNNABLE, SmokePlan, not_run, plan_smoke, trust_problem
from labsync.smoke.run import UNSAFE, Subject, smoke_one
from labsync.steps.outcome import Action
from labsync.steps.pictures import keep_picture
from labsync.steps.status import examine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labsync.manifest.model import Artifact, SmokeSpec
    from labsync.report import Built, DiskState
    from labsync.steps.lab import Lab

GPU_SIGNS = ("/proc/driver/nvidia/version", "/dev/nvidiactl")
PENDING = b"pending"
_NO_ENVIRONMENT = SmokePlan("skipped", reason="the environment failed")
_DEVICE = re.compile(r"cpu|cuda(:[0-9]+)?")


@dataclass(frozen=True, slots=True)
class SmokeOptions:
    """Where models run: `device` as typed, empty for the manifest's own; `pending` only what waits.

    `selectors` are those that were typed: who asks for a model is told when it cannot be run.
    `one_at_a_time` brings each model to the disk when its turn comes.
    UsageError (2) for what does not fit together.
    """

    device: str = ""
    require_gpu: bool = False
    pending: bool = False
    selectors: tuple[str, ...] = ()
    one_at_a_time: bool = False

    def __post_init__(self) -> None:
        if self.device and not _DEVICE.fullmatch(self.device):
            raise UsageError(
                f"there is no device `{self.device}`", hint="`--device` takes cpu, cuda or cuda:N"
            )
        if self.require_gpu and self.device == "cpu":
            raise UsageError(
                "`--require-gpu` and `--device cpu` exclude each other", hint="leave one of them out"
            )


@dataclass(frozen=True, slots=True)
class Proven:
    """Each model's result and an error for each that failed; in a dry run what would be done instead."""

    results: tuple[SmokeResult, ...] = ()
    errors: tuple[ErrorReport, ...] = ()
    actions: tuple[Action, ...] = ()


def has_gpu() -> bool:
    """Say whether this session has an NVIDIA driver; on Studio Lab only GPU sessions have one."""
    return any(Path(sign).exists() for sign in GPU_SIGNS)


def pending_models(lab: Lab) -> tuple[str, ...]:
    """Return the models that wait for a GPU session; only the state is asked."""
    return tuple(
        artifact.name
        for artifact in lab.manifest.artifacts
        if artifact.smoke is not None and lab.state.get("smoke", artifact.name) == PENDING
    )


def chosen_models(lab: Lab, artifacts: Sequence[Artifact], options: SmokeOptions) -> list[Artifact]:
    """Return those of the artifacts that are to be proven.

    Raises UsageError (2) when one that was selected by its name, or all that were selected, have no
    smoke test.
    """
    models = [artifact for artifact in artifacts if artifact.smoke is not None]
    named = [a for a in artifacts if a.smoke is None and {a.name, a.short_name} & set(options.selectors)]
    if named or (options.selectors and not models):
        name = named[0].name if named else options.selectors[0]
        raise UsageError(
            f"`{name}` has no smoke test in the manifest", hint="write `smoke: {task: …}` under it"
        )
    if options.pending:
        models = [a for a in models if lab.state.get("smoke", a.name) in (None, PENDING)]
    if not models:
        lab.observe(Note("no model is pending" if options.pending else "the manifest has no smoke test"))
    return models


def prove_models(
    lab: Lab, models: Sequence[Artifact], environment: Built | None, options: SmokeOptions
) -> Proven:
    """Run each model once, as far as it can be run here; what came of it is remembered.

    Without an environment in the manifest (None) the Python that runs labsync is used; in one that
    `failed` nothing can be proven.
    """
    failed = environment is not None and environment.state == "failed"
    python = Path(environment.prefix) / "bin" / "python" if environment else Path(sys.executable)
    results: list[SmokeResult] = []
    errors: list[ErrorReport] = []
    actions: list[Action] = []
    _warn_of_unsafe(lab)
    for artifact in models:
        assert artifact.smoke is not None
        plan = _NO_ENVIRONMENT if failed else _plan(lab, artifact, artifact.smoke, options)
        if lab.options.dry_run:
            actions.append(_action(artifact, artifact.smoke, plan))
            continue
        result = _prove(lab, artifact, artifact.smoke, plan, python)
        _remember(lab, plan, result)
        results.append(result)
        if result.result == "fail":
            errors.append(_failure(result))
        elif result.result == "skipped" and options.selectors and not failed:
            errors.append(_not_whole(result))
    _tell_pending(lab, results)
    return Proven(tuple(results), tuple(errors), tuple(actions))


def _warn_of_unsafe(lab: Lab) -> None:
    if lab.options.env.get(UNSAFE):
        what = f"`{UNSAFE}` is set: `torch.load` runs whatever code a checkpoint holds"
        lab.observe(Note(f"{what}, in your own programs too; the smoke test runs without it", "warning"))


def runs_here(lab: Lab, artifact: Artifact, options: SmokeOptions) -> bool:
    """Say whether the model would be run in this session if it were on the disk."""
    return _planned(lab, artifact.smoke, "ok", options).decision == "run"


def _plan(lab: Lab, artifact: Artifact, spec: SmokeSpec, options: SmokeOptions) -> SmokePlan:
    stands = examine(lab, artifact, with_mirror=False).report
    nothing_made = artifact.is_made and not stands.files
    return _planned(lab, spec, "missing" if nothing_made else stands.disk, options)


def _planned(lab: Lab, spec: SmokeSpec | None, disk: DiskState, options: SmokeOptions) -> SmokePlan:
    return plan_smoke(
        spec,
        disk,
        has_gpu=has_gpu(),
        device_option=options.device,
        manifest_device=lab.manifest.device,
        require_gpu=options.require_gpu,
    )


def _action(artifact: Artifact, spec: SmokeSpec, plan: SmokePlan) -> Action:
    what = (
        f"run {spec.task} on {plan.device}" if plan.decision == "run" else f"{plan.decision}: {plan.reason}"
    )
    return Action(artifact.name, "", "disk", (), 0, what)


def _prove(lab: Lab, artifact: Artifact, spec: SmokeSpec, plan: SmokePlan, python: Path) -> SmokeResult:
    if plan.decision != "run":
        return not_run(artifact.name, spec.task, plan)
    try:
        subject = replace(_subject(lab, artifact, spec), fallbacks=_fallbacks(lab, spec))
        lab.observe(Note(f"{artifact.name}: running {spec.task} on {plan.device}"))
        proof = smoke_one(subject, plan, python, lab.options.env)
    except LabsyncError as error:
        return SmokeResult(artifact.name, spec.task, "fail", error.what, hint=error.hint)
    keep_picture(lab, artifact.name, proof.picture)
    return proof.result


def _subject(lab: Lab, artifact: Artifact, spec: SmokeSpec) -> Subject:
    """Return what is to be run; raises RefusedError for code that came with a model and is not trusted."""
    revision = "" if artifact.is_made else lab.locked(artifact).revision
    is_hub = artifact.origin.startswith("hf://")
    if problem := trust_problem(spec, revision if is_hub else ""):
        raise RefusedError(
            problem, hint="read the code at the locked commit, then write that commit to `trust_remote_code:`"
        )
    if artifact.path:
        return Subject(artifact.name, spec, str(_model_path(lab, artifact)), lab.manifest.root)
    return Subject(artifact.name, spec, artifact.origin.removeprefix("hf://"), lab.manifest.root, revision)


def _fallbacks(lab: Lab, spec: SmokeSpec) -> tuple[Subject, ...]:
    """Return the smaller models that are whole on the disk; they get the same task and inputs."""
    subjects = []
    for name in spec.fallback:
        artifact = lab.manifest.by_name[name]
        stands = examine(lab, artifact, with_mirror=False).report
        if stands.disk in RUNNABLE and stands.files:
            own = artifact.smoke.trust_remote_code if artifact.smoke else ""
            subjects.append(_subject(lab, artifact, replace(spec, trust_remote_code=own)))
    return tuple(subjects)


def _remember(lab: Lab, plan: SmokePlan, result: SmokeResult) -> None:
    """Keep what a run showed; a model that was not run still waits, or is what it was before."""
    if plan.decision == "run":
        lab.state.put("smoke", result.name, result.result.encode())
    elif plan.decision != "skipped":
        lab.state.put("smoke", result.name, PENDING)


def _tell_pending(lab: Lab, results: Sequence[SmokeResult]) -> None:
    if pending := sum(result.result == "pending" for result in results):
        who = "1 model waits" if pending == 1 else f"{pending} models wait"
        lab.observe(Note(f"{who} for a GPU session: run `labsync smoke --pending` there", "warning"))


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
            hint=f"{result.hint}\n`labsync smoke {result.name}` runs it again",
            artifact=result.name,
        )
    )


def _not_whole(result: SmokeResult) -> ErrorReport:
    return ErrorReport.of(
        NotFoundError(
            f"`{result.name}` was not run: {result.reason}",
            hint=f"`labsync pull {result.name}`",
            artifact=result.name,
        )
    )
