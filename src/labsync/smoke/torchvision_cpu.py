"""Let a torchvision built for CUDA import beside a torch built for the CPU.

The package index has no torchvision for the CPU alone: its compiled part needs libtorch_cuda, is
skipped where that is missing, and `import torchvision` then dies on the operator `torchvision::nms`.
Standard library only until torchvision is imported, so that a `.pth` line may load it at every start:

    import labsync.smoke.torchvision_cpu as t; t.install()
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    import torch

_NAME = "torchvision"
_MARK = "labsync_torchvision_cpu"
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_kept: list[object] = []  # a torch Library takes its operators along when it is collected


def install() -> None:
    """Define what torchvision misses right before it is first imported; calling again changes nothing.

    Where torch was built for CUDA, or torchvision's compiled part loads, nothing is defined.
    """
    # By a mark and not by the class: this file may be loaded twice, from a `.pth` line and by a probe.
    if not any(hasattr(finder, _MARK) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder:
    labsync_torchvision_cpu = True

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _NAME:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or not isinstance(spec.loader, SourceFileLoader):
            return None
        spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        defined = _define(Path(self.path).parent)
        super().exec_module(module)
        if defined:
            # `nms` asks whether the compiled part was loaded, which is no longer the question.
            sys.modules[f"{_NAME}.ops.boxes"].__dict__["_assert_has_ops"] = _nothing


def _nothing() -> None:
    """Find nothing wrong."""


def _define(folder: Path) -> bool:
    import torch

    if torch.version.cuda is not None or _compiled_part_loads(folder):
        return False
    library = torch.library.Library(_NAME, "FRAGMENT")
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library.define(f"{operator}{_SCHEMA}")
            library.impl(operator, _nms, "CPU")
    _kept.append(library)
    return True


def _compiled_part_loads(folder: Path) -> bool:
    import torch

    for compiled in sorted(folder.glob("_C*.so")):
        try:
            torch.ops.load_library(str(compiled))
        except OSError:
            return False
        return True
    return False


def _nms(dets: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Return the indices of the boxes that greedy non-maximum suppression keeps, best score first."""
    import torch

    order = scores.argsort(descending=True, stable=True)
    areas = (dets[:, 2] - dets[:, 0]) * (dets[:, 3] - dets[:, 1])
    kept: list[torch.Tensor] = []
    while order.numel():
        best, order = order[0], order[1:]
        kept.append(best)
        corner = torch.maximum(dets[best, :2], dets[order, :2])
        opposite = torch.minimum(dets[best, 2:], dets[order, 2:])
        overlap = (opposite - corner).clamp(min=0).prod(dim=1)
        order = order[overlap <= iou_threshold * (areas[best] + areas[order] - overlap)]
    return torch.stack(kept) if kept else torch.empty(0, dtype=torch.long, device=dets.device)
