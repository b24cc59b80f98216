"""Decide about smoke tests: whether one can run, and what its outcome means. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from labsync.report import Share, SmokeResult
from labsync.smoke.ladder import ran_out
from labsync.smoke.request import ANY
from labsync.smoke.troubles import Finding, cure_of

if TYPE_CHECKING:
    from labsync.manifest.model import SmokeSpec
    from labsync.report import DiskState
    from labsync.smoke.ladder import Climb
    from labsync.smoke.request import Observation

Decision = Literal["run", "pending", "skipped", "fail"]

# How an artifact may stand on the disk to be run.
RUNNABLE = frozenset({"ok", "modified", "ahead", "behind", "conflict", "extra"})
_NO_GPU = "no GPU in this session"
# These take a model's body alone, so a head that stays behind in the checkpoint is as it should be.
_BODY_TASKS = frozenset({"image-feature-extraction", "feature-extraction"})
_SAME = 1e-6  # of the output's range: below it two outputs are the same
_NAMED = 3  # tensors that a reason names
_FOREIGN = "config and weights do not belong together"


@dataclass(frozen=True, slots=True)
class SmokePlan:
    """What is to be done about one model's smoke test; `device` where it runs, `reason` where not."""

    decision: Decision
    device: str = ""
    reason: str = ""
    trouble: str = ""


