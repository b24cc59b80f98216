"""Locks per artifact and step."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from labsync import process
from labsync.artifact_locks import hold, locks_work
from labsync.errors import DiskError, ExitCode, LockedError

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import os, sys, time
from pathlib import Path
from labsync.artifact_locks import hold
with hold(Path(sys.argv[1]), "models/a", "disk"):
    print("held", flush=True)
    Path(sys.argv[2]).read_bytes()  # waits until the test writes to the pipe
    os.kill(os.getpid(), int(sys.argv[3]))
"""


@pytest.mark.fault(13)
def test_two_holders_of_one_step_exclude_each_other(tmp_path: Path) -> None:
    with hold(tmp_path, "models/a", "disk"):
        with pytest.raises(LockedError) as caught, hold(tmp_path, "models/a", "disk"):
            pass
        assert caught.value.exit_code == ExitCode.LOCKED
        assert f"process {os.getpid()} (`" in caught.value.what
        assert "models/a" in caught.value.what


def test_other_steps_and_other_artifacts_are_free(tmp_path: Path) -> None:
    with (
        hold(tmp_path, "models/a", "disk"),
        hold(tmp_path, "models/a", "mirror"),
        hold(tmp_path, "checkpoints/a", "disk"),
    ):
        assert len(list((tmp_path / "locks").iterdir())) == 3


def test_a_lock_is_free_again_after_the_block_and_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), hold(tmp_path, "models/a", "disk"):
        raise KeyError
    with hold(tmp_path, "models/a", "disk"):
        pass


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    failures: list[LockedError] = []

    def try_it() -> None:
        try:
            with hold(tmp_path, "models/a", "disk"):
                pass
        except LockedError as error:
            failures.append(error)

    with hold(tmp_path, "models/a", "disk"):
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
    assert len(failures) == 1


@pytest.mark.fault(14)
def test_a_killed_process_leaves_no_lock_behind(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    ends: list[process.Completed] = []
    argv = [sys.executable, "-c", HOLD, str(tmp_path), str(pipe), str(int(signal.SIGKILL))]
    child = threading.Thread(target=lambda: ends.append(process.run(argv, timeout=60)))
    child.start()
    with pipe.open("wb"):  # opens when the child, holding the lock, opens its end
        with pytest.raises(LockedError) as caught, hold(tmp_path, "models/a", "disk"):
            pass
        assert f"process {os.getpid()} " not in caught.value.what
        assert "(`-c" in caught.value.what
    child.join()
    assert ends[0].returncode == -signal.SIGKILL
    with hold(tmp_path, "models/a", "disk"):
        pass


@pytest.mark.fault(15)
def test_a_file_system_without_locks_lets_the_work_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert locks_work(tmp_path)

    def no_locks(fd: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with hold(tmp_path, "models/a", "disk"):
        assert not locks_work(tmp_path)


def test_a_lock_that_cannot_be_opened_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "locks").write_bytes(b"")
    with pytest.raises(DiskError), hold(tmp_path, "models/a", "disk"):
        pass
