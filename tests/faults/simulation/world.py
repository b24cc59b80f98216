"""Two boxes, one mirror, an origin; people who work, machines that fail; and what must hold in the end."""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import json
import os
import shutil
import traceback
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from unittest import mock

from labsync.cli.app import run
from labsync.digest import sha256_bytes
from labsync.manifest.parse import parse_manifest
from labsync.mirrors.registry import open_mirror
from tests.fakes.box import Box, Run
from tests.fakes.effects import watched
from tests.fakes.s3 import ENV
from tests.fakes.strict_s3 import Service
from tests.fakes.strict_s3.store import Bucket
from tests.faults.simulation.disk import NUMBERS, Disk, PowerLostError, Trouble, paths
from tests.faults.simulation.fate import Fate
from tests.faults.simulation.network import Network

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    from labsync.manifest.model import Manifest
    from labsync.mirrors.base import Mirror
    from labsync.mirrors.s3_dial import Server
    from tests.fakes.effects import Step

S3 = "{url: s3://lab/p, endpoint: 'http://127.0.0.1:9', region: us-east-1}"
MANIFEST = """version: 1
project: sim
mirror: %s
datasets: {frames: {origin: "file:%s/", path: frames}}
checkpoints: {tuned: {path: tuned}}
results: {runs: {path: outputs}}
"""
FOLDERS = ("frames", "tuned", "outputs")
STEPS = 130  # about as many as a command has
# Every deliberate way to end; a bug (1), usage (2) and an invalid format (3) never are right here.
DELIBERATE = {0, 4, 5, 6, 7, 8, 9, 11, 12}


class BrokenError(AssertionError):
    """A promise was broken; says which, and the seed."""


@dataclass
class Running:
    """Which disk and network the patched edges of the process lead to just now."""

    disk: Disk | None = None
    network: Network | None = None
    clock: float = 0.0

    def step(self, step: Step, call: Callable[[], Any]) -> Any:
        return self.disk(step, call) if self.disk else call()

    def pool(self, server: Server, ca_bundle: str = "") -> Any:
        assert self.network
        return self.network.pool(server, ca_bundle)

    def wait_for(self, changed: threading.Condition, seconds: float) -> None:
        self.clock += seconds
        changed.wait(0.0)

    def now(self) -> float:
        return self.clock


@functools.cache
def _parsed(path: Path, text: str) -> Manifest:
    return parse_manifest(text, path)


def _load(path: Path) -> Manifest:
    return _parsed(path, path.read_text("utf-8"))


