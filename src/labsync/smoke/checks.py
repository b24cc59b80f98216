"""Decide about smoke tests: whether one can run, and what its outcome means. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from labsync.report import SmokeResult
from labsync.smoke.request import ANY

if TYPE_CHECKING:
    from labsync.manifest.model import SmokeSpec
    from labsync.report import DiskState
    from labsync.smoke.request import Observation

Decision = Literal["run", "pending", "skipped", "fail"]

_RUNNABLE = frozenset({"ok", "modified", "ahead", "behind", "conflict", "extra"})
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
    if disk not in _RUNNABLE:
        return SmokePlan("skipped", reason=f"it is not whole on the disk (`{disk}`)")
    named = device_option or ("" if require_gpu else spec.device or manifest_device)
    wanted = "cuda" if named in {"", "auto"} else named
    if wanted == "cpu" or has_gpu:
        return SmokePlan("run", device=wanted)
    if require_gpu:
        return SmokePlan("fail", reason=f"{_NO_GPU}, and `--require-gpu` was given")
    return SmokePlan("pending", reason=f"{_NO_GPU}; `labsync smoke --pending` on a GPU session finishes it")


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


def judge(name: str, task: str, device: str, outcome: Outcome) -> SmokeResult:
    """Return the result of one model's smoke test; `pass` says what the model answered."""
    reason = _process_problem(outcome)
    seen = outcome.observation
    if not reason and seen is not None:
        reason = seen.problem if seen.problem or task == "python" else _model_problem(task, seen)
    if seen is None:
        return SmokeResult(name, task, "fail", reason, outcome.limit if outcome.timed_out else 0.0, device)
    used = seen.device or device
    return SmokeResult(
        name,
        task,
        "fail" if reason else "pass",
        reason or seen.text,
        round(seen.load_seconds + seen.run_seconds, 3),
        used,
        seen.vram_bytes if used.startswith("cuda") else seen.ram_bytes,
    )


def _process_problem(outcome: Outcome) -> str:
    if outcome.timed_out:
        return f"it did not finish within {outcome.limit:g} s"
    if outcome.returncode == -signal.SIGKILL:
        return "it was killed by SIGKILL, most likely because memory ran out"
    if outcome.returncode < 0:
        return f"it crashed with {_signal_name(-outcome.returncode)}"
    last = outcome.error_text.strip().splitlines()[-1:]
    tail = f": {last[0][:300]}" if last else ""
    if outcome.observation is None:
        return f"the probe ended with exit code {outcome.returncode} and no result{tail}"
    if outcome.returncode and not outcome.observation.problem:
        return f"it ended with exit code {outcome.returncode} after its result{tail}"
    return ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _model_problem(task: str, seen: Observation) -> str:
    return _tensor_problem(task, seen) or _output_problem(seen)


def _tensor_problem(task: str, seen: Observation) -> str:
    if seen.missing:
        head = all(name.startswith("classifier.") for name in seen.missing)
        why = (
            "a base model that has not been fine-tuned has no classes"
            if head
            else "the checkpoint is not whole"
        )
        return f"{_named(seen.missing)} missing and filled with random numbers: {why}"
    if seen.mismatched:
        return f"{_named(seen.mismatched)} of another shape than the model's: {_FOREIGN}"
    if seen.unexpected and task not in _BODY_TASKS:
        return f"{_named(seen.unexpected)} without a place in the model: {_FOREIGN}"
    if seen.nonfinite:
        return f"{_named(seen.nonfinite)} not finite (NaN or infinity): the weights are damaged"
    return ""


def _output_problem(seen: Observation) -> str:
    if not fits(seen.shape, seen.expected):
        wanted = "x".join("any" if size == ANY else str(size) for size in seen.expected)
        return f"the output has the shape {'x'.join(map(str, seen.shape))} where {wanted} was expected"
    if not seen.finite:
        return "the output holds NaN or infinity"
    if seen.maximum - seen.minimum <= _SAME * max(abs(seen.maximum), abs(seen.minimum)):
        return f"the output is constant ({seen.maximum:g} everywhere): the model computes nothing"
    if seen.difference <= _SAME * (seen.maximum - seen.minimum):
        return "the output is the same for two different inputs: the model ignores what it is shown"
    return ""


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
