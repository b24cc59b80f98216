"""For training loops: time left, when to stop, folders that appear whole; on a box of the test's own."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from labsync import session
from labsync.process import run
from labsync.session import book
from labsync.session.atomic_folder import MARK, is_saved, saving
from labsync.session.book import Life, book_path, present, read_book, see, used
from labsync.session.deadline import Readings
from labsync.session.readings import TICKS, Box, boot_time

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Nothing is remembered from the test before."""
    session._known = session._asked = None
    yield
    session._known = session._asked = None


class FakeBox:
    """Files as a box has them, below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, path: str, text: str = "") -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")
        return target

    def process(self, pid: int, started: float, state: str = "S") -> None:
        rest = " ".join([state, *["0"] * 18, str(int(started * TICKS))])
        self.put(f"proc/{pid}/stat", f"{pid} (a (b) c) {rest} 0 0")

    def box(self, **env: str) -> Box:
        return Box(self.root, {"HOME": str(self.root / "home"), **env})


@pytest.fixture
def fake(tmp_path: Path) -> FakeBox:
    return FakeBox(tmp_path)


@pytest.mark.parametrize(
    ("files", "env", "name"),
    [
        ([], {}, "generic"),
        (["home/studio-lab-user/x"], {}, "studio-lab-cpu"),
        (["home/studio-lab-user/x", "proc/driver/nvidia/version"], {}, "studio-lab-gpu"),
        (["proc/driver/nvidia/version"], {}, "generic"),
        ([], {"SLURM_JOB_ID": "7"}, "slurm"),
        (["opt/ml/input/config/resourceconfig.json"], {}, "sm-training"),
        (["kaggle/working/x"], {"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, "kaggle"),
        (["content/x"], {"COLAB_RELEASE_TAG": "1"}, "colab"),
        (["content/x"], {}, "generic"),
    ],
)
def test_the_box_tells_what_it_is(fake: FakeBox, files: list[str], env: dict[str, str], name: str) -> None:
    for file in files:
        fake.put(file)
    assert fake.box(**env).profile() == name


def test_a_studio_space_has_a_name(fake: FakeBox) -> None:
    fake.put("opt/ml/metadata/resource-metadata.json", json.dumps({"SpaceName": "mine"}))
    assert fake.box().profile() == "sm-studio-space"


def test_the_start_of_the_machine_is_that_of_process_1(fake: FakeBox) -> None:
    fake.put("proc/sys/kernel/random/boot_id", "abc\n")
    fake.process(1, 12.5)
    told = fake.box().read()
    assert (told.box, told.container_start, told.jupyter_start) == ("abc:12.5", 12.5, None)


def test_a_box_that_tells_nothing_is_no_failure(fake: FakeBox) -> None:
    told = fake.box().read()
    assert (told.container_start, told.jupyter_start, told.job_end) == (None, None, None)


def test_a_dead_process_has_no_start(fake: FakeBox) -> None:
    fake.process(7, 12.5, "Z")
    assert fake.box().started(7) is None
    assert fake.box().started(8) is None


def test_the_jupyter_server_counts_while_it_lives(fake: FakeBox) -> None:
    now = boot_time()
    fake.process(1, now - 500)
    server = fake.put("home/.local/share/jupyter/runtime/jpserver-7.json", json.dumps({"pid": 7}))
    os.utime(server, (time.time() - 100, time.time() - 100))
    fake.process(7, now - 101)
    assert fake.box().read().jupyter_start == pytest.approx(now - 101, abs=1)


def test_a_servers_file_of_an_earlier_session_does_not_count(fake: FakeBox) -> None:
    fake.process(1, boot_time() - 500)
    old = fake.put("home/.local/share/jupyter/runtime/jpserver-7.json", json.dumps({"pid": 7}))
    os.utime(old, (time.time() - 5000, time.time() - 5000))
    fake.process(7, boot_time() - 50)  # another process has its number now
    fake.put("home/.local/share/jupyter/runtime/jpserver-8.json", "{half")
    assert fake.box().read().jupyter_start is None


def test_a_servers_file_younger_than_the_machine_counts_by_its_time(fake: FakeBox) -> None:
    fake.process(1, boot_time() - 500)
    young = fake.put("rt/jpserver-7.json", json.dumps({"pid": 7}))
    os.utime(young, (time.time() - 400, time.time() - 400))
    told = fake.box(JUPYTER_RUNTIME_DIR=str(fake.root / "rt")).read()
    assert told.jupyter_start == pytest.approx(boot_time() - 400, abs=2)


def test_a_jobs_end_is_taken_from_the_environment(fake: FakeBox) -> None:
    assert fake.box(SLURM_JOB_END_TIME="1790000000").read().job_end == 1_790_000_000
    assert fake.box(SLURM_JOB_END_TIME="soon").read().job_end is None


# The book of sessions.


def readings(now: float, wall: float, box: str = "b:1", start: float | None = 10.0) -> Readings:
    return Readings(now, wall, box, start)


def test_the_first_look_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "labsync" / "session.json"
    see(path, readings(100, 5000), "generic", gpu=False)
    life = see(path, readings(160, 5060), "generic", gpu=False)
    assert (life.first_seen, life.began, life.elapsed, life.seen) == (100, 10, 150, 5060)
    assert present(read_book(path), "b:1") == life
    assert present(read_book(path), "b:2") is None


def test_hours_are_counted_by_kind_and_only_of_the_last_day() -> None:
    day, hour = 24 * 3600.0, 3600.0
    lives = [
        Life("a", "studio-lab-gpu", True, 0, 0, 4 * hour, 1000 * hour),
        Life("b", "studio-lab-gpu", True, 0, 0, 4 * hour, 1000 * hour - day + hour),  # an hour is in it
        Life("c", "studio-lab-cpu", False, 0, 0, 2 * hour, 999 * hour),
        Life("d", "generic", False, 0, 0, 900 * hour, 1000 * hour),
    ]
    assert used(lives, 1000 * hour, gpu=True) == 5 * hour
    assert used(lives, 1000 * hour, gpu=False) == 2 * hour


def test_old_sessions_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    see(path, readings(100, 5000, "old"), "generic", gpu=False)
    see(path, readings(100, 5000 + book.KEPT + 1, "new"), "generic", gpu=False)
    assert [life.box for life in read_book(path)] == ["new"]


@pytest.mark.parametrize("text", ["", "{half", '{"version": 2, "sessions": []}', '{"version": 1}', "[]"])
def test_a_book_that_cannot_be_read_begins_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "session.json"
    path.write_text(text, "utf-8")
    assert read_book(path) == ()
    see(path, readings(100, 5000), "generic", gpu=False)
    assert len(read_book(path)) == 1


def test_a_home_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", "utf-8")
    life = see(blocked / "session.json", readings(100, 5000), "generic", gpu=False)
    assert life.first_seen == 100


# In the training loop.


def _guarded(**told: float | None) -> None:
    now = Box().read()
    see(
        book_path(os.environ),
        now,
        "generic",
        gpu=False,
        change=lambda life: Life(life.box, "generic", False, now.now, now.now, **told),  # type: ignore[arg-type]
    )


def test_without_a_limit_there_is_time_for_ever() -> None:
    assert session.time_left() == math.inf
    assert not session.should_stop()


def test_the_guards_deadline_counts() -> None:
    _guarded(deadline=boot_time() + 1000, save_by=boot_time() + 400)
    assert 990 < session.time_left() <= 1000
    assert not session.should_stop()


def test_it_is_time_to_stop_when_a_checkpoint_could_not_be_sent_any_more() -> None:
    _guarded(deadline=boot_time() + 1000, save_by=boot_time() - 1)
    assert session.should_stop()


def test_a_loop_that_takes_long_from_one_question_to_the_next_stops_sooner() -> None:
    _guarded(deadline=boot_time() + 1000, save_by=boot_time() + 60)
    assert not session.should_stop()
    session._asked = boot_time() - 90  # an epoch takes a minute and a half
    assert session.should_stop()


def test_without_a_guard_what_was_typed_counts() -> None:
    _guarded(said=boot_time() + 7200.0)
    assert 7190 < session.time_left() <= 7200
    assert not session.should_stop()
    session._known = None
    _guarded(said=boot_time() + 30.0)
    assert session.time_left() < 31


def test_a_deadline_that_is_over_leaves_nothing() -> None:
    _guarded(deadline=boot_time() - 5)
    assert session.time_left() == 0
    assert session.should_stop()


def test_asking_at_every_step_costs_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    session.should_stop()
    monkeypatch.setattr(Box, "read", lambda self: pytest.fail("it looked again"))
    for _ in range(1000):
        session.should_stop()


def test_transformers_is_only_needed_for_its_callback() -> None:
    from transformers import TrainerCallback, TrainerControl

    callback = session.TrainerCallback()
    assert isinstance(callback, TrainerCallback)
    control = TrainerControl()
    assert not callback.on_step_end(None, None, control).should_save
    session._known = None
    _guarded(deadline=boot_time() + 5, save_by=boot_time() - 5)
    stopped = callback.on_step_end(None, None, control)
    assert stopped.should_save
    assert stopped.should_training_stop
    with pytest.raises(AttributeError):
        session.nothing_of_that_name  # noqa: B018


# Checkpoint folders.


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "checkpoints" / "epoch-1"
    with saving(target) as folder:
        (folder / "w").write_bytes(b"weights")
        assert not target.exists()
        assert folder.parent == target.parent
    assert (target / "w").read_bytes() == b"weights"
    assert is_saved(target)
    assert [path.name for path in target.parent.iterdir()] == ["epoch-1"]


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "last"
    with saving(target) as folder:
        (folder / "w").write_bytes(b"1")
    with contextlib.suppress(ZeroDivisionError), saving(target) as folder:
        (folder / "w").write_bytes(b"2")
        raise ZeroDivisionError
    assert (target / "w").read_bytes() == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_takes_the_place_of_an_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr("labsync.session.atomic_folder._exchange", lambda one, other: False)
    target = tmp_path / "last"
    for data in (b"1", b"2"):
        with saving(target) as folder:
            (folder / data.decode()).write_bytes(data)
    assert {path.name for path in target.iterdir()} == {"2", MARK}
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_a_file_that_is_written_afterwards_takes_the_mark_away(tmp_path: Path) -> None:
    target = tmp_path / "last"
    with saving(target) as folder:
        (folder / "w").write_bytes(b"1")
    later = time.time() + 5
    (target / "w").write_bytes(b"2")
    os.utime(target / "w", (later, later))
    assert not is_saved(target)
    assert not is_saved(tmp_path / "none")


KILLED = """
import os, signal, sys
from labsync import session
with session.saving(sys.argv[1]) as folder:
    (folder / "w").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.fault(36)
def test_a_process_that_is_killed_leaves_nothing_that_looks_like_a_checkpoint(tmp_path: Path) -> None:
    target = tmp_path / "epoch-2"
    ended = run([sys.executable, "-c", KILLED, str(target)])
    assert ended.returncode == -signal.SIGKILL
    assert not target.exists()
    assert all(path.name.startswith(".labsync-") for path in tmp_path.iterdir())
    with saving(target) as folder:
        (folder / "w").write_bytes(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-2"]  # and the next save swept it


def test_two_processes_save_different_folders_at_once(tmp_path: Path) -> None:
    script = (
        "import sys; from labsync import session\n"
        "for n in range(5):\n"
        "    with session.saving(f'{sys.argv[1]}/{sys.argv[2]}-{n}') as f: (f / 'w').write_bytes(b'x')\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), name]) for name in ("rank0", "rank1")
    ]
    assert [child.wait(60) for child in children] == [0, 0]
    assert len(list(tmp_path.iterdir())) == 10
