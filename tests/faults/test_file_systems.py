"""Real file systems that are small, out of inodes, read-only; a limit of open files; errors of every call."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.fakes.box import Box
from tests.fakes.live import assert_sound, assert_whole, parts, start
from tests.faults.depth import ALL
from tests.faults.simulation.disk import Disk, Trouble
from tests.faults.test_power import ADVERSARIES, SCENES, Bench, bench, check_done, check_whole, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    from tests.fakes.effects import Step

__all__ = ["bench"]  # a fixture
pytestmark = pytest.mark.timeout(1200)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
MIB = 1 << 20
MANY = {f"many/{number:03}.bin": bytes([number]) * 20_000 for number in range(120)}
MANIFEST = """version: 1
project: small
mirror: {mirror}
disk: {{reserve: 0B}}
datasets: {{frames: {{origin: "file:{origin}/", path: frames}}}}
results: {{runs: {{path: outputs}}}}
"""


@contextlib.contextmanager
def mounted(where: Path, options: str) -> Iterator[None]:
    """Mount a file system in memory."""
    where.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(where)], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lets not even root mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def remount(where: Path, options: str) -> None:
    gc.collect()  # files that are still open keep it from becoming read-only
    subprocess.run(["mount", "-o", f"remount,{options}", str(where)], check=True)


def _lab(tmp_path: Path, disk: Path, files: dict[str, bytes]) -> Box:
    origin = tmp_path / "origin"
    for path, data in files.items():
        (origin / path).parent.mkdir(parents=True, exist_ok=True)
        (origin / path).write_bytes(data)
    box = Box(disk / "lab", MANIFEST.format(mirror=tmp_path / "mirror", origin=origin))
    assert box.labsync("lock").code == 0
    shutil.rmtree(box.root / ".labsync/fetched", ignore_errors=True)
    return box


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of its own, 64 MiB large."""
    with mounted(tmp_path / "disk", "size=64m,nr_inodes=6000"):
        yield tmp_path / "disk"


def _ends_whole(box: Box, files: dict[str, bytes], mirror: Path) -> None:
    again = box.labsync("pull", "frames")
    assert again.code == 0, again.messages
    assert box.tree("frames") == files
    assert parts(box) == []
    assert_sound(mirror)


@needs_root
@pytest.mark.fault(17, 20)
@pytest.mark.parametrize("files", [MANY, {"large.bin": os.urandom(6 * MIB)}], ids=["many", "large"])
def test_a_disk_that_another_program_fills_meanwhile(
    tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]
) -> None:
    box = _lab(tmp_path, disk, files)
    remount(disk, "size=2m")
    with monkeypatch.context() as patch:  # there was room when it looked
        patch.setattr("labsync.steps.carry.ensure_room", lambda lab, tasks: None)
        full = box.labsync("pull", "frames")
    assert full.code == 9, full.messages
    assert any(said in full.messages for said in ("no space left", "is full", "does not fit"))
    assert "labsync du" in full.messages
    assert_whole(box.root / "frames", files)
    assert_sound(tmp_path / "mirror")
    assert [part for part in parts(box) if part.name.count(".") == 2] == []  # what cannot be continued
    remount(disk, "size=64m")
    _ends_whole(box, files, tmp_path / "mirror")


@needs_root
@pytest.mark.fault(19)
def test_a_plan_that_does_not_fit_moves_no_byte(tmp_path: Path, disk: Path) -> None:
    box = _lab(tmp_path, disk, MANY)
    remount(disk, "size=2m")
    refused = box.labsync("pull", "frames")
    assert refused.code == 9
    assert "only" in refused.messages
    assert not any(refused.transferred.values())
    assert not (box.root / "frames").exists()


