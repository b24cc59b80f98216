"""`python -m benchmarks.environment`: how long it takes to build an environment, change it, roll it back."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fakes.channel import make_channel
from tests.fakes.channel_server import ChannelServer
from tests.fakes.conda_lab import BASE, make_lock, request

from labsync.env.build import build_environment
from labsync.env.repair import verify_environment
from labsync.env.versions import roll_back
from labsync.events import ignore

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5
RAM_DISK = Path("/dev/shm")  # noqa: S108  the point of it is that it is in memory


def main() -> None:
    """Print the table of `docs/performance.md`."""
    folder = Path(tempfile.mkdtemp(prefix="labsync-bench-", dir=RAM_DISK if RAM_DISK.is_dir() else None))
    try:
        rows = _measure(folder)
    finally:
        shutil.rmtree(folder)
    print("| what | seconds: median (lowest - highest) |\n| --- | --- |")  # noqa: T201
    for name, seconds in rows.items():
        print(f"| {name} | {statistics.median(seconds):.2f} ({min(seconds):.2f} - {max(seconds):.2f}) |")  # noqa: T201


def _measure(folder: Path) -> dict[str, list[float]]:
    rows: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], object]) -> None:
        begin = time.perf_counter()
        work()
        rows.setdefault(name, []).append(time.perf_counter() - begin)

    with ChannelServer(make_channel(folder / "channel").root) as server:
        lock = make_lock(folder, server.url, *BASE, "probe")
        newer = make_lock(folder, server.url, *BASE[:2], "tiny=2", "probe")
        for _ in range(ROUNDS):
            shutil.rmtree(folder / "home", ignore_errors=True)
            asked = request(folder, lock, imports=("ipykernel", "tiny"))
            changed, other = replace(asked, lock=newer), replace(asked, name="other")
            timed("build from nothing over HTTP", partial(build_environment, asked, ignore))
            timed("the same again", partial(build_environment, asked, ignore))
            timed("one package changed", partial(build_environment, changed, ignore))
            timed("roll back", partial(roll_back, asked.envs_dir, "lab", ignore))
            timed("another one of the same packages", partial(build_environment, other, ignore))
            timed("verify every file", partial(verify_environment, asked.envs_dir, "lab"))
    return rows


if __name__ == "__main__":
    main()
