"""Turn an exception into trouble with a cause and a cure, for a person who never saw a traceback."""

from __future__ import annotations

import pickle

from ..request import Observation
from ..troubles import FOREIGN_CODE, old_api_cure
from .errors import ProbeError
from .machine import torchvision_finding

_MEMORY = (
    "can't allocate memory", "CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED",
    "std::bad_alloc", "Cannot allocate memory",
)  # fmt: skip


def explain(error: BaseException) -> Observation:
    """Return an observation that holds nothing but the problem, its kind and, where known, its cure."""
    text = (str(error).strip().splitlines() or [""])[0][:300]
    whole = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, ProbeError):
        return Observation(problem=str(error), trouble=error.trouble, cure=error.cure)
    if _is_memory(error, text):
        return Observation(problem=f"memory ran out: {text or 'the model does not fit'}", trouble="memory")
    if "torchvision" in str(error) and (finding := torchvision_finding()):
        return Observation(problem=f"{finding.cause} ({whole})", trouble="torchvision", cure=finding.cure)
    if cure := old_api_cure(f"{type(error).__name__}: {error}"):
        return Observation(problem=whole, trouble="api", cure=cure)
    if isinstance(error, ModuleNotFoundError) and error.name:
        missing = f"the package `{error.name}` is not installed in this environment"
        return Observation(problem=missing, trouble="package", cure=_install(error.name))
    if isinstance(error, pickle.UnpicklingError):
        refused = "the checkpoint holds Python objects that could run code, or is damaged"
        return Observation(problem=f"{refused}; it was not loaded, nothing was executed", trouble="pickle")
    if "trust_remote_code" in str(error):
        return Observation(problem=FOREIGN_CODE, trouble="code")
    return Observation(problem=whole, trouble="unknown")


def _install(package: str) -> str:
    if package == "segment_anything":
        return "name Meta's git repository under `libraries:` with `install: true`"
    return ""


def _is_memory(error: BaseException, text: str) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError | OSError) and any(mark in text for mark in _MEMORY)
