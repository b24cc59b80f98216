"""What happens in a simulated run: decided by its seed alone, whatever thread comes first."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")


class Fate:
    """Rolls dice by subject: the n-th roll for one subject is the same in every run of the seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._counts: Counter[str] = Counter()
        self._mutex = threading.Lock()

    def roll(self, subject: str) -> random.Random:
        """Return the dice for the next decision about a subject."""
        with self._mutex:
            self._counts[subject] += 1
            return random.Random(f"{self.seed}/{subject}/{self._counts[subject]}")

    def happens(self, subject: str, probability: float) -> bool:
        return probability > 0 and self.roll(subject).random() < probability

    def choose(self, subject: str, options: Sequence[T]) -> T:
        return self.roll(subject).choice(options)
