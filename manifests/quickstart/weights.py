"""Draw a model's weights from a table of names and shapes, exactly, on every machine."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

Shape = tuple[int, ...]

GAIN = 1.5  # the usual 0.02 makes tiny models answer the same whatever they are shown
BIAS = 0.05


def draw(model: str, table: Mapping[str, Shape]) -> dict[str, np.ndarray]:
    """Return float32 arrays for the table's tensors.

    Matrices get a spread of `GAIN / sqrt(fan in)`, norms ones, biases little. The numbers come from
    SHAKE-256 of the tensor's name, so they depend on no generator, thread count or instruction set.
    """
    return {name: _tensor(f"{model}:{name}", shape) for name, shape in table.items()}


def _tensor(key: str, shape: Shape) -> np.ndarray:
    if len(shape) == 1:
        if key.endswith("bias"):
            return _uniform(key, shape, BIAS)
        return np.ones(shape, np.float32)
    return _uniform(key, shape, GAIN * math.sqrt(3 / math.prod(shape[1:])))


def _uniform(key: str, shape: Shape, bound: float) -> np.ndarray:
    raw = hashlib.shake_256(key.encode()).digest(4 * math.prod(shape))
    whole = (np.frombuffer(raw, "<u4") >> 8).astype(np.float32)  # 24 bits: exact in a float32
    unit = whole * np.float32(2**-23) - np.float32(1)
    drawn: np.ndarray = unit * np.float32(bound)
    return drawn.reshape(shape)


def linear(name: str, outputs: int, inputs: int, *, bias: bool = True) -> dict[str, Shape]:
    """Return the table of a linear layer."""
    table: dict[str, Shape] = {f"{name}.weight": (outputs, inputs)}
    return table | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name: str, width: int, *, bias: bool = True) -> dict[str, Shape]:
    """Return the table of a normalisation layer."""
    table: dict[str, Shape] = {f"{name}.weight": (width,)}
    return table | ({f"{name}.bias": (width,)} if bias else {})
