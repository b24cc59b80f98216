"""A directory mirror's stage: what killed runs leave there goes, what is being written stays."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import subprocess
import sys
from errno import EIO, ENOLCK
from typing import TYPE_CHECKING

import pytest

from labsync.errors import ChangedError, DiskError
from labsync.mirrors.base import OtherBytesError
from labsync.mirrors.directory import DirectoryMirror
from labsync.mirrors.memory import MemoryMirror
from labsync.mirrors.placer import STAGE, Placer
from labsync.staging import ABANDONED
from tests.fakes.box import Box
from tests.fakes.contents import FakeContent, failing, right, unknown
from tests.fakes.journal import MemoryJournal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from labsync.mirrors.base import Mirror

KEY = "results/runs/20261120T101500Z-1a2b3c4d/f"
KILLED = """
import os, signal, sys
from pathlib import Path
from labsync.mirrors.placer import Placer

def fill(file):
    file.write(b"x" * 100_000)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

Placer(Path(sys.argv[1]), single_writer=False).create(Path(sys.argv[1]) / "key", fill)
"""


def killed_run(root: Path) -> Path:
    """Kill a process in the middle of a write; return the staged file it leaves."""
    run = subprocess.run([sys.executable, "-c", KILLED, str(root)], check=False)
    assert run.returncode == -signal.SIGKILL
    (left,) = (root / STAGE).iterdir()
    return left


def put(root: Path, name: str, data: bytes = b"x") -> bool:
    def fill(file: BinaryIO) -> None:
        file.write(data)

    return Placer(root, single_writer=False).create(root / name, fill)


def age(path: Path, seconds: float) -> None:
    changed = path.stat().st_mtime - seconds
    os.utime(path, (changed, changed))


def without_locks(fd: int, operation: int) -> None:
    raise OSError(ENOLCK, os.strerror(ENOLCK))


def test_the_next_write_removes_what_a_killed_run_left(tmp_path: Path) -> None:
    left = killed_run(tmp_path)
    assert left.stat().st_size == 100_000
    assert put(tmp_path, "other")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["other"]


def test_what_is_being_written_stays_however_old_it_is(tmp_path: Path) -> None:
    def fill(file: BinaryIO) -> None:
        file.write(b"slow")
        (under_way,) = (tmp_path / STAGE).iterdir()
        age(under_way, 2 * ABANDONED)
        assert put(tmp_path, "other")

    assert Placer(tmp_path, single_writer=False).create(tmp_path / "key", fill)
    assert (tmp_path / "key").read_bytes() == b"slow"


def test_what_is_being_named_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def late(staged: Path, path: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        assert put(tmp_path, "other")
        link(staged, path)

    monkeypatch.setattr(os, "link", late)
    assert put(tmp_path, "key")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["key", "other"]


@pytest.mark.parametrize("race", ["locked", "removed"])
def test_a_file_that_was_swept_before_its_lock_is_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, race: str
) -> None:
    real, calls = fcntl.flock, list[int]()

    def flock(fd: int, operation: int) -> None:
        calls.append(fd)
        if len(calls) == 1:
            (new,) = (tmp_path / STAGE).iterdir()
            new.unlink()
            if race == "locked":
                raise BlockingIOError
        real(fd, operation)

    monkeypatch.setattr("fcntl.flock", flock)
    assert put(tmp_path, "key", b"whole")
    assert len(calls) == 2
    assert (tmp_path / "key").read_bytes() == b"whole"


@pytest.mark.fault(15)
@pytest.mark.parametrize("where", ["without locks", "another box", "an older version"])
def test_a_lock_that_proves_nothing_leaves_it_to_the_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    left = killed_run(tmp_path)
    if where == "without locks":
        monkeypatch.setattr("fcntl.flock", without_locks)
    else:
        name = "0" * 16 + "-" + "1" * 32 if where == "another box" else "1" * 32
        left = left.rename(left.with_name(name))
    age(left, ABANDONED - 600)
    assert put(tmp_path, "first")
    assert left.exists()
    age(left, 1200)
    assert put(tmp_path, "second")
    assert not left.exists()


def test_links_and_folders_in_the_stage_are_not_touched(tmp_path: Path) -> None:
    left = killed_run(tmp_path)
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    prefix = left.name[:17]
    (left.parent / f"{prefix}link").symlink_to(mine)
    (left.parent / f"{prefix}folder").mkdir()
    assert put(tmp_path, "key")
    assert not left.exists()
    assert mine.read_bytes() == b"mine"
    assert (left.parent / f"{prefix}folder").is_dir()


def test_an_error_of_who_gives_the_bytes_is_not_the_disks(tmp_path: Path) -> None:
    mirror, failure = DirectoryMirror(tmp_path), OSError(EIO, "the reader's own")

    def advance(count: int) -> None:
        raise failure

    with pytest.raises(OSError, match="the reader's own"):
        mirror.write(KEY, failing(b"x", failure), lambda count: None, MemoryJournal())
    with pytest.raises(OSError, match="the reader's own"):
        mirror.write(KEY, right(b"x"), advance, MemoryJournal())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("shared", [False, True], ids=["written", "read again"])
def test_an_error_of_the_target_is_the_disks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    mirror, data, mine = DirectoryMirror(tmp_path / "mirror"), bytes(1 << 21), tmp_path / "mine"
    mine.write_bytes(data)
    put(tmp_path / "mirror", "first")
    if shared:
        monkeypatch.setattr("labsync.mirrors.directory.share_blocks", _share_with_a_failing_disk)
    with small_files(), pytest.raises(DiskError):
        mirror.write(KEY, right(data, file=mine), lambda count: None, MemoryJournal())
    assert list((tmp_path / "mirror" / STAGE).iterdir()) == []


def _share_with_a_failing_disk(reader: BinaryIO, writer: BinaryIO) -> bool:
    """Share blocks that cannot be read again."""
    folder = os.open("/", os.O_RDONLY)
    os.dup2(folder, writer.fileno())
    os.close(folder)
    return True


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """Let no file of this process grow beyond 1 MiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", ["directory", "memory"])
def test_a_content_of_unknown_digest_is_compared_with_what_the_key_holds(tmp_path: Path, kind: str) -> None:
    mirror: Mirror = DirectoryMirror(tmp_path) if kind == "directory" else MemoryMirror()
    mirror.write(KEY, unknown(b"first"), lambda count: None, MemoryJournal())
    mirror.write(KEY, unknown(b"first"), lambda count: None, MemoryJournal())
    with pytest.raises(OtherBytesError):
        mirror.write(KEY, unknown(b"other"), lambda count: None, MemoryJournal())
    content = FakeContent(b"firs", 5, "")
    with pytest.raises(ChangedError):
        mirror.write(KEY, content, lambda count: None, MemoryJournal())


@pytest.mark.parametrize("mirror", ["embedded", "elsewhere"])
def test_du_counts_the_stage_of_a_directory_mirror_once(tmp_path: Path, mirror: str) -> None:
    line = "" if mirror == "embedded" else f"mirror: file://{tmp_path}/mirror\n"
    box = Box(tmp_path / "box", f"version: 1\nproject: du\n{line}results: {{runs: {{path: outputs}}}}\n")
    root = box.root / ".labsync/mirror" if mirror == "embedded" else tmp_path / "mirror"
    box.write("outputs/a", b"a")
    assert box.labsync("push").code == 0
    killed_run(root)
    counted = {item["name"]: item for item in box.labsync("du").lines if "location" in item}
    assert counted["mirror's stage"]["files"] == 1
    assert counted["mirror's stage"]["bytes"] >= 100_000
    assert counted["mirror's stage"]["location"] == str(root / STAGE)
    if mirror == "embedded":
        assert counted["embedded mirror"]["bytes"] < 100_000
