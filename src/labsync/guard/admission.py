"""What is still sent when time is short: the most valuable first, and nothing that cannot arrive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

SMALL = 16 << 20
"""Bytes up to which a result comes before any checkpoint: what people wrote is small."""
UNMEASURED = float(1 << 20)
"""Bytes per second that a mirror is taken to bear before anything was measured."""


@dataclass(frozen=True, slots=True)
class Candidate(Generic[T]):
    """Something to send: `rank` 0 is the most valuable."""

    what: T
    size: int
    rank: int


@dataclass(frozen=True, slots=True)
class Admitted(Generic[T]):
    """What is sent, in this order, and what is left for the next session."""

    sent: tuple[Candidate[T], ...]
    left_out: tuple[Candidate[T], ...]


def admit(
    candidates: Iterable[Candidate[T]], seconds: float, rate: float, can_resume: Callable[[int], bool]
) -> Admitted[T]:
    """Choose what arrives within `seconds` at `rate` bytes per second.

    The order is that of rank, then of size. What does not fit does not keep smaller things out. With
    the time that is left over at the end goes the first of those whose upload the next session
    continues (`can_resume`, asked by size).
    """
    budget = seconds * rate
    sent, left_out = [], []
    for candidate in sorted(candidates, key=lambda c: (c.rank, c.size)):
        if candidate.size <= budget:
            sent.append(candidate)
            budget -= candidate.size
        else:
            left_out.append(candidate)
    begun = next((c for c in left_out if can_resume(c.size)), None) if budget > 0 else None
    if begun is not None:
        sent.append(begun)
        left_out.remove(begun)
    return Admitted(tuple(sent), tuple(left_out))


def result_rank(size: int, budget: float) -> int:
    """Return the rank of a file of results, when `budget` bytes can still be sent.

    A small one comes before any checkpoint, but not one that takes a tenth of the time that is left.
    """
    return 0 if size <= min(SMALL, budget / 10) else 2


def unit_rank(*, newest: bool) -> int:
    """Return the rank of a checkpoint: older ones come last of all."""
    return 1 if newest else 3
