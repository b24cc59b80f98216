"""A session of hours within a moment: a clock that only moves when somebody waits or sends, a trainer that
writes as the clock moves, and a mirror that takes its time."""

from __future__ import annotations

import contextlib
import heapq
import io
import itertools
import json
import os
import random
import shutil
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.digest import sha256_bytes
from labsync.events import ignore
from labsync.guard.ending import Ending
from labsync.guard.loop import Guard, Round
from labsync.guard.phases import default_interval
from labsync.manifest.parse import load_manifest
from labsync.manifest.select import Selection
from labsync.mirrors.memory import MemoryMirror
from labsync.session.deadline import Deadline
from labsync.settings import Options
from labsync.steps.guarding import Project
from labsync.steps.lab import Lab
from labsync.steps.pull import pull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from labsync.errors import ExitCode
    from labsync.guard.phases import Phase
    from labsync.manifest.model import Manifest
    from labsync.mirrors.base import Advance, Mirror
    from labsync.places import Content, UploadJournal

WALL = 1_700_000_000.0
BLOCK = 1 << 17
MANIFEST = """
version: 1
project: sim
mirror: ../mirror
results:
  runs: {path: outputs}
checkpoints:
  tuned: {path: tuned}
"""


class Killed(BaseException):
    """SIGKILL: nothing of the guard runs any more."""


class VirtualClock:
    """A `guard.loop.Clock` on which other things happen, too."""

    def __init__(self) -> None:
        self.time = 1000.0
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._alarms: list[tuple[Callable[[], float], Callable[[], None]]] = []

    def now(self) -> float:
        return self.time

    def wait(self, seconds: float) -> None:
        self.advance(max(seconds, 0.01))

    def at(self, when: float, do: Callable[[], object]) -> None:
        heapq.heappush(self._events, (when, next(self._order), do))

    def advance(self, seconds: float) -> None:
        target = self.time + seconds
        while self._events and self._events[0][0] <= target:
            when, _, do = heapq.heappop(self._events)
            self._move(when)
            do()
        self._move(target)

    def _move(self, to: float) -> None:
        self.time = max(self.time, to)
        for alarm in list(self._alarms):
            if alarm[0]() <= self.time:
                self._alarms.remove(alarm)
                alarm[1]()

    @contextlib.contextmanager
    def alarm(self, at: Callable[[], float], ring: Callable[[], None]) -> Iterator[None]:
        alarm = (at, ring)
        self._alarms.append(alarm)
        try:
            yield
        finally:
            with contextlib.suppress(ValueError):
                self._alarms.remove(alarm)


class SlowMirror(MemoryMirror):
    """Takes `rate` bytes per second of the virtual clock."""

    def __init__(self, clock: VirtualClock, rate: float) -> None:
        super().__init__()
        self.clock, self.rate = clock, rate
        self.puts = 0

    def write(self, key: str, content: Content, advance: Advance, journal: UploadJournal) -> None:
        self.puts += 1
        with contextlib.closing(content.blocks(BLOCK)) as blocks:
            for block in blocks:
                self.clock.advance(len(block) / self.rate)
                advance(0)
        super().write(key, content, advance, journal)


class SimLab(Lab):
    """A lab with a mirror of the test's own."""

    def __init__(self, manifest: Manifest, options: Options, mirror: MemoryMirror) -> None:
        super().__init__(manifest, options, ignore)
        self._mirror = mirror

    @cached_property
    def mirror(self) -> Mirror:
        return self._mirror


@dataclass
class Chronicle:
    """What the guard told, with the time at which it did."""

    clock: VirtualClock
    phases: list[tuple[float, Phase]] = field(default_factory=list)
    rounds: list[tuple[float, Round]] = field(default_factory=list)
    end: tuple[float, str, ExitCode] | None = None
    claimed: Round = field(default_factory=Round)

    def entered(self, phase: Phase, ending: Ending) -> None:
        self.phases.append((self.clock.time, phase))

    def did(self, phase: Phase, done: Round, next_push: float) -> None:
        self.rounds.append((self.clock.time, done))
        if done.pushed:
            self.claimed = done

    def ended(self, reason: str, exit_code: ExitCode, last: Round) -> None:
        self.end = (self.clock.time, reason, exit_code)
        self.claimed = last


class Disk:
    """A box's disk, and the guard on it."""

    def __init__(self, root: Path, mirror: SlowMirror) -> None:
        self.root, self.mirror = root, mirror
        root.mkdir(parents=True)
        (root / "labsync.yaml").write_text(MANIFEST, "utf-8")
        self.manifest = load_manifest(root / "labsync.yaml")

    def open_lab(self, options: Options) -> Lab:
        return SimLab(self.manifest, options, self.mirror)

    def guard(self, ending: Ending, interval: float = 0.0) -> tuple[Guard, Chronicle]:
        clock = self.mirror.clock
        chronicle = Chronicle(clock)
        project = Project(self.open_lab, Options(jobs=1, yes=True, env={}), clock.now)
        project.sweep()
        span = ending.deadline.left(clock.now())
        every = interval or default_interval(span)
        return Guard(project, clock, ending, chronicle, lambda: every), chronicle

    def pull(self) -> None:
        lab = self.open_lab(Options(jobs=1, env={}))
        pulled = pull(lab, [Selection(artifact) for artifact in self.manifest.artifacts])
        assert not pulled.errors, pulled.errors
        lab.state.close()

    def throw_away(self) -> None:
        shutil.rmtree(self.root)


