"""Power is lost in front of every step of a command, and right after it: old or new, and kept what was said.

The simulator rolls dice; here three adversaries take the worst of what a disk may do.
"""

from __future__ import annotations

import gc
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.fakes.box import Box
from tests.fakes.live import assert_sound, assert_whole, parts
from tests.faults.depth import ALL
from tests.faults.simulation.disk import Disk, PowerLostError, Trouble
from tests.faults.simulation.fate import Fate
from tests.faults.simulation.world import Running, simulated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.fakes.box import Run

T = TypeVar("T")
pytestmark = pytest.mark.timeout(1200)
NEVER = 1 << 30
OLD = {"a.bin": b"old a", "sub/b.bin": b"old b" * 300, "c.bin": b"c"}
NEW = {"a.bin": b"new a, longer", "sub/b.bin": b"new b" * 300, "c.bin": b"c", "sub/deep/d.bin": b"d"}
MANIFEST = """version: 1
project: power
mirror: ../mirror
datasets: {frames: {origin: "file:../../origin/", path: frames}}
results: {runs: {path: outputs}}
"""


class Adversary(Fate):
    """Decides always alike: what becomes of names, of bytes, and how old the memory is."""

    def __init__(self, names: str, bytes_: str, memory: int) -> None:
        super().__init__(0)
        self._fixed = {"names": names, "bytes": bytes_}
        self._memory = memory

    def choose(self, subject: str, options: Sequence[T]) -> T:
        if subject in self._fixed:
            return next(option for option in options if option == self._fixed[subject])
        return options[self._memory]

    def happens(self, subject: str, probability: float) -> bool:
        return False


ADVERSARIES = (
    Adversary("all", "zeros", -1),  # names arrive before the bytes they stand for
    Adversary("none", "old", 0),  # nothing arrives that was not synced
    Adversary("all", "empty", 0),
)


@dataclass
class Bench:
    """A lab on a disk that can lose power; `root` is the disk, the origin is elsewhere."""

    root: Path
    running: Running

    @property
    def box(self) -> Box:
        return Box(self.root / "lab", MANIFEST)

    def serve(self, files: dict[str, bytes]) -> None:
        origin = self.root.parent / "origin"
        shutil.rmtree(origin, ignore_errors=True)
        for path, data in files.items():
            (origin / path).parent.mkdir(parents=True, exist_ok=True)
            (origin / path).write_bytes(data)

    def lay(self, files: dict[str, bytes]) -> None:
        shutil.rmtree(self.root / "lab/outputs", ignore_errors=True)
        for path, data in files.items():
            self.box.write(f"outputs/{path}", data)

    def run(self, *args: str) -> Run:
        run = self.box.labsync(*args, "-j", "1")
        assert run.code == 0, run.messages
        return run

    def keep(self) -> None:
        kept = self.root.with_name("kept")
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.root, kept)

    def bring_back(self) -> None:
        shutil.rmtree(self.root)
        shutil.copytree(self.root.with_name("kept"), self.root)

    def lose_power(self, fate: Fate, at: int, *args: str) -> Disk:
        """Run a command and lose power in front of its step `at`, or after its end."""
        disk = Disk(self.root, fate)
        disk.begin(Trouble(power=at))
        self.running.disk = disk
        try:
            self.run(*args)
            disk.lose_power()
        except PowerLostError:
            pass
        finally:
            self.running.disk = None
        gc.collect()
        disk.come_back()
        return disk


@pytest.fixture
def bench(fast_disk: Path, clean_environment: Path) -> Iterator[Bench]:
    root = fast_disk / "power" / "disk"
    shutil.rmtree(root.parent, ignore_errors=True)
    (root / "lab").mkdir(parents=True)
    with simulated() as running:
        yield Bench(root, running)
    shutil.rmtree(root.parent)


def prepare(bench: Bench, scene: str) -> tuple[str, ...]:
    """Bring the lab to where the command begins, and return the command."""
    bench.serve(OLD)
    bench.run("lock")
    if scene == "first pull":
        bench.keep()
        return ("pull", "frames")
    bench.run("pull", "frames")
    bench.lay(OLD)
    bench.run("push", "runs")
    if scene == "push":
        bench.lay(NEW)
    bench.serve(NEW)
    if scene in {"update", "forced"}:
        bench.run("lock", "--upgrade")
    if scene == "forced":
        bench.box.write("frames/a.bin", b"mine")
    bench.keep()
    commands = {
        "lock": ("lock", "--upgrade"),
        "push": ("push", "runs"),
        "forced": ("pull", "frames", "--force"),
    }
    return commands.get(scene, ("pull", "frames"))


def check_whole(bench: Bench, scene: str) -> None:
    mine = {"a.bin": b"mine"}
    assert_whole(bench.root / "lab/frames", OLD, NEW, mine)
    assert_sound(bench.root / "mirror")
    assert bench.box.labsync("lock", "--check").code == 0, "the lock is torn"
    if scene == "forced":
        kept = [path.read_bytes() for path in (bench.root / "lab").rglob("a.bin")]
        kept += [
            path.read_bytes() for path in (bench.root / "lab/.labsync/aside").rglob("*") if path.is_file()
        ]
        assert b"mine" in kept, "what was edited is lost"


def check_done(bench: Bench, scene: str) -> None:
    wanted = {"first pull": OLD, "update": NEW, "forced": NEW, "lock": OLD, "push": OLD}[scene]
    assert bench.box.tree("frames") == wanted
    assert_sound(bench.root / "mirror")
    assert parts(bench.box) == []
    if scene == "push":
        assert_pushed(bench)


def assert_pushed(bench: Bench) -> None:
    other = Box(bench.root / "other", MANIFEST)
    assert other.labsync("pull", "runs").code == 0
    assert other.tree("outputs") == NEW


SCENES = ("first pull", "update", "forced", "push", "lock")


@pytest.mark.fault(4)
@pytest.mark.parametrize("scene", SCENES)
def test_power_lost_at_every_step(bench: Bench, scene: str) -> None:
    command = prepare(bench, scene)
    steps = bench.lose_power(ADVERSARIES[0], NEVER, *command).steps
    assert steps > 10
    for step in range(1, steps + 1, 1 if ALL else 2):
        chosen = ADVERSARIES if ALL else ADVERSARIES[step // 2 % 3 : step // 2 % 3 + 1]
        for adversary in chosen:
            bench.bring_back()
            bench.lose_power(adversary, step, *command)
            check_whole(bench, scene)
            bench.run(*command)
            check_done(bench, scene)


@pytest.mark.fault(4)
@pytest.mark.parametrize("adversary", range(len(ADVERSARIES)))
@pytest.mark.parametrize("scene", SCENES)
def test_what_a_command_has_said_outlives_the_power(bench: Bench, scene: str, adversary: int) -> None:
    command = prepare(bench, scene)
    lock = bench.box.manifest.with_name("labsync.lock")
    bench.lose_power(ADVERSARIES[adversary], NEVER, *command)
    if scene == "lock":
        assert bench.box.labsync("lock", "--check").code == 0
        assert b"d.bin" in lock.read_bytes()
        return
    name = "results/runs" if scene == "push" else "datasets/frames"
    assert bench.box.labsync("status", name).artifacts[name]["disk"] == "ok"
    check_whole(bench, scene)
    check_done(bench, scene)
    assert not any(bench.run(*command).transferred.values())
