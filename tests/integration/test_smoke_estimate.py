"""The memory of a model, known before it is loaded: exact where it can be counted by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from labsync.smoke.probes.estimate import estimate

LINEAR = 4 * (64 * 32 + 32)  # bytes of a linear layer's weights and bias in float32
ROWS = 1000


class Sum(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Keeps two intermediate results alive at once, and no third one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.layer(x)
        second = first + 1
        del first
        return second * 2


class Looks(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Looks into its input, as models do that ask how many images a prompt has."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 16)

    def forward(self, ids: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        mask = ids == 7
        count = int(mask.sum())
        hidden = self.table(ids)
        assert hidden[mask].shape[0] == count
        return hidden.masked_scatter(mask[..., None], x[:count])


class Blind(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Decides by numbers that it has not yet."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if self.layer(x).sum().item() > 0 else x


def _batch(**more: Any) -> dict[str, object]:
    return {"x": torch.zeros(ROWS, 64), **more}


def test_weights_inputs_and_what_lives_at_once_are_counted_exactly() -> None:
    assert estimate(Sum, _batch(), torch.float32) == LINEAR + 4 * ROWS * (64 + 32 + 32)


def test_a_larger_input_needs_more_and_a_smaller_precision_less() -> None:
    whole = estimate(Sum, _batch(), torch.float32)
    assert estimate(Sum, {"x": torch.zeros(2 * ROWS, 64)}, torch.float32) > whole
    half = estimate(lambda: Sum().half(), _batch(), torch.float16)
    assert half == whole // 2


def test_int8_counts_a_byte_for_each_weight_that_is_not_kept() -> None:
    assert estimate(Sum, {}, torch.float32, kept=()) == 64 * 32 + 4 * 32
    assert estimate(Sum, {}, torch.float32, kept=("layer",)) == LINEAR


def test_whole_numbers_stay_real_because_they_decide_shapes() -> None:
    ids = torch.tensor([[1, 7, 7, 2]])
    batch = {"ids": ids, "x": torch.zeros(2, 16), "attention_mask": torch.ones(1, 4)}
    assert estimate(Looks, batch, torch.float32) > 4 * (50 * 16 + 2 * 16)


def test_a_model_that_needs_numbers_counts_its_weights() -> None:
    assert estimate(Blind, _batch(), torch.float32) == LINEAR


def test_a_model_that_cannot_be_built_is_unknown() -> None:
    def build() -> nn.Module:
        raise ValueError("this class has no such thing")

    assert estimate(build, _batch(), torch.float32) == 0


@pytest.mark.parametrize("times", [1, 3])
def test_nothing_is_really_taken(times: int) -> None:
    # 64 TiB of weights: building them for real would fail.
    assert estimate(lambda: nn.Linear(1 << 22, 1 << 22, bias=False), {}, torch.float32) == 1 << 46
