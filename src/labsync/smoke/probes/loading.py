"""Load a model as it will be used: from its own folder or the cache, offline, without foreign code."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import files

if TYPE_CHECKING:
    import torch

    from ..request import ProbeRequest, Tensors

_SMALL = 64 << 20  # bytes of weights, below which starting threads costs more than they save
_MAX_THREADS = 8


class ProbeError(Exception):
    """The model cannot be run; the text is a sentence for the person."""


@dataclass(frozen=True)
class Loaded:
    """A model ready to run, with what loading it told."""

    model: torch.nn.Module
    device: torch.device
    dtype: torch.dtype
    seconds: float
    missing: Tensors = ()
    unexpected: Tensors = ()
    mismatched: Tensors = ()


def locate(request: ProbeRequest) -> Path:
    """Return where the model's files lie; raises ProbeError for unusable files and a missing GPU."""
    folder = Path(request.model) if request.is_local else cached_folder(request)
    if problem := files.problem_of(folder):
        raise ProbeError(problem)
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
        raise ProbeError(f"`{request.model}` is not in the Hugging Face cache of this box") from error
    return Path(found).parent


def _use_few_threads(size: int) -> None:
    import torch

    cores = min(len(os.sched_getaffinity(0)), _MAX_THREADS)
    torch.set_num_threads(1 if size < _SMALL else cores)


def device_of(request: ProbeRequest) -> torch.device:
    """Return the device asked for; raises ProbeError when torch cannot use it."""
    import torch

    if request.device.startswith("cuda") and not torch.cuda.is_available():
        raise ProbeError(f"torch {torch.__version__} finds no GPU it can use")
    return torch.device(request.device)


def dtype_of(request: ProbeRequest) -> torch.dtype:
    """Return the precision: the manifest's, else float32 on a CPU and a half type on a GPU."""
    import torch

    if request.dtype not in {"", "auto"}:
        found = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
        if request.dtype not in found:
            raise ProbeError(f"the dtype `{request.dtype}` is not one of {', '.join(found)}")
        return found[request.dtype]
    if not request.device.startswith("cuda"):
        return torch.float32
    # Below 8.0 bfloat16 is emulated, though `is_bf16_supported` answers True:
    # https://github.com/pytorch/pytorch/issues/148322
    return torch.bfloat16 if torch.cuda.get_device_capability(request.device) >= (8, 0) else torch.float16


def pretrained(auto: type, request: ProbeRequest) -> Loaded:
    """Return the model that a transformers class makes of the request's files.

    `auto` is the class. Nothing is fetched, and code that came with the model only runs where the
    manifest pins it by a commit. `pooler.` tensors are not counted as missing: no probe uses one.
    """
    device, dtype = device_of(request), dtype_of(request)
    started = time.perf_counter()
    model, info = auto.from_pretrained(  # type: ignore[attr-defined]  # transformers has no types
        request.model,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **source_of(request),
    )
    return Loaded(
        model.to(device).eval(),
        device,
        dtype,
        time.perf_counter() - started,
        tuple(sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))),
        tuple(sorted(info["unexpected_keys"])),
        tuple(sorted(str(key[0]) for key in info["mismatched_keys"])),
    )


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