def _labsync(box: Box, *args: str) -> Run:
    """Run a command as `Box.labsync` does, in an environment and a folder that all commands share."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([*args, "-m", str(box.manifest), "-j", "1", "--json"])
    return Run(code, [json.loads(line) for line in out.getvalue().splitlines()], err.getvalue())


@contextlib.contextmanager
def simulated() -> Iterator[Running]:
    """Lead the edges of this process to simulated ones."""
    running = Running()
    with contextlib.ExitStack() as patches:
        for target, replacement in {
            "labsync.mirrors.s3_client.Pool": running.pool,
            "labsync.mirrors.s3_client.PAUSE": 0.0,
            "labsync.manifest.parse.load_manifest": _load,  # a third of the time is YAML, always the same
            "labsync.steps.settled.held_open": lambda paths: {},  # nobody writes here beside the simulation
            "labsync.transfer.retry.SystemClock.wait": running.wait_for,
            "labsync.transfer.retry.SystemClock.now": running.now,
        }.items():
            patches.enter_context(mock.patch(target, replacement))
        patches.enter_context(mock.patch.dict(os.environ, ENV))
        patches.enter_context(watched(running.step))
        gc.freeze()
        yield running


@dataclass
class Person:
    """A box and what its person made there; `written` is what must not be lost."""

    box: Box
    disk: Disk
    written: dict[str, bytes] = field(default_factory=dict)


class World:
    """One seed's world, in the folder `root`."""

    def __init__(self, seed: int, root: Path, running: Running) -> None:
        self.fate = Fate(seed)
        self.root = root
        self.running = running
        self.log: list[str] = []
        shutil.rmtree(root, ignore_errors=True)
        self.origin = root / "origin"
        self.service = Service()
        self.service.buckets["lab"] = Bucket()
        self.network = Network(self.service, self.fate)
        running.network, running.disk = self.network, None
        self.in_s3 = self.fate.happens("s3", 0.5)
        self.versions: dict[str, set[bytes]] = defaultdict(set)
        self.count = 0
        self._sound: object = None
        self.update_origin()
        self.people = [self._person("a"), self._person("b")]
        self.lock()

    def _person(self, name: str) -> Person:
        # A directory mirror lies on the first box's disk, and loses power with it.
        mirror = S3 if self.in_s3 else str(self.root / "a" / "mirror")
        box = Box(self.root / name / "lab", MANIFEST % (mirror, self.origin), ENV)
        return Person(box, Disk(self.root / name, self.fate))

    # What people do.

    def new_bytes(self) -> bytes:
        self.count += 1
        return b"%d %d " % (self.fate.seed, self.count) * self.fate.roll("size").choice((0, 1, 3, 400))

    def update_origin(self) -> None:
        self.origin.mkdir(parents=True, exist_ok=True)
        for name in ("a.bin", "b.bin", "sub-c.bin"):
            if self.fate.happens("origin", 0.7) or not self.versions[f"frames/{name}"]:
                data = self.new_bytes()
                (self.origin / name).write_bytes(data)
                self.versions[f"frames/{name}"].add(data)

    def write(self, person: Person, path: str) -> None:
        data = self.new_bytes()
        person.box.write(path, data)
        person.written[path] = data
        self.versions[path].add(data)
        self.log.append(f"{person.box.root.parent.name} writes {path} ({len(data)})")

    def work(self, person: Person) -> None:
        """Let a person do something."""
        what = self.fate.choose("work", ("result", "result", "checkpoint", "origin", "delete"))
        if what == "result":
            for _ in range(self.fate.roll("many").randint(1, 3)):
                self.write(person, f"outputs/{self.fate.choose('name', ('x.json', 'y.json', 'sub/z.log'))}")
        elif what == "checkpoint":
            step = f"tuned/step-{self.count:03}-{person.box.root.parent.name}"
            self.write(person, f"{step}/model.bin")
            self.write(person, f"{step}/trainer_state.json")
        elif what == "origin":
            self.update_origin()
            self.lock()
        else:
            gone = sorted(path for path in person.written if path.startswith("outputs/"))[:1]
            for path in gone:
                (person.box.root / path).unlink(missing_ok=True)
                del person.written[path]

    def lock(self) -> None:
        """Lock what the origin has now, on the first box; the other one gets the lock by git."""
        first, second = self.people
        self.expect(self.command(first, "lock", "--upgrade"), {0})
        second.box.write("labsync.lock", first.box.read("labsync.lock"))

    def trouble(self) -> Trouble:
        kind = self.fate.choose("trouble", ("power", "power", "power", "error", "network", "none"))
        at = self.fate.roll("when").randint(1, STEPS)
        self.network.trouble = 0.15 if kind == "network" and self.in_s3 else 0.0
        if kind == "power":
            return Trouble(power=at)
        if kind == "error":
            return Trouble(error=at, number=self.fate.choose("number", NUMBERS))
        return Trouble()

    # What labsync does.

    def command(self, person: Person, *args: str, trouble: Trouble | None = None) -> Run | None:
        """Run a command; None when the power was lost in it. Afterwards every promise is looked at."""
        person.disk.begin(trouble or Trouble())
        self.running.disk = person.disk
        try:
            run: Run | None = _labsync(person.box, *args)
        except PowerLostError:
            run = None
        finally:
            self.running.disk = None
        name = person.box.root.parent.name
        if person.disk.lost:
            run = None
            gc.collect()  # what the dead command holds of sqlite would tidy up by name when it is freed
            person.disk.come_back()
        self.log.append(f"{name} {' '.join(args)} {trouble or ''} -> {run.code if run else 'power lost'}")
        if run is not None and (run.code not in DELIBERATE or "Traceback" in run.stderr):
            raise self.broken(f"ends with {run.code}: {run.messages} {run.stderr[-2000:]}")
        self.look()
        return run

    def broken(self, what: str) -> BrokenError:
        return BrokenError("\n".join([f"seed {self.fate.seed}: {what}", *self.log]))

    # What must hold at any time.

    def look(self) -> None:
        trouble, self.network.trouble = self.network.trouble, 0.0
        try:
            self._look_at_mirror()
            for person in self.people:
                self._look_at_files(person)
        finally:
            self.network.trouble = trouble

    def mirror(self) -> Mirror:
        return open_mirror(_load(self.people[0].box.manifest).mirror)

    def _look_at_mirror(self) -> None:
        """Every head names a snapshot whose bytes are all there and right; no key was written twice."""
        mirror = self.mirror()
        heads = dict(mirror.heads())
        if heads == self._sound:
            return
        for name in heads:
            index = mirror.index(mirror.head(name).index)
            for located in index.files:
                data = b"".join(bytes(block) for block in mirror.read(located.ref, located.entry))
                if sha256_bytes(data) != located.entry.sha256:
                    raise self.broken(f"{name}: {located.key} has other bytes")
        self._sound = heads
        for key, history in self.service.buckets["lab"].history.items():
            is_once = not key.startswith("p/.labsync/heads/")
            if is_once and len({stored.data for stored in history}) > 1:
                raise self.broken(f"{key} was changed")

    def _look_at_files(self, person: Person) -> None:
        """Every visible file is one that somebody made, whole; what the person made is somewhere."""
        seen = set()
        for folder in FOLDERS:
            for path, file in _files(person.box.root, folder):
                with open(file, "rb") as opened:
                    data = opened.read()
                seen.add(data)
                if data not in self.versions[path]:
                    raise self.broken(f"{file} is torn: {data[:80]!r} ({len(data)})")
        lost = {path: data for path, data in person.written.items() if data not in seen}
        if lost:
            kept = {
                file.read_bytes() for file in paths(person.box.root / ".labsync/aside")
            } | self._mirrored()
            for path, data in lost.items():
                if data not in kept:
                    raise self.broken(f"{path} of {person.box.root} is lost: {data[:80]!r}")

    def _mirrored(self) -> set[bytes]:
        if self.in_s3:
            return {stored.data for stored in self.service.buckets["lab"].objects.values()}
        return {file.read_bytes() for file in paths(self.root / "a" / "mirror")}

    # What must hold in the end.

    def live(self, actions: int) -> None:
        """Let people work and machines fail."""
        for _ in range(actions):
            person = self.fate.choose("who", self.people)
            self.work(person)
            args = self.fate.choose(
                "command",
                (("push",), ("push",), ("pull",), ("pull",), ("pull", "--force"), ("mirror", "frames")),
            )
            self.command(person, *args, trouble=self.trouble())

    def settle(self) -> None:
        """Without faults both boxes end alike, with nothing left over."""
        self.network.trouble = 0.0
        for _ in range(3):
            codes = [self._exchange(person) for person in self.people]
            if codes == [0, 0]:
                break
        else:
            raise self.broken("the boxes never settle")
        first = self.people[0]  # the other one's exchange was the last
        self.expect(self.command(first, "pull"), {0})
        again = self.command(first, "pull")
        self.expect(again, {0})
        if again and any(again.transferred.values()):
            raise self.broken(f"a second pull moves {again.transferred}")
        self.expect(self.command(self.fate.choose("verify", self.people), "verify"), {0})
        self._compare()

    def _exchange(self, person: Person) -> int:
        first = self.command(person, "pull")
        second = self.command(person, "push")
        self.expect(first, {0, 4, 11})
        self.expect(second, {0, 4, 11})
        assert first
        assert second
        if first.code == second.code == 0:
            return 0
        self.expect(self.command(person, "pull", "--force"), {0})
        self.expect(self.command(person, "push", "--force"), {0})
        return 1

    def expect(self, run: Run | None, codes: set[int]) -> None:
        if run is None or run.code not in codes:
            raise self.broken(f"expected {codes}: {run and run.messages} {run and run.stderr[-500:]}")

    def _compare(self) -> None:
        first, second = (
            {
                folder: person.box.tree(folder) if (person.box.root / folder).exists() else {}
                for folder in FOLDERS
            }
            for person in self.people
        )
        for folder in ("frames", "outputs"):
            if first[folder] != second[folder]:
                raise self.broken(f"{folder} differs: {first[folder].keys()} {second[folder].keys()}")
        for person in self.people:
            left = [
                str(path)
                for path in person.box.root.rglob("*")
                if path.name.endswith((".labsync-new", ".part", ".blocks", ".link"))
            ]
            if left:
                raise self.broken(f"left over: {left}")


def _files(root: Path, folder: str) -> Iterator[tuple[str, str]]:
    """Yield the files below a folder: their paths relative to `root`, and whole."""
    for inside, _, names in os.walk(root / folder):
        for name in names:
            yield os.path.relpath(f"{inside}/{name}", root), f"{inside}/{name}"


def simulate(seed: int, root: Path, running: Running) -> None:
    """Live one seed; raises BrokenError with its history when a promise is broken."""
    world = World(seed, root, running)
    try:
        world.live(world.fate.roll("actions").randint(1, 3))
        world.settle()
    except BrokenError:
        raise
    except Exception as error:
        raise world.broken(traceback.format_exc()) from error