def plan_smoke(
    spec: SmokeSpec | None,
    disk: DiskState,
    *,
    has_gpu: bool,
    device_option: str = "",
    manifest_device: str = "",
    require_gpu: bool = False,
) -> SmokePlan:
    """Decide whether a model's smoke test runs here and now, and on which device.

    The device is the option's, else the spec's, else the manifest's; without any, or with
    `auto`, it is the GPU, and `pending` where there is none. `require_gpu` outranks the manifest and
    turns `pending` into `fail`; a device option that names the CPU excludes it.
    """
    if spec is None:
        return SmokePlan("skipped", reason="the manifest names no smoke test for it")
    if disk not in RUNNABLE:
        return SmokePlan("skipped", reason=f"it is not whole on the disk (`{disk}`)")
    named = device_option or ("" if require_gpu else spec.device or manifest_device)
    wanted = "cuda" if named in {"", "auto"} else named
    if wanted == "cpu" or has_gpu:
        return SmokePlan("run", device=wanted)
    if require_gpu:
        return SmokePlan("fail", reason=f"{_NO_GPU}, and `--require-gpu` was given", trouble="gpu")
    return SmokePlan("pending", reason=_NO_GPU, trouble="gpu")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a probe's process ended; `observation` is None where it left no answer to read.

    A negative `returncode` is the signal that ended it; `limit` is the time it had, in seconds.
    """

    returncode: int
    observation: Observation | None
    timed_out: bool = False
    limit: float = 0.0
    error_text: str = ""


def judge(name: str, task: str, device: str, climb: Climb) -> SmokeResult:
    """Return the result of one model's smoke test; `pass` says what the model answered.

    What runs only on a lower rung of the ladder is `degraded`, and its reason names the rung.
    """
    outcome, given_up = climb.outcome, climb.rung.gives_up
    finding, seen = _finding(task, outcome), outcome.observation
    result = _told(SmokeResult(name, task, "pass", device=device), seen)
    if outcome.timed_out:
        result = replace(result, seconds=outcome.limit)
    if finding is not None:
        why = f"{finding.cause}; before that {climb.history}" if climb.history else finding.cause
        cure = finding.cure or cure_of(finding.trouble, name)
        return replace(result, result="fail", reason=why, hint=cure, rung=given_up)
    if given_up:
        why = f"only with {given_up}, because {climb.history}: {result.reason}"
        return replace(result, result="degraded", reason=why, hint=cure_of("memory", name), rung=given_up)
    return result


def not_run(name: str, task: str, plan: SmokePlan) -> SmokeResult:
    """Return the result of a plan that does not run the model."""
    assert plan.decision != "run"
    hint = cure_of(plan.trouble, name) if plan.trouble else ""
    return SmokeResult(name, task, plan.decision, plan.reason, hint=hint)


def trust_problem(spec: SmokeSpec, revision: str) -> str:
    """Return why code that came with a model at `revision` may not run; empty when it may or is not to.

    It runs at the very commit that the manifest names, and at no other.
    """
    if not spec.trust_remote_code or spec.trust_remote_code == revision:
        return ""
    if not revision:
        return "`trust_remote_code` names a commit, and its origin has none: only `hf://` origins do"
    trusted = spec.trust_remote_code[:12]
    return f"the manifest trusts the code at {trusted} and the lock has {revision[:12]}; nothing was executed"


def _told(result: SmokeResult, seen: Observation | None) -> SmokeResult:
    if seen is None:
        return result
    used = seen.device or result.device
    return replace(
        result,
        reason=seen.text,
        seconds=round(seen.load_seconds + seen.run_seconds, 3),
        device=used,
        dtype=seen.dtype,
        peak_bytes=seen.vram_bytes if used.startswith("cuda") else seen.ram_bytes,
        ram_bytes=seen.ram_bytes,
        estimated_bytes=seen.estimated_bytes,
        best=tuple(Share(label, share) for label, share in zip(seen.labels, seen.shares, strict=False)),
        notes=seen.notes,
        device_name=seen.device_name,
        device_bytes=seen.device_bytes,
    )


def _finding(task: str, outcome: Outcome) -> Finding | None:
    if problem := _process_problem(outcome):
        return problem
    seen = outcome.observation
    assert seen is not None
    if seen.problem:
        return Finding(seen.trouble, seen.problem, seen.cure)
    return None if task == "python" else _tensor_problem(task, seen) or _output_problem(seen)


def _process_problem(outcome: Outcome) -> Finding | None:
    if outcome.timed_out:
        return Finding("time", f"it did not finish within {outcome.limit:g} s")
    if outcome.returncode == -signal.SIGKILL:
        return Finding("memory", "it was killed by SIGKILL, most likely because memory ran out")
    if outcome.returncode < 0 and ran_out(outcome):
        return Finding("memory", "memory ran out: compiled code could not get any more")
    if outcome.returncode < 0:
        return Finding("crash", f"it crashed with {_signal_name(-outcome.returncode)}")
    if outcome.observation is None:
        what = f"the probe ended with exit code {outcome.returncode} and no result"
        return Finding("ended", what + _last_words(outcome))
    if outcome.returncode and not outcome.observation.problem:
        what = f"it ended with exit code {outcome.returncode} after its result"
        return Finding("ended", what + _last_words(outcome))
    return None


def _last_words(outcome: Outcome) -> str:
    last = outcome.error_text.strip().splitlines()[-1:]
    said = "".join(char for char in last[0][:300] if char.isprintable()) if last else ""
    return f": {said}" if said else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _tensor_problem(task: str, seen: Observation) -> Finding | None:
    if seen.missing:
        head = all(name.startswith("classifier.") for name in seen.missing)
        why = (
            "a base model that has not been fine-tuned has no classes"
            if head
            else "the checkpoint is not whole"
        )
        cause = f"{_named(seen.missing)} missing and filled with random numbers: {why}"
        return Finding("missing", cause)
    if seen.mismatched:
        return Finding("foreign", f"{_named(seen.mismatched)} of another shape than the model's: {_FOREIGN}")
    if seen.unexpected and task not in _BODY_TASKS:
        return Finding("foreign", f"{_named(seen.unexpected)} without a place in the model: {_FOREIGN}")
    if seen.nonfinite:
        what = f"{_named(seen.nonfinite)} not finite (NaN or infinity): the weights are damaged"
        return Finding("weights", what)
    return None


def _output_problem(seen: Observation) -> Finding | None:
    if not fits(seen.shape, seen.expected):
        wanted = "x".join("any" if size == ANY else str(size) for size in seen.expected)
        what = f"the output has the shape {'x'.join(map(str, seen.shape))} where {wanted} was expected"
        return Finding("foreign", what)
    if not seen.finite:
        return Finding("output", "the output holds NaN or infinity")
    if seen.maximum - seen.minimum <= _SAME * max(abs(seen.maximum), abs(seen.minimum)):
        what = f"the output is constant ({seen.maximum:g} everywhere): the model computes nothing"
        return Finding("output", what)
    if seen.difference <= _SAME * (seen.maximum - seen.minimum):
        what = "the output is the same for two different inputs: the model ignores what it is shown"
        return Finding("output", what)
    return None


def fits(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Say whether an output has the expected shape; -1 in `expected` stands for any size above 0."""
    return len(shape) == len(expected) and all(
        size > 0 and wanted in (ANY, size) for size, wanted in zip(shape, expected, strict=True)
    )


def _named(tensors: tuple[str, ...]) -> str:
    """Return `2 tensors (a, b) are`, naming a few of them."""
    names = ", ".join(f"`{name}`" for name in tensors[:_NAMED])
    more = ", …" if len(tensors) > _NAMED else ""
    noun, verb = ("tensor", "is") if len(tensors) == 1 else ("tensors", "are")
    return f"{len(tensors)} {noun} ({names}{more}) {verb}"
