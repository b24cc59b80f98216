"""Thousands of small histories of two boxes whose disks, network and clocks fail; no promise is broken."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.depth import ALL, SEED, count
from tests.faults.simulation import world
from tests.faults.simulation.world import BrokenError, simulate, simulated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.simulation.world import Running

pytestmark = pytest.mark.timeout(1200)
KEPT = Path(world.__file__).with_name("regressions.txt")
CHUNK = 25
CHUNKS = range(SEED, SEED + count(200, 10_000), CHUNK)


@pytest.fixture
def running(clean_environment: Path) -> Iterator[Running]:
    with simulated() as running:
        yield running


def _kept() -> list[int]:
    lines = KEPT.read_text("utf-8").splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


@pytest.mark.fault(2, 3, 4, 17, 18, 23, 24, 42, 43, 49, 50, 58, 65, 66)
@pytest.mark.parametrize("seed", _kept())
def test_what_broke_once(fast_disk: Path, running: Running, seed: int) -> None:
    simulate(seed, fast_disk / "world", running)


@pytest.mark.fault(2, 3, 4, 17, 18, 23, 24, 42, 43, 49, 50, 58, 65, 66)
@pytest.mark.parametrize("first", CHUNKS)
def test_seeds(fast_disk: Path, running: Running, first: int) -> None:
    for seed in range(first, first + CHUNK):
        try:
            simulate(seed, fast_disk / "world", running)
        except BrokenError as error:
            if ALL:
                with KEPT.open("a", encoding="utf-8") as file:
                    file.write(f"{seed}  {str(error).splitlines()[0][:100]}\n")
            pytest.fail(f"{error}\nrun `python -m tests.faults.simulation {seed} 1`", pytrace=False)
