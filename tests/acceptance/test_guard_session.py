"""Whole sessions for real: the training script of `docs/guard.md`, a slow mirror, and the end of it all."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labsync.mirrors.directory import DirectoryMirror
from tests.fakes.box import Box
from tests.fakes.live import LIMIT, assert_sound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOCS = (Path(__file__).parents[2] / "docs" / "guard.md").read_text("utf-8")
(TRAINING,) = re.findall(r"^```python\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
MANIFEST = """
version: 1
project: training
mirror: ../mirror
checkpoints:
  tuned: {path: checkpoints/tuned}
results:
  runs: {path: logs}
"""


class Session:
    """A box with the training script, a log of it, and a guard."""

    def __init__(self, root: Path) -> None:
        self.box = Box(root, MANIFEST)
        self.box.write("train.py", TRAINING.encode())
        self.trainer: subprocess.Popen[bytes] | None = None

    def train(self) -> subprocess.Popen[bytes]:
        self.log.parent.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self.trainer = subprocess.Popen(
                [sys.executable, "train.py"],
                cwd=self.box.root,
                env={**os.environ, **self.box.env, "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
            )
        return self.trainer

    @property
    def log(self) -> Path:
        return self.box.root / "logs/train.log"

    def guard(self, *args: str) -> int:
        started = self.box.labsync("guard", "start", "--bwlimit", "6MiB", *args)
        assert started.code == 0, started.messages
        pid: int = started.lines[1]["pid"]
        return pid

    def epochs(self) -> list[int]:
        """Return the epochs that the trainer has told of."""
        log = self.log.read_text() if self.log.exists() else ""
        return [int(number) for number in re.findall(r"^epoch (\d+):", log, re.MULTILINE)]

    def journal(self) -> list[dict[str, Any]]:
        path = self.box.root / ".labsync/guard/labsync.journal.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def claimed(self) -> dict[str, str]:
        """Return what the journal said last to be safe."""
        told = [event["safe"] for event in self.journal() if "safe" in event]
        return {safe["artifact"]: safe["snapshot"] for safe in told[-1]} if told else {}

    def cut_off(self, guard: int) -> None:
        """End everything at once, as a platform does."""
        assert self.trainer is not None
        os.kill(guard, signal.SIGKILL)
        self.trainer.kill()
        self.trainer.wait()

    def clean(self) -> None:
        if self.trainer is not None:
            self.trainer.kill()
            self.trainer.wait()
        guard = self.box.labsync("guard", "status").lines[1]
        if guard["state"] == "running":
            os.kill(guard["pid"], signal.SIGKILL)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], Session]]:
    made: list[Session] = []

    def session(name: str) -> Session:
        made.append(Session(tmp_path / name))
        return made[-1]

    yield session
    for each in made:
        each.clean()


def wait_until(happened: Callable[[], bool], what: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT
    while not happened():
        assert time.monotonic() < end, what()
        time.sleep(0.02)


def snapshots(mirror: Path, artifact: str) -> list[str]:
    """Return the snapshots of an artifact in the mirror, the newest first."""
    opened = DirectoryMirror(mirror)
    found = []
    for name in opened.heads():
        index_id = opened.head(name).index if name.artifact == artifact and not name.label else ""
        while index_id:
            index = opened.index(index_id)
            found.append(index.snapshot.id)
            index_id = index.parent
    return found


def checkpoint(box: Box) -> dict[str, Any]:
    """Return the one checkpoint that a fresh box got; it loads, and is what its name says."""
    import torch

    (folder,) = (box.root / "checkpoints/tuned").iterdir()
    state: dict[str, Any] = torch.load(folder / "checkpoint.pth", weights_only=True)
    assert folder.name == f"epoch-{state['epoch']:04}"
    return state


@pytest.mark.fault(8, 10)
def test_cut_off_without_a_word_and_resumed_on_a_new_box(
    make: Callable[[str], Session], tmp_path: Path
) -> None:
    first = make("first")
    guard = first.guard("--remaining", "1h", "--interval", "1s")
    first.train()
    wait_until(lambda: len(snapshots(tmp_path / "mirror", "checkpoints/tuned")) >= 3, first.journal)
    first.cut_off(guard)
    claimed, epochs = first.claimed(), first.epochs()
    told = {line["type"]: line for line in first.box.labsync("status").lines}
    assert told["guard_status"]["state"] == "died"
    assert told["last_session"]["reason"] == ""
    shutil.rmtree(first.box.root / "checkpoints")

    # What was claimed is there, and at most one push is newer than the claim.
    assert_sound(tmp_path / "mirror")
    for artifact, snapshot in claimed.items():
        assert snapshot in snapshots(tmp_path / "mirror", artifact)[:2]

    second = make("second")
    assert second.box.labsync("up", "--interval", "1s").code in {0, 4}
    saved = checkpoint(second.box)["epoch"]
    assert saved in epochs
    told_then = len(second.epochs())
    second.train()
    wait_until(lambda: len(second.epochs()) > told_then, second.epochs)
    assert second.epochs()[told_then] == saved + 1


@pytest.mark.fault(9)
def test_a_known_deadline_loses_nothing(make: Callable[[str], Session], tmp_path: Path) -> None:
    session = make("session")
    trainer = session.train()
    wait_until(lambda: len(session.epochs()) > 1, session.epochs)
    session.guard("--remaining", "12s", "--interval", "1s")
    assert trainer.wait(LIMIT) == 0  # `should_stop` said so
    wait_until(lambda: session.journal()[-1]["event"] == "end", session.journal)
    end = session.journal()[-1]
    assert end["exit_code"] == 15
    for safe in end["safe"]:  # the claim is the mirror's newest
        assert safe["snapshot"] == snapshots(tmp_path / "mirror", safe["artifact"])[0]
    fresh = make("fresh")
    assert fresh.box.labsync("pull").code == 0
    saved, trained = checkpoint(fresh.box)["epoch"], session.epochs()
    assert fresh.epochs() == trained[: len(fresh.epochs())]
    unsafe = {waiting["path"] for waiting in end["waiting"]}
    # A second is little on a busy machine: what did not arrive in time is not lost in silence.
    assert saved == trained[-1] or f"epoch-{trained[-1]:04}" in unsafe
