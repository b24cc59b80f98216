"""`python -m tests.faults.simulation FIRST COUNT`: simulate seeds, print those that break a promise."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.simulation.world import BrokenError, simulate, simulated


def main(first: int, count: int) -> int:
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    root = Path(tempfile.mkdtemp(prefix="labsync-simulation-", dir=where))
    broken, began = [], time.monotonic()
    try:
        with simulated() as running:
            for seed in range(first, first + count):
                try:
                    simulate(seed, root / "world", running)
                except BrokenError as error:
                    broken.append(seed)
                    print(error, flush=True)  # noqa: T201
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(f"{count} seeds in {time.monotonic() - began:.0f} s, broken: {broken}", flush=True)  # noqa: T201
    return len(broken)


if __name__ == "__main__":
    sys.exit(min(main(int(sys.argv[1]), int(sys.argv[2])), 1))
