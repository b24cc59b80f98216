"""Run a model's probe in the target environment: a process of its own, with a limit, offline."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labsync import process
from labsync.report import SmokeResult
from labsync.smoke.checks import Outcome, judge
from labsync.smoke.request import Observation, ProbeRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labsync.manifest.model import SmokeSpec
    from labsync.smoke.checks import SmokePlan

DEFAULT_TIMEOUT = 300.0  # seconds
START = Path(__file__).with_name("probes") / "start.py"

_SET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
# The first two would mix another Python's packages in; the last makes `torch.load` run code.
_DROPPED = ("PYTHONPATH", "PYTHONHOME", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to be proven: `model` is an absolute path, or a hub id found in the cache at `revision`.

    `root` is the manifest's folder: inputs are relative to it, and `function` is imported from it.
    """

    name: str
    spec: SmokeSpec
    model: str
    root: Path
    revision: str = ""


def smoke_one(subject: Subject, plan: SmokePlan, python: Path, env: Mapping[str, str]) -> SmokeResult:
    """Return one model's result: the plan's own where it does not run, else what its probe showed.

    `python` is the target environment's interpreter, `env` the environment variables to start from.
    A failure of the model is a result, never an exception.
    """
    task = subject.spec.task
    if plan.decision != "run":
        return SmokeResult(subject.name, task, plan.decision, plan.reason)
    timeout = subject.spec.timeout or DEFAULT_TIMEOUT
    outcome = run_probe(request_of(subject, plan.device), python, timeout, env, subject.root)
    return judge(subject.name, task, plan.device, outcome)


def request_of(subject: Subject, device: str) -> ProbeRequest:
    """Return what the probe is asked, with the user's inputs as absolute paths."""
    spec, root = subject.spec, subject.root.absolute()
    inputs = spec.inputs
    return ProbeRequest(
        task=spec.task,
        model=subject.model,
        revision=subject.revision,
        device=device,
        dtype=spec.dtype,
        max_new_tokens=spec.max_new_tokens,
        max_pixels=spec.max_pixels,
        image=str(root / inputs.image) if inputs.image else "",
        points=inputs.points,
        video=str(root / inputs.video) if inputs.video else "",
        prompt=inputs.prompt,
        function=spec.function,
        folder=str(root),
        trust_remote_code=spec.trust_remote_code,
    )


def run_probe(
    request: ProbeRequest, python: Path, timeout: float, env: Mapping[str, str], cwd: Path | None = None
) -> Outcome:
    """Run a probe with the given interpreter and return how it ended; the limit is in seconds.

    Raises NotFoundError only when the interpreter does not exist.
    """
    with tempfile.TemporaryDirectory(prefix="labsync-smoke-") as folder:
        asked = Path(folder) / "request.json"
        asked.write_text(request.to_json(), encoding="utf-8")
        ended = process.run(
            [str(python), str(START), str(asked)], cwd=cwd, env=probe_env(env), timeout=timeout
        )
    lines = ended.stdout.decode("utf-8", "replace").splitlines()
    return Outcome(
        ended.returncode,
        Observation.from_json(lines[-1]) if lines else None,
        ended.timed_out,
        timeout,
        ended.error_text,
    )


def probe_env(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of a probe: offline, and nothing that would make it unsafe."""
    return {name: value for name, value in env.items() if name not in _DROPPED} | _SET
