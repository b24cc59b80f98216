"""The user's own test: a function that gets the model's path, and fails by raising."""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..request import Observation
from .errors import ProbeError
from .loading import cached_folder
from .measure import peak_ram, printable

if TYPE_CHECKING:
    from ..request import ProbeRequest


def observe(request: ProbeRequest) -> Observation:
    """Call `module:function` with the model's path; it must return something JSON can hold."""
    module, colon, name = request.function.partition(":")
    if not (module and colon and name):
        raise ProbeError(f"`function: {request.function}` is not of the form `module:function`", "setting")
    sys.path.insert(0, request.folder)
    function = getattr(importlib.import_module(module), name, None)
    if not callable(function):
        raise ProbeError(f"the module `{module}` has no function `{name}`", "setting")
    path = Path(request.model) if request.is_local else cached_folder(request)
    started = time.perf_counter()
    result = function(str(path))
    seconds = time.perf_counter() - started
    try:
        text = json.dumps(result, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ProbeError(
            f"`{request.function}` returned a {type(result).__name__}, which JSON cannot hold",
            "function",
            "return numbers, strings, lists or dictionaries of them",
        ) from error
    return Observation(text=printable(text), device=request.device, run_seconds=seconds, ram_bytes=peak_ram())
