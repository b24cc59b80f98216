"""Fifty sessions on a virtual clock: a trainer writes, guards are killed, the box is cut off, and what
the mirror then has is whole, is what the journal claimed, and is as new as it can be."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from labsync.errors import ExitCode
from labsync.guard.phases import Phase, rhythm
from tests.fakes.virtual_session import (
    Chronicle,
    Disk,
    Killed,
    SlowMirror,
    Trainer,
    VirtualClock,
    assert_mirror_is_sound,
    deadline,
    tree,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from labsync.guard.ending import Ending

STYLES = ("trainer", "plain", "saving", "inplace")


def _killed() -> None:
    raise Killed


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Path]:
    """Return a folder in memory where the machine has one: every state is written durably."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the look for writers below `/proc`: the trainer holds nothing open between two instants."""
    for module in ("watching", "settled"):
        monkeypatch.setattr(f"labsync.steps.{module}.held_open", lambda paths: {})


@pytest.mark.fault(8, 9, 10, 36, 37)
@pytest.mark.parametrize("seed", range(50))
def test_a_session(fast: Path, seed: int) -> None:
    rng = random.Random(seed)
    span = rng.choice([180, 600, 1800, 7200])
    clock = VirtualClock()
    every = span / rng.uniform(10, 30)
    size = rng.randrange(1 << 20, 3 << 19)
    mirror = SlowMirror(clock, rate=size / (every * rng.uniform(0.1, 0.9)))
    disk = Disk(fast / "box", mirror)
    trainer = Trainer(disk.root, clock, rng, STYLES[seed % 4], every, size)
    trainer.start()
    ending = deadline(clock, span)
    kills = sorted(clock.time + rng.uniform(0, span) for _ in range(rng.randrange(3)))
    for at in kills:
        clock.at(at, _killed)
    is_cut_off = rng.random() < 0.3
    end = ending.deadline.at - (rng.uniform(0, span / 3) if is_cut_off else 0)
    if is_cut_off:  # earlier than anybody thought
        clock.at(end, _killed)
    chronicle = _cut_off(disk, clock, ending, end)
    trainer.stopped = True
    disk.throw_away()

    assert_mirror_is_sound(mirror)
    fresh = Disk(fast / "fresh", mirror)
    fresh.pull()
    _assert_not_torn(fresh, trainer)
    _assert_claims_hold(mirror, chronicle)
    if not is_cut_off and not any(at > end - span / 3 for at in kills):
        assert chronicle.end is not None
        assert chronicle.end[2] is ExitCode.DEADLINE
        _assert_as_new_as_can_be(fresh, trainer, ending, mirror)


def _cut_off(disk: Disk, clock: VirtualClock, ending: Ending, end: float) -> Chronicle:
    last = Chronicle(clock)
    while clock.time < end:
        guard, chronicle = disk.guard(ending)
        if last.claimed.safe:
            chronicle.claimed = last.claimed  # as the journal on the disk keeps it
        last = chronicle
        try:
            guard.run()
        except Killed:
            if clock.time < end:
                clock.advance(min(end - clock.time, 5.0))
            continue
        break
    return last


def _assert_not_torn(fresh: Disk, trainer: Trainer) -> None:
    found = tree(fresh.root / "tuned") if (fresh.root / "tuned").exists() else {}
    assert not found or found in [files for _, files in trainer.finished]
    outputs = tree(fresh.root / "outputs") if (fresh.root / "outputs").exists() else {}
    for path, data in outputs.items():
        if path == "log.txt":
            assert trainer.results[path][0].startswith(data)
        else:
            assert data in trainer.results[path], path


def _assert_claims_hold(mirror: SlowMirror, chronicle: Chronicle) -> None:
    """Assert that what was said to be safe is; after a guard's own end it is all that there is."""
    history: dict[str, list[str]] = {}
    for name in mirror.heads():
        index_id = mirror.head(name).index
        while index_id:
            index = mirror.index(index_id)
            history.setdefault(str(name.artifact), []).append(index.snapshot.id)
            index_id = index.parent
    for safe in chronicle.claimed.safe:
        assert safe.snapshot in history[safe.artifact]
        if chronicle.end is not None:
            assert safe.snapshot == history[safe.artifact][0]


def _assert_as_new_as_can_be(fresh: Disk, trainer: Trainer, ending: Ending, mirror: SlowMirror) -> None:
    """Assert that no checkpoint which could have been brought to safety is newer than the mirror's."""
    windows = ending.windows
    beat = rhythm(Phase.FREEZE, windows, windows.freeze)
    slack = 2 * trainer.size / mirror.rate + 2 * beat.interval + 2 * beat.settle
    in_time = [files for at, files in trainer.finished if at < ending.stop_at - 2 * slack]
    found = tree(fresh.root / "tuned")
    steps = [files for _, files in trainer.finished]
    assert not in_time or steps.index(found) >= len(in_time) - 1
