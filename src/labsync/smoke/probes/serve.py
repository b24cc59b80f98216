"""Answer one request: choose the probe, and turn whatever happens into one line of JSON."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import TYPE_CHECKING, TextIO

from .. import torchvision_cpu
from ..request import ProbeRequest
from .explain import explain

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from ..request import Observation

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
        _print(self._answer, explain(error))
