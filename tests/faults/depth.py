"""How thorough a run is: `make test` takes a sample, `make faults` everything (`LABSYNC_FAULTS=all`)."""

from __future__ import annotations

import os

ALL = os.environ.get("LABSYNC_FAULTS") == "all"  # read before tests take the variables away
SEED = int(os.environ.get("LABSYNC_SEED", "0"))


def count(sample: int, everything: int) -> int:
    """Return how many cases this run is to look at."""
    return everything if ALL else sample
