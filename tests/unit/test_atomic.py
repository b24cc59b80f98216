"""Old or new: what is left after success, after a refusal, and after a full disk."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from typing import TYPE_CHECKING

import pytest

from labsync import atomic
from labsync.errors import ConflictError, DiskError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def fail_with(number: int) -> object:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.fault(17, 18, 22, 30)
@pytest.mark.parametrize(
    ("number", "said"),
    [
        (28, "no space left"),
        (122, "no space left"),
        (30, "cannot be used: Read-only file system"),
        (13, "cannot be used: Permission denied"),
        (24, "too many open files"),
        (5, "Input/output error"),
    ],
)
def test_the_causes_of_the_disk_are_named(tmp_path: Path, number: int, said: str) -> None:
    with pytest.raises(DiskError, match=said) as caught, atomic.disk_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    assert caught.value.path == str(tmp_path)


def test_a_written_file_has_its_bytes_and_mode_and_nothing_is_left_beside(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "folder" / "file"
    atomic.write_bytes(target, b"one", 0o600)
    atomic.write_bytes(target, b"two", 0o600)
    assert target.read_bytes() == b"two"
    assert target.stat().st_mode & 0o777 == 0o600
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.fault(3)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail_with(28))
        with pytest.raises(DiskError):
            atomic.write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    target, whole = tmp_path / "file", [bytes([n]) * 300_000 for n in (1, 2)]
    atomic.write_bytes(target, whole[0])
    done, seen = threading.Event(), set()

    def watch() -> None:
        while not done.is_set():
            seen.add(target.read_bytes())

    reader = threading.Thread(target=watch)
    reader.start()
    for data in itertools.islice(itertools.cycle(whole), 40):
        atomic.write_bytes(target, data)
    done.set()
    reader.join()
    assert seen <= set(whole)
    assert seen


def test_creating_never_replaces(tmp_path: Path) -> None:
    target = tmp_path / "file"
    assert atomic.create_bytes(target, b"first")
    assert not atomic.create_bytes(target, b"second")
    assert target.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [target]


def test_one_of_many_creators_wins_whole(tmp_path: Path) -> None:
    target, won = tmp_path / "file", []

    def create(number: int) -> None:
        if atomic.create_bytes(target, bytes([number]) * 10_000):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert target.read_bytes() == bytes(won) * 10_000


def test_bytes_under_way_are_not_taken_for_left_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(staged: Path, path: Path) -> None:
        monkeypatch.undo()
        atomic.write_bytes(path, b"another writer")  # which looks for what killed ones left
        os.replace(staged, path)

    monkeypatch.setattr(atomic, "rename", rename)
    atomic.write_bytes(tmp_path / "file", b"mine")
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.fixture(params=["in one step", "kernel without it", "library without it"])
def rename_new(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> object:
    if request.param == "kernel without it":
        monkeypatch.setattr(atomic, "_renameat2", lambda *_: errno.ENOSYS)
    elif request.param == "library without it":
        monkeypatch.setattr(atomic, "_libc", object)
    return atomic.rename_new


def test_a_new_name_consumes_the_stage_and_never_replaces(
    tmp_path: Path, rename_new: Callable[[Path, Path], bool]
) -> None:
    staged, target = tmp_path / "staged", tmp_path / "ñ file"
    staged.write_bytes(b"new")
    assert rename_new(staged, target)
    assert (target.read_bytes(), staged.exists()) == (b"new", False)
    staged.write_bytes(b"newer")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for taken in (target, tmp_path / "folder", tmp_path / "link"):
        assert not rename_new(staged, taken)
    assert (target.read_bytes(), staged.read_bytes()) == (b"new", b"newer")
    assert (tmp_path / "link").is_symlink()


def test_a_new_name_in_no_folder_is_the_disks_error(
    tmp_path: Path, rename_new: Callable[[Path, Path], bool]
) -> None:
    staged = tmp_path / "staged"
    staged.write_bytes(b"new")
    with pytest.raises(FileNotFoundError):
        rename_new(staged, tmp_path / "gone" / "file")
    assert staged.read_bytes() == b"new"


def test_without_hard_links_one_step_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", fail_with(errno.EPERM))
    (tmp_path / "staged").write_bytes(b"new")
    assert atomic.rename_new(tmp_path / "staged", tmp_path / "file")


def test_one_of_many_takers_of_a_name_wins(tmp_path: Path) -> None:
    won: list[int] = []
    for number in range(8):
        (tmp_path / str(number)).write_bytes(b"%d" % number)

    def take(number: int) -> None:
        if atomic.rename_new(tmp_path / str(number), tmp_path / "name"):
            won.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "name").read_bytes() == b"%d" % won[0]
    assert len(won) == 1


def test_beginning_to_write_is_only_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.write(b"x")
        file.flush()
        atomic.start_writing(file.fileno())
    atomic.start_writing(file_no_longer_open := 9999)
    monkeypatch.setattr(atomic, "_libc", object)
    atomic.start_writing(file_no_longer_open)
    assert (tmp_path / "file").read_bytes() == b"x"


def test_a_copy_is_a_file_of_its_own(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"x" * 3_000_000)
    atomic.copy(source, target)
    source.write_bytes(b"changed")
    assert target.read_bytes() == b"x" * 3_000_000


@pytest.mark.fault(4)
def test_files_and_folders_are_synced_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(fd: int) -> None:
        calls.append("folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "file")
        fsync(fd)

    def note_replace(source: Path, target: Path) -> None:
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    atomic.write_bytes(tmp_path / "file", b"x")
    assert calls == ["file", "rename", "folder"]
    calls.clear()
    assert atomic.create_bytes(tmp_path / "new", b"x")
    assert calls == ["file", "folder"]
    calls.clear()
    atomic.copy(tmp_path / "file", tmp_path / "copy")
    assert calls == ["file"]


@pytest.mark.fault(28, 29)
def test_links_and_files_on_the_way_are_refused_and_the_root_may_be_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    (real / "folder").mkdir(parents=True)
    (real / "file").write_bytes(b"")
    (real / "link").symlink_to(tmp_path)
    root = tmp_path / "root"
    root.symlink_to(real)
    assert atomic.refuse_links(root, "folder/file")
    assert atomic.refuse_links(root, "file")
    assert not atomic.refuse_links(root, "folder/new/file")
    with pytest.raises(RefusedError):
        atomic.refuse_links(root, "link/file")
    with pytest.raises(RefusedError):
        atomic.refuse_links(root, "link/deeper/file")
    with pytest.raises(ConflictError):
        atomic.refuse_links(root, "file/below")
