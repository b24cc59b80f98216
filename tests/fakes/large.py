"""Contents that are large for the engine, and what a killed run leaves of one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from labsync.transfer.journal import Journal
from labsync.transfer.ranges import Extent
from tests.fakes.engine_lab import MIB, Lab
from tests.strategies import entry_of

RANGE = 6 * MIB  # smaller than the real one, so that four of them are quick
LARGE = random.Random(1).randbytes(5 * MIB + 17)  # one range, and a journal
HUGE = random.Random(2).randbytes(3 * RANGE + 17)  # four ranges
ENTRY = entry_of("a.bin", LARGE)


def large_lab(root: Path, patch: pytest.MonkeyPatch) -> Lab:
    """Return a lab whose origin and mirror hold the large contents, and that fetches `RANGE` at once."""
    patch.setattr("labsync.transfer.download.RANGE", RANGE)
    lab = Lab(root, jobs=8)
    lab.origin.hold(LARGE, HUGE)
    lab.mirror.hold(LARGE, HUGE)
    return lab


def leave(lab: Lab, *extents: Extent, data: bytes = LARGE) -> Path:
    """Leave a part file as a killed run does: these bytes are there, other ones may be anything."""
    entry = entry_of("a.bin", LARGE)
    lab.home.stage.mkdir(parents=True, exist_ok=True)
    part = lab.home.stage / f"{entry.sha256}.part"
    with part.open("wb") as file:
        file.write(b"?" * entry.size)
        for start, stop in extents:
            file.seek(start)
            file.write(data[start:stop])
    Journal(part.with_suffix(".blocks"), entry.sha256, entry.size).add(extents)
    return part
