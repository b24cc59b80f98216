"""Answer one request: choose the probe, and turn whatever happens into one line of JSON."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import traceback
from typing import TYPE_CHECKING, TextIO

from .. import torchvision_cpu
from ..request import Observation, ProbeRequest
from .loading import ProbeError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

MODULES = {
    "segment-anything": "segment_anything",
    "image-text-to-text": "image_text_to_text",
    "image-feature-extraction": "image_feature_extraction",
    "video-classification": "video_classification",
    "feature-extraction": "feature_extraction",
    "python": "python_function",
}


def serve(path: Path) -> None:
    """Run the probe that the request in the file names, and print what it observed."""
    answer = _claim_stdout()
    sys.excepthook = _Report(answer)
    request = ProbeRequest.from_json(path.read_text())
    torchvision_cpu.install()
    probe = importlib.import_module(f".{MODULES[request.task]}", __package__)
    _print(answer, probe.observe(request))


def _claim_stdout() -> TextIO:
    """Return the real stdout; what libraries print goes to stderr from here on."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answer


def _print(answer: TextIO, observation: Observation) -> None:
    print(observation.to_json(), file=answer, flush=True)


class _Report:
    """The last word of a failed probe: a hook, so that no exception is caught on the way to it."""

    def __init__(self, answer: TextIO) -> None:
        self._answer = answer

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Print the failure as an observation, and the traceback to stderr."""
        traceback.print_exception(kind, error, trace)
        _print(self._answer, Observation(problem=explain(error)))


def explain(error: BaseException) -> str:
    """Return the sentence that tells a person why the probe failed."""
    text = (str(error).strip().splitlines() or [""])[0][:300]
    if isinstance(error, ProbeError):
        return str(error)
    if _is_memory(error, text):
        return f"memory ran out: {text or 'the model does not fit'}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the package `{error.name}` is not installed in this environment"
    if isinstance(error, pickle.UnpicklingError):
        return (
            "the checkpoint holds Python objects that could run code, or is damaged; it was not loaded, "
            "nothing was executed"
        )
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _is_memory(error: BaseException, text: str) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    marks = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(mark in text for mark in marks)