@needs_root
@pytest.mark.fault(30)
def test_a_disk_without_inodes_is_named_as_such(tmp_path: Path, disk: Path) -> None:
    box = _lab(tmp_path, disk, MANY)
    found = os.statvfs(disk)
    remount(disk, f"nr_inodes={found.f_files - found.f_ffree + 60}")
    full = box.labsync("pull", "frames")
    assert full.code == 9
    assert "inodes" in full.messages
    assert_whole(box.root / "frames", MANY)
    remount(disk, "nr_inodes=6000")
    _ends_whole(box, MANY, tmp_path / "mirror")


@needs_root
@pytest.mark.fault(22)
def test_a_read_only_disk_is_named_and_read(tmp_path: Path, disk: Path) -> None:
    box = _lab(tmp_path, disk, MANY)
    before = sorted(disk.rglob("*"))
    remount(disk, "ro")
    refused = box.labsync("pull", "frames")
    assert refused.code == 9
    assert "Read-only" in refused.messages
    assert str(disk) in refused.messages
    assert sorted(disk.rglob("*")) == before
    assert box.labsync("status", "frames").artifacts["datasets/frames"]["disk"] == "missing"
    assert not (tmp_path / "mirror/datasets").exists()
    remount(disk, "rw")
    _ends_whole(box, MANY, tmp_path / "mirror")


@needs_root
@pytest.mark.fault(22)
def test_a_read_only_mirror_is_named_and_the_disk_is_served(tmp_path: Path) -> None:
    with mounted(tmp_path / "mirror", "size=64m"):
        box = _lab(tmp_path, tmp_path / "disk", MANY)
        remount(tmp_path / "mirror", "ro")
        pulled = box.labsync("pull", "frames")
        assert pulled.code == 9
        assert box.tree("frames") == MANY
        remount(tmp_path / "mirror", "rw")
        _ends_whole(box, MANY, tmp_path / "mirror")


@pytest.mark.fault(30)
def test_too_many_open_files_are_named_as_such(tmp_path: Path) -> None:
    box = _lab(tmp_path, tmp_path / "disk", MANY)
    child = start(box, "pull", "frames", through=("sh", "-c", 'ulimit -n 24; exec "$@"', "sh"))
    out, err = child.communicate(timeout=60)
    assert child.returncode == 9, (out, err)
    assert "too many open files" in out
    assert "ulimit -n" in out
    assert_whole(box.root / "frames", MANY)
    _ends_whole(box, MANY, tmp_path / "mirror")


class Failing(Disk):
    """A disk on which one call fails; counts how often a file was synced after its sync had failed."""

    again = 0
    _failed: tuple[int, int] | None = None

    def __call__(self, step: Step, call: Callable[[], Any]) -> Any:
        file = _file_of(step)
        if file and file == self._failed:
            self.again += 1
        try:
            return super().__call__(step, call)
        except OSError:
            self._failed = file or self._failed
            raise


def _file_of(step: Step) -> tuple[int, int] | None:
    if step.op not in {"fsync", "fdatasync"}:
        return None
    found = os.fstat(step.args[0])
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


NUMBERS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EMFILE)


@pytest.mark.fault(17, 18, 22, 24)
@pytest.mark.parametrize("scene", SCENES)
def test_an_error_of_every_call_that_changes_the_disk(bench: Bench, scene: str) -> None:
    command = prepare(bench, scene)
    steps = bench.lose_power(ADVERSARIES[0], 1 << 30, *command).steps
    for step in range(1, steps + 1, 1 if ALL else 3):
        bench.bring_back()
        disk = Failing(bench.root, ADVERSARIES[0])
        disk.begin(Trouble(error=step, number=NUMBERS[step % len(NUMBERS)]))
        bench.running.disk = disk
        try:
            run = bench.box.labsync(*command, "-j", "1")
        finally:
            bench.running.disk = None
        assert run.code in {0, 4, 8, 9}, (step, run.messages, run.stderr)
        assert "Traceback" not in run.stderr
        assert disk.again == 0, "a sync that failed was tried again"
        check_whole(bench, scene)
        bench.run(*command)
        check_done(bench, scene)
