"""Run the contenders of a workload in turns, and write down what each run cost."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.data import WrongResultError, remove, size_of
from benchmarks.measure import measure
from benchmarks.tables import Run

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.measure import Command, Measured
    from benchmarks.tools import Tools

ROOT = Path(__file__).parent.parent
TRASH = 1 << 30  # bytes of finished runs that may wait on the RAM disk for the end of the round
FOREIGN = ("AWS_", "HF_", "HUGGING", "LABSYNC_", "PYTHON", "RCLONE_", "S3_")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each workload moves; the small ones only show that everything works."""

    one: int = 2 << 30
    many: int = 10_000
    nothing: tuple[int, int] = (10_000, 100_000)
    growth: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    kills: int = 5
    room: int = 9 << 30


QUICK = Sizes(64 << 20, 300, (300, 1000), (300, 1000, 3000), 2, 1 << 30)


@dataclass(frozen=True, slots=True)
class Told:
    """What a contender says about its own run."""

    requests: int
    moved: int


@dataclass(frozen=True, slots=True)
class Job:
    """One run, ready to start; `made` is where it leaves what it made.

    `check` looks at that afterwards: it raises WrongResultError, or returns what the contender tells,
    None when it tells nothing.
    """

    command: Command
    made: tuple[Path, ...]
    check: Callable[[Measured], Told | None]


@dataclass(frozen=True, slots=True)
class Contender:
    """One who takes part in a workload; `prepare` sets a run up in a new folder, outside of the timing."""

    name: str
    prepare: Callable[[Path], Job]


@dataclass(frozen=True)
class Bench:
    """What all workloads share: tools, the folder on the RAM disk, sizes, the file of results."""

    tools: Tools
    work: Path
    sizes: Sizes
    rounds: int
    results: Path
    dice: random.Random

    @property
    def env(self) -> dict[str, str]:
        """The environment of every command: nobody's settings, a home of its own."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        home = self.work / "home"
        home.mkdir(exist_ok=True)
        folders = {"HOME": home, "LABSYNC_HOME": home / "labsync", "XDG_CACHE_HOME": home / "cache"}
        return {**kept, **{name: str(path) for name, path in folders.items()}, "NO_COLOR": "1"}

    def write(self, record: Mapping[str, object]) -> None:
        """Add a line to the results."""
        with self.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def record(self, run: Run) -> None:
        """Add a run to the results, and say how it went."""
        self.write({"type": "run", **asdict(run)})
        more = f"  {run.requests} requests" if run.requests is not None else ""
        more += f"  {run.resent / 2**20:.1f} MiB sent twice" if run.resent is not None else ""
        say(
            f"  {run.row:13}{run.round:>2}  {run.contender:32}{run.wall:8.2f} s  cpu {run.cpu:7.2f} s  "
            f"rss {run.rss / 2**20:6.0f} MiB{more}{'  FAILED: ' + run.failed if run.failed else ''}"
        )


def say(text: str) -> None:
    """Tell the person who waits."""
    sys.stderr.write(text + "\n")


def take_turns(bench: Bench, row: str, folder: Path, contenders: Sequence[Contender]) -> None:
    """Run all rounds; who begins changes with each."""
    trash: list[Path] = []
    for number in range(bench.rounds):
        first = number % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            place = folder / f"{number}-{re.sub('[^a-z0-9]+', '-', contender.name)}"
            place.mkdir()
            job = contender.prepare(place)
            if number == 0:
                describe(bench, row, contender, job)
            bench.record(cost(row, contender.name, number, job, measure(job.command)))
            trash += [*job.made, place]
            if sum(size_of(path)[1] for path in trash) > TRASH:
                empty(trash)
        empty(trash)


def cost(row: str, name: str, number: int, job: Job, measured: Measured) -> Run:
    """Return a run as the results have it, after a look at what it made."""
    told, failed = None, ""
    try:
        if measured.code:
            raise WrongResultError(f"exit {measured.code}: {_last_words(measured)}")
        told = job.check(measured)
    except WrongResultError as error:
        failed = str(error)
    run = Run(row, name, number, measured.wall, measured.cpu, measured.rss, failed)
    return replace(run, requests=told.requests, moved=told.moved) if told else run


def _last_words(measured: Measured) -> str:
    return " | ".join((measured.stderr.strip() or measured.stdout.strip()).splitlines()[-3:])[-300:]


def describe(bench: Bench, row: str, contender: Contender, job: Job) -> None:
    """Write down the command as a person would type it."""
    text = shlex.join(job.command.argv)
    for name in ("labsync", "hf", "python", "s5cmd", "rclone", "aws"):
        text = text.replace(getattr(bench.tools, name) + " ", f"{name} ")
    for folder in (bench.work, ROOT):
        text = text.replace(f"{folder}/", "")
    text = re.sub(r"http://127\.0\.0\.1:\d+", "URL", text)
    bench.write({"type": "command", "row": row, "contender": contender.name, "text": text})


def empty(trash: list[Path]) -> None:
    """Remove what finished runs left."""
    for path in trash:
        remove(path)
    trash.clear()


def room_for(folder: Path) -> int:
    """Return how much the RAM disk can still take: its own limit, and the memory that is left."""
    free = shutil.disk_usage(folder).free
    with open("/proc/meminfo", encoding="ascii") as file:
        lines = dict(line.split(":", 1) for line in file)
    return min(free, int(lines["MemAvailable"].split()[0]) * 1024)
