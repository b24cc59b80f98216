"""Models that bring their own Python code: run only where the manifest pins that code by its commit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .errors import ProbeError
from .files import weight_files
from .loading import Loaded, device_of, ensure_room, precision_of

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from transformers import PretrainedConfig

    from ..request import ProbeRequest


def own_code(config: PretrainedConfig) -> bool:
    """Say whether the model's class is in its repository, and not in transformers."""
    return "AutoModel" in (getattr(config, "auto_map", None) or {})


def pretrained_own(config: PretrainedConfig, request: ProbeRequest, folder: Path) -> Loaded:
    """Return the model that the repository's own class makes of its weights.

    Not by `from_pretrained`: code written for older releases of transformers lacks what it asks of a
    class. Raises ProbeError where the manifest does not trust the code.
    """
    from safetensors.torch import load_file
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    if not request.trust_remote_code:
        raise ProbeError(
            "the model needs Python code from its repository, and the manifest does not trust it", "code"
        )
    weights = [file for file in weight_files(folder) if file.suffix == ".safetensors"]
    if not weights:
        raise ProbeError("a model with code of its own is loaded from safetensors only", "pickle")
    device, precision = device_of(request), precision_of(request)
    estimated = sum(file.stat().st_size for file in weights)
    ensure_room(estimated, request)
    started = time.perf_counter()
    kind = get_class_from_dynamic_module(
        config.auto_map["AutoModel"],
        request.model,
        revision=request.revision or None,
        code_revision=request.trust_remote_code,
        local_files_only=True,
    )
    model: torch.nn.Module = kind(config)
    state = {name: tensor for file in weights for name, tensor in load_file(file).items()}
    wanted = model.state_dict()
    wrong = {name for name in state if name in wanted and state[name].shape != wanted[name].shape}
    keys = model.load_state_dict({name: state[name] for name in state if name not in wrong}, strict=False)
    return Loaded(
        model.to(device, precision.dtype).eval(),
        device,
        precision,
        time.perf_counter() - started,
        tuple(name for name in keys.missing_keys if name not in wrong),
        tuple(keys.unexpected_keys),
        tuple(sorted(wrong)),
        estimated,
    )
