"""Turn a model and its two outputs into an observation."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..request import Observation
from .machine import gpu_of, torchvision_finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from ..request import Tensors
    from .loading import Loaded

_TEXT = 120  # characters of a model's answer


class Run:
    """The time and memory of running a loaded model; made when the run begins."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._started = time.perf_counter()

    def observe(
        self,
        outputs: Sequence[torch.Tensor],
        expected: tuple[int, ...],
        text: str,
        best: Mapping[str, float] | None = None,
    ) -> Observation:
        """Return what is to be said of the model and of its two outputs; `best` are its best classes."""
        import torch

        loaded = self._loaded
        one, two = (output.detach().float().cpu() for output in outputs)
        seconds = time.perf_counter() - self._started
        gpu = gpu_of(str(loaded.device))
        finite = bool(torch.isfinite(one).all() and torch.isfinite(two).all())
        comparable = finite and one.shape == two.shape and one.numel() > 0
        return Observation(
            missing=loaded.missing,
            unexpected=loaded.unexpected,
            mismatched=loaded.mismatched,
            nonfinite=_nonfinite(loaded.model),
            shape=tuple(one.shape),
            expected=expected,
            finite=finite,
            minimum=float(one.min()) if comparable else 0.0,
            maximum=float(one.max()) if comparable else 0.0,
            difference=float((one - two).abs().max()) if comparable else 0.0,
            text=printable(text),
            labels=tuple(printable(label) for label in best or ()),
            shares=tuple(_share(share) for share in (best or {}).values()),
            notes=notes_of(loaded),
            device=str(loaded.device),
            device_name=gpu.name if gpu else "",
            device_bytes=gpu.total if gpu else 0,
            dtype=str(loaded.precision),
            load_seconds=loaded.seconds,
            run_seconds=seconds,
            ram_bytes=peak_ram(),
            vram_bytes=torch.cuda.max_memory_allocated(loaded.device) if loaded.device.type == "cuda" else 0,
            estimated_bytes=loaded.estimated,
        )


def notes_of(loaded: Loaded) -> tuple[str, ...]:
    """Return what a person should know although the model ran."""
    finding = torchvision_finding()
    return tuple(filter(None, (loaded.precision.note, finding.cause if finding else "")))


def _share(share: float) -> float:
    return share if math.isfinite(share) else 0.0


def _nonfinite(model: torch.nn.Module) -> Tensors:
    import torch

    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return tuple(sorted(name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()))


def printable(text: str) -> str:
    """Return a model's answer fit for one line of a report."""
    shown = "".join(char if char.isprintable() and char != "\ufffd" else " " for char in text)
    line = " ".join(shown.split())
    return line if len(line) <= _TEXT else f"{line[: _TEXT - 1]}…"


def peak_ram() -> int:
    """Return the most memory this process ever held, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