def torch_like(data: bytes) -> bytes:
    """Return what torch.save would write, in small: a zip file with the data."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return file.getvalue()


Files = dict[str, bytes]


@dataclass
class Trainer:
    """Writes checkpoints and results as the clock moves; `finished` are all contents that were complete.

    `style` is how: `trainer` (a folder file by file, its rule's file last), `plain` (the same without
    a rule), `saving` (a folder that appears whole) or `inplace` (one file, written again and again).
    """

    root: Path
    clock: VirtualClock
    rng: random.Random
    style: str
    every: float
    size: int
    keep: int = 2
    step: int = 0
    finished: list[tuple[float, Files]] = field(default_factory=list)
    results: dict[str, list[bytes]] = field(default_factory=dict)
    stopped: bool = False

    def start(self) -> None:
        self.clock.at(self.clock.time + self.rng.uniform(0.1, 1) * self.every, self._checkpoint)
        self.clock.at(self.clock.time + 3, self._log)
        self.clock.at(self.clock.time + 7, self._metrics)

    def _checkpoint(self) -> None:
        if self.stopped:
            return
        self.step += 1
        step = self.step
        weights = torch_like(self.rng.randbytes(self.size))
        if self.style == "inplace":
            files = {"checkpoint.pth": weights}
        else:
            state = json.dumps({"step": step}).encode()
            unit = f"checkpoint-{step}" if self.style == "trainer" else f"epoch-{step}"
            files = {f"{unit}/model.pth": weights, f"{unit}/optimizer.pth": weights[::-1][:200] + state}
            if self.style == "trainer":
                files[f"{unit}/trainer_state.json"] = state
        self._write_slowly(files, step)
        self.clock.at(self.clock.time + self.every * self.rng.uniform(0.7, 1.3), self._checkpoint)

    def _write_slowly(self, files: Files, step: int) -> None:
        """Write the files one after the other, each in two halves, as the clock moves on."""
        if self.style == "saving":
            from labsync.session import saving

            folder = next(iter(files)).partition("/")[0]
            with saving(self.root / "tuned" / folder) as staged:
                for path, data in files.items():
                    (staged / path.partition("/")[2]).write_bytes(data)
            self._done(files, step)
            return
        gap = (
            self.rng.uniform(0.05, 0.5) if self.style != "trainer" else self.rng.uniform(0.1, self.every / 8)
        )
        when = self.clock.time
        for path, data in files.items():
            half = len(data) // 2
            self.clock.at(when, lambda p=path, d=data[:half]: self._put(f"tuned/{p}", d, "wb"))  # type: ignore[misc]
            self.clock.at(when + gap / 2, lambda p=path, d=data[half:]: self._put(f"tuned/{p}", d, "ab"))  # type: ignore[misc]
            when += gap
        self.clock.at(when, lambda: self._done(files, step))

    def _put(self, path: str, data: bytes, mode: str) -> None:
        if self.stopped:
            return
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open(mode) as file:
            file.write(data)
        os.utime(target, (WALL + self.clock.time, WALL + self.clock.time))

    def _done(self, files: Files, step: int) -> None:
        if self.stopped:
            return
        self.finished.append((self.clock.time, files))
        if self.style != "inplace" and step > self.keep:
            prefix = "checkpoint" if self.style == "trainer" else "epoch"
            shutil.rmtree(self.root / "tuned" / f"{prefix}-{step - self.keep}", ignore_errors=True)

    def _log(self) -> None:
        if self.stopped:
            return
        line = f"{self.clock.time:.1f} loss {self.rng.random()}\n".encode()
        self.results.setdefault("log.txt", [b""])[0] += line
        self._put("outputs/log.txt", line, "ab")
        self.clock.at(self.clock.time + self.rng.uniform(0.5, 20), self._log)

    def _metrics(self) -> None:
        """Write a file anew, rename one or delete one."""
        if self.stopped:
            return
        name = f"m{self.rng.randrange(4)}.json"
        target = self.root / "outputs" / name
        what = self.rng.random()
        if what < 0.1 and target.exists():
            target.unlink()
        elif what < 0.2 and target.exists():
            renamed = f"r{self.step}-{name}"
            target.rename(self.root / "outputs" / renamed)
            self.results.setdefault(renamed, []).extend(self.results[name])
        else:
            data = json.dumps({"at": self.clock.time, "x": self.rng.random()}).encode()
            self.results.setdefault(name, []).append(data)
            self._put(f"outputs/{name}", data, "wb")
        self.clock.at(self.clock.time + self.rng.uniform(5, self.every), self._metrics)


def tree(folder: Path) -> Files:
    """Return the files below a folder, without labsync's own."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith(".labsync")
    }


def assert_mirror_is_sound(mirror: SlowMirror) -> None:
    """Assert that each head names a snapshot all of whose bytes are there."""
    for name in mirror.heads():
        head = mirror.head(name)
        index = mirror.index(head.index)
        assert index.snapshot.id == head.snapshot
        for located in index.files:
            assert sha256_bytes(mirror.objects[located.key]) == located.entry.sha256


def deadline(clock: VirtualClock, span: float) -> Ending:
    """Return an end in `span` seconds."""
    return Ending(Deadline(clock.time + span, "the test"), clock.time)
