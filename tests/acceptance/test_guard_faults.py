"""What happens to files while the guard looks and sends: nothing torn, nothing forgotten, nothing deleted."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from labsync.disk.hashing import hash_file
from labsync.errors import ExitCode
from labsync.guard.loop import Order, Round
from labsync.guard.phases import Phase
from labsync.settings import Options
from labsync.steps.guarding import Project
from labsync.steps.push import push
from tests.fakes.virtual_session import Disk, Killed, SlowMirror, VirtualClock, deadline, torch_like, tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from labsync.mirrors.base import Index

MIB = 1 << 20
REST = 30.0


class Watched:
    """A box with a guard whose rounds the test orders one by one."""

    def __init__(self, root: Path) -> None:
        self.clock = VirtualClock()
        self.mirror = SlowMirror(self.clock, rate=MIB)
        self.disk = Disk(root / "box", self.mirror)
        self.root = self.disk.root
        self.fresh = root / "fresh"
        self.restart()

    def write(self, path: str, data: bytes, mode: str = "wb") -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open(mode) as file:
            file.write(data)
        return target

    def look(self, *, push: bool = False, seconds: float = 1e6, is_short: bool = False) -> Round:
        order = Order(push, push, seconds, REST, 600.0, is_short, threading.Event())
        return self.project.round(order)

    def rest_and_push(self) -> Round:
        """Let everything settle, then push."""
        self.look()
        self.clock.advance(REST + 1)
        return self.look(push=True)

    def restart(self) -> None:
        """Let a new guard take over that remembers nothing but what is on the disk."""
        self.project = Project(self.disk.open_lab, Options(jobs=1, yes=True, env={}), self.clock.now)

    def during_the_upload(self, do: Callable[[], object]) -> None:
        """Do something half a second after the next push has begun to send."""
        self.clock.at(self.clock.time + REST + 1.5, do)

    def restored(self) -> dict[str, bytes]:
        """Return what a new box gets."""
        shutil.rmtree(self.fresh, ignore_errors=True)
        box = Disk(self.fresh, self.mirror)
        box.pull()
        return {f"{name}/{p}": d for name in ("outputs", "tuned") if (self.fresh / name).exists()
                for p, d in tree(self.fresh / name).items()}  # fmt: skip


@pytest.fixture
def box(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def waits(done: Round) -> dict[str, str]:
    return {waiting.path: waiting.reason for waiting in done.waiting}


def codes(done: Round) -> list[int]:
    return [error.code for error in done.errors]


BIG = torch_like(os.urandom(2 * MIB))


def model(number: int) -> bytes:
    return torch_like(bytes([number]) * (2 * MIB))


def test_a_result_is_pushed_once_it_has_rested(box: Watched) -> None:
    box.write("outputs/a.json", b"{}")
    first = box.look(push=True)
    assert waits(first) == {"a.json": "it changed a moment ago"}
    assert box.restored() == {}
    box.clock.advance(REST)
    second = box.look(push=True)
    assert (waits(second), codes(second)) == ({}, [])
    assert box.restored() == {"outputs/a.json": b"{}"}
    assert [(safe.artifact, safe.files) for safe in second.safe] == [("results/runs", 1)]


@pytest.mark.fault(32)
def test_rewritten_in_place_while_it_is_sent(box: Watched) -> None:
    """A link shares the bytes: the upload notices, nothing is published, and then a copy is sent."""
    target = box.write("tuned/last/model.pth", BIG)
    box.during_the_upload(lambda: target.write_bytes(torch_like(b"new" * MIB)))
    done = box.rest_and_push()
    assert waits(done) == {"last": "it was written again while it was sent"}
    assert (done.again, done.safe, codes(done)) == (True, (), [])
    newest = torch_like(os.urandom(2 * MIB))
    target.write_bytes(newest)
    box.during_the_upload(lambda: target.write_bytes(BIG))
    done = box.rest_and_push()
    assert len(done.safe) == 1
    assert box.restored() == {"tuned/last/model.pth": newest}


@pytest.mark.fault(33)
def test_grown_while_it_is_sent(box: Watched) -> None:
    line = b"a line of the log\n" * 100_000
    box.write("outputs/log.txt", line)
    box.during_the_upload(lambda: box.write("outputs/log.txt", b"more\n", "ab"))
    first = box.rest_and_push()
    assert waits(first) == {"log.txt": "it was written again while it was sent"}
    box.write("outputs/log.txt", b"and more\n", "ab")
    box.look()
    box.clock.advance(1)
    box.write("outputs/log.txt", b"even more\n", "ab")
    box.look()
    box.clock.at(box.clock.time + 0.5, lambda: box.write("outputs/log.txt", b"now\n", "ab"))
    box.look(push=True)
    assert box.restored()["outputs/log.txt"] == line + b"more\nand more\neven more\n"


@pytest.mark.fault(33)
def test_a_log_that_is_held_open_is_pushed_as_far_as_it_goes(box: Watched) -> None:
    target = box.write("outputs/log.txt", b"1\n")
    with target.open("ab", buffering=0) as log:
        log.write(b"2\n")
        done = box.look(push=True)
        assert waits(done)["log.txt"].startswith(f"process {os.getpid()} has it open")
        box.clock.advance(1)
        log.write(b"3\n")
        assert waits(box.look(push=True)) == {}
        assert box.restored() == {"outputs/log.txt": b"1\n2\n3\n"}
        assert box.look(push=True).sent == 0  # nothing new: nothing is sent again
        log.write(b"4\n")
        box.look(push=True)
    assert box.restored() == {"outputs/log.txt": b"1\n2\n3\n4\n"}


@pytest.mark.fault(33)
def test_a_log_that_was_begun_anew_is_no_longer_one_that_grows(box: Watched) -> None:
    target = box.write("outputs/log.txt", b"first run\n" * 10)
    box.rest_and_push()
    with target.open("r+b", buffering=0) as log:
        log.truncate(0)
        log.write(b"second run, which is longer than the first one was\n" * 10)
        box.look(push=True)
        box.clock.advance(1)
        done = box.look(push=True)
        assert "log.txt" in waits(done)
        assert box.restored()["outputs/log.txt"] == b"first run\n" * 10
    box.rest_and_push()
    assert box.restored()["outputs/log.txt"].startswith(b"second run")


@pytest.mark.fault(34)
def test_truncated_while_it_is_sent(box: Watched) -> None:
    target = box.write("outputs/big.bin2", bytes(3 * MIB))
    box.during_the_upload(lambda: os.truncate(target, MIB))
    begin = box.clock.time
    done = box.rest_and_push()
    assert waits(done) == {"big.bin2": "it was written again while it was sent"}
    assert box.clock.time - begin < REST + 10  # seen at once, by no server's timeout
    assert box.restored() == {}


@pytest.mark.fault(35)
def test_deleted_while_it_is_sent(box: Watched) -> None:
    box.write("outputs/stays", b"s")
    box.rest_and_push()
    target = box.write("outputs/gone", bytes(3 * MIB))
    box.during_the_upload(target.unlink)
    done = box.rest_and_push()
    assert codes(done) == []
    # It was held fast, so it arrived; and what is gone here is never deleted there.
    assert set(box.restored()) == {"outputs/stays", "outputs/gone"}
    assert codes(box.rest_and_push()) == []
    assert set(box.restored()) == {"outputs/stays", "outputs/gone"}


@pytest.mark.fault(35)
def test_renamed_while_it_is_sent(box: Watched) -> None:
    target = box.write("outputs/old", bytes(3 * MIB))
    box.during_the_upload(lambda: target.rename(target.with_name("new")))
    first = box.rest_and_push()  # a rename looks like a write: nothing is published
    assert (codes(first), first.again) == ([], True)
    assert waits(box.rest_and_push()) == {}
    assert box.restored() == {"outputs/new": bytes(3 * MIB)}


@pytest.mark.fault(37)
def test_rotation_in_the_middle_of_an_upload(box: Watched) -> None:
    box.write("tuned/step-1/model.pth", BIG)
    box.write("tuned/step-1/state.json", b"{}")
    box.during_the_upload(lambda: shutil.rmtree(box.root / "tuned/step-1"))
    done = box.rest_and_push()
    assert (codes(done), len(done.safe)) == ([], 1)
    assert box.restored() == {"tuned/step-1/model.pth": BIG, "tuned/step-1/state.json": b"{}"}


@pytest.mark.fault(36)
def test_a_checkpoint_that_gets_another_file_while_it_is_taken_waits(
    box: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.write("tuned/step-1/model.pth", BIG)

    def meanwhile(path: str, key: str) -> object:
        box.write("tuned/step-1/optimizer.pth", BIG)
        return hash_file(path, key)

    with monkeypatch.context() as patched:
        patched.setattr("labsync.disk.pins.hash_file", meanwhile)
        done = box.rest_and_push()
    assert waits(done) == {"step-1": "files of it came or went while it was looked at"}
    assert box.restored() == {}
    box.rest_and_push()
    assert set(box.restored()) == {"tuned/step-1/model.pth", "tuned/step-1/optimizer.pth"}


@pytest.mark.fault(36)
def test_a_folder_half_written_for_minutes(box: Watched) -> None:
    box.write("tuned/checkpoint-5/model.pth", BIG)
    for _ in range(20):
        done = box.rest_and_push()
        assert waits(done) == {"checkpoint-5": "the checkpoint is not finished"}
    assert box.restored() == {}
    box.write("tuned/checkpoint-5/trainer_state.json", b"{}")
    box.look(push=True)  # its rule replaces the waiting
    assert set(box.restored()) == {"tuned/checkpoint-5/model.pth", "tuned/checkpoint-5/trainer_state.json"}


@pytest.mark.fault(36)
def test_a_file_whose_format_says_that_more_must_come(box: Watched) -> None:
    box.write("tuned/last/model.pth", BIG[:MIB])
    done = box.rest_and_push()
    assert waits(done) == {"last": "it is not complete: its format says that more must come"}
    box.write("tuned/last/model.pth", BIG[MIB:], "ab")
    assert waits(box.rest_and_push()) == {}
    assert box.restored() == {"tuned/last/model.pth": BIG}


@pytest.mark.fault(37)
def test_rotation_takes_old_checkpoints_here_and_not_in_the_mirror(box: Watched) -> None:
    for step in range(1, 5):
        box.write(f"tuned/step-{step}/w", b"%d" % step)
        box.rest_and_push()
        if step > 1:
            shutil.rmtree(box.root / f"tuned/step-{step - 1}")
    history = [index.snapshot.by_path for _, index in _history(box)]
    assert [set(files) for files in history] == [{f"step-{step}/w"} for step in (4, 3, 2, 1)]


def _history(box: Watched) -> list[tuple[str, Index]]:
    lab = box.disk.open_lab(Options(env={}))
    (artifact,) = (a for a in lab.manifest.artifacts if a.kind == "checkpoints")
    return list(lab.view.history(artifact.name))


def _with_a_backlog(box: Watched) -> Round:
    """Make three checkpoints of which one can be sent before the end."""
    for step in (1, 2, 3):
        box.write(f"tuned/step-{step}/model.pth", model(step))
        box.clock.advance(1)
        box.look()
    box.project.rate = float(MIB)
    box.clock.advance(REST)
    return box.look(push=True, seconds=3.0, is_short=True)


def test_of_a_backlog_the_newest_checkpoint_comes_first_and_the_head_never_goes_back(box: Watched) -> None:
    done = _with_a_backlog(box)
    assert set(box.restored()) == {"tuned/step-3/model.pth"}
    assert set(waits(done)) == {"step-1", "step-2"}
    for _ in range(2):
        done = box.rest_and_push()
        assert set(waits(done).values()) == {"it is older than the newest checkpoint in the mirror"}
        assert set(box.restored()) == {"tuned/step-3/model.pth"}
        box.restart()


def _push(box: Watched) -> None:
    lab = box.disk.open_lab(Options(jobs=1, yes=True, env={}))
    assert push(lab, [a for a in lab.manifest.artifacts if a.is_made], prune=False).errors == []
    lab.state.close()


def test_what_a_person_pushes_of_it_later_lies_behind_the_newest(box: Watched) -> None:
    _with_a_backlog(box)
    box.rest_and_push()
    _push(box)
    steps = [next(iter(index.snapshot.by_path))[:6] for _, index in _history(box)]
    assert steps == ["step-3", "step-2", "step-1", "step-3"]
    _push(box)
    assert len(_history(box)) == 4
    assert waits(box.rest_and_push()) == {}


def test_such_a_push_that_was_killed_is_put_right_by_the_next(
    box: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_a_backlog(box)
    box.rest_and_push()
    monkeypatch.setattr("labsync.steps.push_units.end_uploads", _kill)
    with pytest.raises(Killed):
        _push(box)
    monkeypatch.undo()
    assert set(box.restored()) == {"tuned/step-1/model.pth"}
    box.write("tuned/step-4/model.pth", model(4))
    box.restart()
    box.rest_and_push()
    assert set(box.restored()) == {"tuned/step-4/model.pth"}
    steps = [next(iter(index.snapshot.by_path))[:6] for _, index in _history(box)]
    assert steps == ["step-4", "step-3", "step-1", "step-3"]


@pytest.mark.fault(2)
def test_a_push_that_was_killed_behind_its_head_is_no_conflict_though_rotation_took_the_checkpoint(
    box: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.write("tuned/step-1/model.pth", model(1))
    monkeypatch.setattr("labsync.disk.pins.PinnedHome.finish", _kill)
    with pytest.raises(Killed):
        box.rest_and_push()
    monkeypatch.undo()
    shutil.rmtree(box.root / "tuned/step-1")
    box.write("tuned/step-2/model.pth", model(2))
    box.restart()
    assert codes(box.rest_and_push()) == []
    assert set(box.restored()) == {"tuned/step-2/model.pth"}


def _kill(*_: object) -> None:
    raise Killed


@pytest.mark.fault(9)
def test_when_time_is_short_small_results_come_first_and_what_cannot_arrive_is_not_begun(
    box: Watched,
) -> None:
    box.write("outputs/note.md", b"what I found")
    box.write("outputs/huge.bin2", bytes(40 * MIB))
    box.write("tuned/last/model.pth", BIG)
    box.look()
    box.project.rate = float(MIB)
    box.clock.advance(REST)
    done = box.look(push=True, seconds=10.0, is_short=True)
    assert waits(done) == {"huge.bin2": "too large for the time that is left"}
    assert set(box.restored()) == {"outputs/note.md", "tuned/last/model.pth"}


@pytest.mark.fault(38)
def test_a_missing_folder_is_an_error_and_no_deletion(box: Watched) -> None:
    box.write("outputs/a", b"a")
    box.rest_and_push()
    shutil.move(box.root / "outputs", box.root / "unmounted")
    done = box.rest_and_push()
    assert codes(done) == [ExitCode.NOT_FOUND]
    assert box.restored() == {"outputs/a": b"a"}


@pytest.mark.fault(39)
def test_a_folder_that_is_suddenly_empty_is_refused(box: Watched) -> None:
    box.write("outputs/a", b"a")
    box.rest_and_push()
    (box.root / "outputs/a").unlink()
    assert codes(box.rest_and_push()) == [ExitCode.REFUSED]
    assert box.restored() == {"outputs/a": b"a"}


@pytest.mark.fault(39)
def test_most_of_a_folder_gone_takes_nothing_from_the_mirror(box: Watched) -> None:
    for number in range(10):
        box.write(f"outputs/{number}", b"%d" % number)
    box.rest_and_push()
    for number in range(9):
        (box.root / f"outputs/{number}").unlink()
    box.rest_and_push()
    assert len(box.restored()) == 10


@pytest.mark.fault(80)
def test_secrets_are_never_pushed(box: Watched) -> None:
    box.write("outputs/.env", b"TOKEN=1")
    box.write("outputs/a", b"a")
    assert waits(box.rest_and_push()) == {}
    assert box.restored() == {"outputs/a": b"a"}


@pytest.mark.fault(31, 58)
def test_a_clock_that_was_set_back_or_forth_hides_nothing(box: Watched) -> None:
    for number, jump in enumerate((-1_000_000, 1_000_000, -50, 3)):
        target = box.write(f"tuned/step-{number}/model.pth", model(number))
        wall = 1_700_000_000 + jump
        os.utime(target, (wall, wall))
        box.rest_and_push()
        assert set(box.restored()) == {f"tuned/step-{number}/model.pth"}


def test_what_is_at_rest_costs_one_request_and_reads_nothing(box: Watched) -> None:
    for number in range(50):
        box.write(f"outputs/{number}", b"%d" % number)
    box.rest_and_push()
    before = box.mirror.requests()
    box.look()
    assert box.mirror.requests() == before  # looking asks nobody
    box.look(push=True)
    after = box.mirror.requests()
    assert (after.LIST - before.LIST, after.GET - before.GET, after.PUT - before.PUT) == (1, 0, 0)


def test_a_guard_that_is_started_again_sends_nothing_twice(box: Watched) -> None:
    for number in range(5):
        box.write(f"tuned/step-{number}/model.pth", model(number))
        box.rest_and_push()
    sent = box.mirror.puts
    box.restart()
    assert waits(box.rest_and_push()) == {}
    assert box.mirror.puts == sent


@pytest.mark.fault(11)
def test_a_box_that_slept_past_its_end_stops(tmp_path: Path) -> None:
    clock = VirtualClock()
    disk = Disk(tmp_path / "box", SlowMirror(clock, MIB))
    ending = deadline(clock, 4 * 3600)
    guard, chronicle = disk.guard(ending)
    clock.at(clock.time + 100, lambda: setattr(clock, "time", clock.time + 9 * 3600))
    assert guard.run() is ExitCode.DEADLINE
    assert [phase for _, phase in chronicle.phases] == [Phase.WATCH, Phase.STOP]


def test_a_mirror_that_cannot_be_reached_is_tried_again(
    box: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    from labsync.errors import UnavailableError

    def refuse() -> dict[object, str]:
        raise UnavailableError("the mirror does not answer")

    box.write("outputs/a", b"a")
    with monkeypatch.context() as broken:
        broken.setattr(box.mirror, "heads", refuse)
        done = box.rest_and_push()
    assert codes(done) == [ExitCode.UNAVAILABLE]
    assert set(waits(done)) == {"a"}
    assert waits(box.look(push=True)) == {}
    assert box.restored() == {"outputs/a": b"a"}


def test_a_manifest_that_broke_meanwhile_is_said_and_used_again_when_it_is_mended(box: Watched) -> None:
    from labsync.errors import InvalidError

    def broken(options: Options) -> object:
        raise InvalidError("line 3 makes no sense")

    box.write("outputs/a", b"a")
    whole, box.project.open_lab = box.project.open_lab, broken  # type: ignore[assignment]
    assert codes(box.rest_and_push()) == [ExitCode.INVALID]
    box.project.open_lab = whole
    assert codes(box.rest_and_push()) == []
    assert box.restored() == {"outputs/a": b"a"}
