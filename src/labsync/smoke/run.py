"""Run a model's probe in the target environment: a process of its own, with a limit, offline."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from labsync import process
from labsync.smoke.checks import Outcome, judge, not_run
from labsync.smoke.ladder import climb, rungs
from labsync.smoke.request import Observation, ProbeRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labsync.manifest.model import SmokeSpec
    from labsync.report import SmokeResult
    from labsync.smoke.checks import SmokePlan

DEFAULT_TIMEOUT = 300.0  # seconds
_MAX_PICTURE = 4 << 20
_PNG = b"\x89PNG\r\n\x1a\n"
START = Path(__file__).with_name("probes") / "start.py"

_SET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
UNSAFE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
# The first two would mix another Python's packages in; the last makes `torch.load` run code.
_DROPPED = ("PYTHONPATH", "PYTHONHOME", UNSAFE)


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to be proven: `model` is an absolute path, or a hub id found in the cache at `revision`.

    `root` is the manifest's folder: inputs are relative to it, and `function` is imported from it.
    `fallbacks` are smaller models, to be run in its place when memory runs out.
    """

    name: str
    spec: SmokeSpec
    model: str
    root: Path
    revision: str = ""
    fallbacks: tuple[Subject, ...] = ()


@dataclass(frozen=True, slots=True)
class Proof:
    """A model's result, and a PNG of what it saw, empty where there is none."""

    result: SmokeResult
    picture: bytes = b""


def smoke_one(subject: Subject, plan: SmokePlan, python: Path, env: Mapping[str, str]) -> Proof:
    """Return one model's result: the plan's own where it does not run, else what its probes showed.

    `python` is the target environment's interpreter, `env` the environment variables to start from.
    A failure of the model is a result, never an exception.
    """
    task = subject.spec.task
    if plan.decision != "run":
        return Proof(not_run(subject.name, task, plan))
    timeout = subject.spec.timeout or DEFAULT_TIMEOUT
    with tempfile.TemporaryDirectory(prefix="labsync-smoke-") as folder:
        picture = Path(folder) / "picture.png"

        def attempt(request: ProbeRequest) -> Outcome:
            picture.unlink(missing_ok=True)
            asked = replace(request, picture=str(picture))
            return run_probe(asked, python, timeout, env, subject.root)

        others = [(other.name, request_of(other, plan.device)) for other in subject.fallbacks]
        climbed = climb(rungs(request_of(subject, plan.device), others), attempt)
        return Proof(judge(subject.name, task, plan.device, climbed), _read_picture(picture))


def _read_picture(path: Path) -> bytes:
    """Return the PNG that a probe left; another's process wrote it, so it is looked at before it is used."""
    if not path.is_file() or path.stat().st_size > _MAX_PICTURE:
        return b""
    content = path.read_bytes()
    return content if content.startswith(_PNG) else b""


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
