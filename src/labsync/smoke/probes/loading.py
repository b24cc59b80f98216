"""Load a model as it will be used: from its own folder or the cache, offline, without foreign code."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import hardware
from . import files
from .errors import ProbeError
from .machine import free_memory, gpu_of, read_machine

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from ..request import ProbeRequest, Tensors

_SMALL = 64 << 20  # bytes of weights, below which starting threads costs more than they save
_MAX_THREADS = 8
# What loses its meaning in eight bits: the eyes of a vision-language model, and every last layer. A pooler
# is often missing in the file, and then bitsandbytes has nothing to make its eight bits of.
INT8_KEPT = ("visual", "vision_tower", "lm_head", "classifier", "pooler")


@dataclass(frozen=True)
class Precision:
    """What a model is loaded with: the type it computes in, and whether its weights are int8."""

    dtype: torch.dtype
    is_int8: bool = False
    note: str = ""

    def __str__(self) -> str:
        return "int8" if self.is_int8 else str(self.dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Loaded:
    """A model ready to run, with what loading it told; `estimated` are the bytes it was to need."""

    model: torch.nn.Module
    device: torch.device
    precision: Precision
    seconds: float
    missing: Tensors = ()
    unexpected: Tensors = ()
    mismatched: Tensors = ()
    estimated: int = 0

    @property
    def dtype(self) -> torch.dtype:
        """The type that inputs are cast to."""
        return self.precision.dtype


def locate(request: ProbeRequest) -> Path:
    """Return where the model's files lie; raises ProbeError for unusable files and a missing GPU."""
    folder = Path(request.model) if request.is_local else cached_folder(request)
    if problem := files.problem_of(folder):
        raise ProbeError.of(problem)
    device_of(request)
    _use_few_threads(sum(file.stat().st_size for file in files.weight_files(folder)))
    return folder


def cached_folder(request: ProbeRequest) -> Path:
    """Return the hub model's folder in the cache; raises ProbeError when it is not there."""
    from transformers.utils import cached_file

    try:
        found = cached_file(
            request.model, "config.json", revision=request.revision or None, local_files_only=True
        )
    except OSError as error:
        raise ProbeError(
            f"`{request.model}` is not in the Hugging Face cache of this box", "cache"
        ) from error
    return Path(found).parent


def _use_few_threads(size: int) -> None:
    import torch

    cores = min(len(os.sched_getaffinity(0)), _MAX_THREADS)
    torch.set_num_threads(1 if size < _SMALL else cores)


def device_of(request: ProbeRequest) -> torch.device:
    """Return the device asked for; raises ProbeError when torch cannot use it."""
    import torch

    if request.device.startswith("cuda") and (
        problem := hardware.gpu_problem(read_machine(), request.device)
    ):
        raise ProbeError.of(problem)
    return torch.device(request.device)


def precision_of(request: ProbeRequest) -> Precision:
    """Return the precision: the manifest's as far as the device has it, else the device's own."""
    import torch

    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    gpu = gpu_of(request.device)
    if request.dtype == "int8":
        return Precision(known[hardware.beside_int8(gpu)], is_int8=True)
    name, note = hardware.precision(request.dtype, gpu)
    if name not in known:
        raise ProbeError(f"the dtype `{name}` is not one of {', '.join(known)}", "setting")
    return Precision(known[name], note=note)


def ensure_room(estimated: int, request: ProbeRequest) -> None:
    """Raise ProbeError, before anything is loaded, when the device has less memory than is needed."""
    if problem := hardware.memory_problem(estimated, free_memory(request.device), request.device):
        raise ProbeError.of(problem)


def pretrained(auto: type, request: ProbeRequest, batch: Mapping[str, object]) -> Loaded:
    """Return the model that a transformers class makes of the request's files.

    `auto` is the class, `batch` an input that it will be run with, by which its memory is estimated.
    Nothing is fetched, and code that came with the model only runs where the manifest pins it by a
    commit. `pooler.` tensors are not counted as missing: no probe uses one.
    """
    device, precision = device_of(request), precision_of(request)
    estimated = _estimated(auto, request, batch, precision)
    ensure_room(estimated, request)
    started = time.perf_counter()
    model, info = _from_pretrained(auto, request, precision)
    return Loaded(
        (model if precision.is_int8 else model.to(device)).eval(),
        device,
        precision,
        time.perf_counter() - started,
        tuple(sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))),
        tuple(sorted(info["unexpected_keys"])),
        tuple(sorted(str(key[0]) for key in info["mismatched_keys"])),
        estimated,
    )


def _from_pretrained(
    auto: type, request: ProbeRequest, precision: Precision
) -> tuple[torch.nn.Module, dict[str, list[str]]]:
    arguments: dict[str, object] = {
        "dtype": precision.dtype,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,
        "attn_implementation": hardware.ATTENTION,
        **source_of(request),
    }
    if precision.is_int8:
        arguments |= _int8(request)
    loader = auto.from_pretrained  # type: ignore[attr-defined]  # transformers has no types
    try:
        loaded: tuple[torch.nn.Module, dict[str, list[str]]] = loader(request.model, **arguments)
    except ValueError as error:
        if "scaled_dot_product_attention" not in str(error):
            raise
        loaded = loader(request.model, **arguments | {"attn_implementation": "eager"})
    return loaded


def _int8(request: ProbeRequest) -> dict[str, object]:
    import bitsandbytes  # noqa: F401  transformers' own word for its absence is hard to read
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(INT8_KEPT))
    return {"quantization_config": config, "device_map": {"": request.device}}


def _estimated(auto: type, request: ProbeRequest, batch: Mapping[str, object], precision: Precision) -> int:
    from transformers import AutoConfig

    from .estimate import estimate

    config = AutoConfig.from_pretrained(request.model, **source_of(request))
    arguments = {"dtype": precision.dtype, "attn_implementation": hardware.ATTENTION}

    def build() -> torch.nn.Module:
        if hasattr(auto, "from_config"):
            trusted = {"trust_remote_code": bool(request.trust_remote_code)}
            model: torch.nn.Module = auto.from_config(config, **arguments, **trusted)
            return model
        own: torch.nn.Module = auto._from_config(config, **arguments)  # type: ignore[attr-defined]
        return own

    return estimate(build, batch, precision.dtype, INT8_KEPT if precision.is_int8 else None)


def source_of(request: ProbeRequest) -> dict[str, str | bool | None]:
    """Return the arguments by which every `from_pretrained` finds the same files, offline."""
    source: dict[str, str | bool | None] = {
        "revision": request.revision or None,
        "local_files_only": True,
        "trust_remote_code": bool(request.trust_remote_code),
    }
    if request.trust_remote_code:
        source["code_revision"] = request.trust_remote_code
    return source
