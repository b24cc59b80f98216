"""How much memory a model will take, known before it is loaded: it runs once without any numbers."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from torch.types import Storage

_T = TypeVar("_T")

# What a model raises that looks at numbers which are not there, or that has other arguments.
_BLIND = (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError, KeyError, IndexError)


def estimate(
    build: Callable[[], torch.nn.Module],
    batch: Mapping[str, object],
    dtype: torch.dtype,
    kept: Collection[str] | None = None,
) -> int:
    """Return the bytes of a model's weights and of the most that lives beside them in one run.

    `build` makes the model on whatever device is the default. `batch` is what the run will be called
    with; floating point numbers in it count as `dtype`. With `kept` the weights of linear layers count
    one byte each, but for modules named there (int8). A model that cannot run without numbers counts
    its weights alone, one that cannot be built at all counts 0: unknown.
    """
    try:
        with torch.device("meta"):
            model = build().eval()
    except _BLIND:
        return 0
    weights = sum(_bytes(name, tensor, kept) for name, tensor in model.state_dict(keep_vars=True).items())
    if not batch:
        return weights
    given = _weightless(batch, dtype)
    peak = _Peak(model, given.values())
    try:
        with torch.inference_mode(), peak:
            model(**given)
    except _BLIND:
        return weights
    return weights + peak.most


def _bytes(name: str, tensor: torch.Tensor, kept: Collection[str] | None) -> int:
    quantized = kept is not None and tensor.ndim == 2 and name.endswith(".weight")
    if quantized and not any(part in name.split(".") for part in kept or ()) and "embed" not in name:
        return int(tensor.numel())
    return int(tensor.nbytes)


def _weightless(batch: Mapping[str, object], dtype: torch.dtype) -> dict[str, object]:
    """Return the batch with numbers' places alone; whole numbers stay, for they decide shapes.

    One input has no padding, so its mask says nothing; but a model would look into it.
    """
    return {
        name: value.to("meta", dtype) if _is_floating(value) else value  # type: ignore[attr-defined]
        for name, value in batch.items()
        if name != "attention_mask"
    }


def _is_floating(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


class _Peak(TorchDispatchMode):  # type: ignore[misc]  # torch is not followed
    """Counts the bytes of the inputs, and of storages that operations make, that live at once."""

    def __init__(self, model: torch.nn.Module, inputs: Iterable[object]) -> None:
        super().__init__()
        given = [value for value in inputs if isinstance(value, torch.Tensor) and value.is_meta]
        self.most = self._live = sum(int(tensor.nbytes) for tensor in given)
        tensors = (*model.parameters(), *model.buffers(), *given)
        self._known: weakref.WeakSet[Storage] = weakref.WeakSet(t.untyped_storage() for t in tensors)

    def __torch_dispatch__(
        self,
        operation: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        named = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, named)) if isinstance(leaf, torch.Tensor)]
        if any(tensor.is_meta for tensor in tensors):
            if operation.name() == "aten::index.Tensor":
                args = (args[0], _spelled_out(args[1]))
            args, named = _on_meta((args, named))
        result = operation(*args, **named)
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.is_meta:
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: Storage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self._live += size
        self.most = max(self.most, self._live)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self._live -= size


def _on_meta(value: _T) -> _T:
    """Return the arguments with every tensor on the device without memory, as an operation wants them."""
    moved: _T = tree_map_only(torch.Tensor, lambda tensor: tensor.to("meta"), value)
    return moved


def _spelled_out(indices: object) -> list[object]:
    """Return indices with masks as positions: how many a mask selects is known only while it has numbers."""
    assert isinstance(indices, list | tuple)
    out: list[object] = []
    for index in indices:
        if isinstance(index, torch.Tensor) and index.dtype is torch.bool and not index.is_meta:
            out += index.nonzero(as_tuple=True)
        else:
            out.append(index)
    return out
