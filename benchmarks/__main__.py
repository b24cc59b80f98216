"""`python -m benchmarks`: measure labsync beside its peers and write `docs/performance.md`."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import report
from benchmarks.data import WrongResultError
from benchmarks.downloads import hub
from benchmarks.goals import BY_NAME, ROWS
from benchmarks.growth import growth
from benchmarks.kills import kill_pull, kill_push
from benchmarks.rounds import QUICK, Bench, Sizes, room_for, say, take_turns
from benchmarks.tables import Run, goals_table, verdicts
from benchmarks.tools import install
from benchmarks.workloads import nothing_large, nothing_small, pull_many, pull_one, push_many, push_one

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from benchmarks.rounds import Contender
    from benchmarks.tools import Tools

    Workload = Callable[[Bench, Path], AbstractContextManager[Sequence[Contender]]]

RAM_DISK = Path("/dev/shm")  # noqa: S108  the point of it is that it is in memory
RESULTS = Path(__file__).with_name("results")
IN_TURNS: dict[str, Workload] = {
    "pull-one": pull_one,
    "push-one": push_one,
    "pull-many": pull_many,
    "push-many": push_many,
    "nothing-10k": nothing_small,
    "nothing-100k": nothing_large,
    "growth": growth,
    "hub": hub,
}
BY_KILLS = {"kill-pull": kill_pull, "kill-push": kill_push}


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says."""
    options = _parser().parse_args(argv)
    for signum in (signal.SIGTERM, signal.SIGHUP):  # gigabytes of memory must not be left behind
        signal.signal(signum, lambda number, _: sys.exit(128 + number))
    if options.report:
        report.write(_results())
        return 0
    sizes = QUICK if options.quick else Sizes()
    if problem := room_problem(RAM_DISK, sizes.room):
        say(problem)
        return 1
    rows = [row.name for row in ROWS if row.name in (options.only or BY_NAME)]
    tools = install()
    RESULTS.mkdir(exist_ok=True)
    stamp = dt.datetime.now(tz=dt.timezone.utc).strftime("%Y%m%d-%H%M%S")
    path = RESULTS / f"{stamp}.{'quick' if options.quick else 'full'}.jsonl"
    with tempfile.TemporaryDirectory(prefix="labsync-bench-", dir=RAM_DISK) as work:
        bench = Bench(tools, Path(work), sizes, options.rounds, path, random.Random())  # noqa: S311  no secrets
        bench.write(_machine(tools, options.rounds))
        for row in rows:
            _run_row(bench, row)
    _conclude(path, docs=not options.quick)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often everybody runs (default: 3)")
    parser.add_argument(
        "--only", action="append", choices=list(BY_NAME), help="only this row; may be repeated"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, to see that it works; writes no page"
    )
    parser.add_argument(
        "--report", action="store_true", help="measure nothing; write the page from the results"
    )
    return parser


def room_problem(disk: Path, needed: int) -> str:
    """Say why the RAM disk will not do, nothing when it will."""
    if not disk.is_dir() or not os.access(disk, os.W_OK):
        return f"there is no RAM disk: the benchmark needs a {disk} that can be written, and runs on Linux"
    free = room_for(disk)
    if free < needed:
        return f"{disk} has room for {free / 2**30:.1f} GiB; the benchmark needs {needed / 2**30:.0f} GiB"
    return ""


def _run_row(bench: Bench, row: str) -> None:
    say(f"{BY_NAME[row].title}")
    folder = bench.work / row
    folder.mkdir()
    begin = time.monotonic()
    try:
        _compete(bench, row, folder)
    except WrongResultError as error:  # labsync could not even be set up: the other rows may still tell
        bench.record(Run(row, BY_NAME[row].goals[0].subject, 0, 0.0, 0.0, 0, f"set-up: {error}"))
    shutil.rmtree(folder)
    say(f"  {row}: {time.monotonic() - begin:.0f} s in all")


def _compete(bench: Bench, row: str, folder: Path) -> None:
    if row in BY_KILLS:
        BY_KILLS[row](bench, row, folder)
    else:
        with IN_TURNS[row](bench, folder) as contenders:
            take_turns(bench, row, folder, contenders)


def _machine(tools: Tools, rounds: int) -> dict[str, object]:
    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "type": "machine",
        "date": dt.datetime.now(tz=dt.timezone.utc).strftime("%Y-%m-%d"),
        "cpu": cpus[0].partition(":")[2].strip() if cpus else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": f"{memory / 2**30:.0f} GiB",
        "kernel": ".".join(platform.release().split(".")[:2]),
        "rounds": rounds,
        "versions": tools.versions,
    }


def _results() -> list[Path]:
    return sorted(RESULTS.glob("*.full.jsonl"))


def _conclude(path: Path, *, docs: bool) -> None:
    session = report.read(path.read_text("utf-8").splitlines())
    say(f"\n{goals_table(verdicts(ROWS, session.runs))}\n\nresults: {path}")
    if docs:
        report.write(_results())
        say(f"written: {report.DOCS / 'performance.md'}")


if __name__ == "__main__":
    sys.exit(main())
