"""Part files belong to one writer; what killed runs left; reading from the disk."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from labsync.errors import DiskError, IntegrityError, NotFoundError
from labsync.places import Ref
from labsync.transfer.parts import KEPT, WORTH, Stages, arrived, claim, held, reopen, scratch
from labsync.transfer.verify import DiskReader, FileReader, UnreadableError
from tests.fakes.places import FakeHome
from tests.strategies import entry_of

SHA = "ab" * 32
SIZE = WORTH + 10


def leave(folder: Path, *extents: tuple[int, int], sha256: str = SHA) -> Path:
    """Leave a part behind as a failed run does, with these bytes in it."""
    with claim(folder, sha256, SIZE) as part:
        part.keep(extents)
        return part.path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# One writer


def test_one_content_claimed_twice_at_once_has_two_names(tmp_path: Path) -> None:
    with claim(tmp_path, SHA, SIZE) as first, claim(tmp_path, SHA, SIZE) as second:
        assert first.path == tmp_path / f"{SHA}.part"
        assert second.path.name.startswith(SHA)
        assert second.path != first.path
        assert first.is_resumable
        assert not second.is_resumable
        second.keep([(0, SIZE)])
    with claim(tmp_path, SHA, SIZE) as again:
        assert again.path == first.path
        assert again.arrived == ()
    assert names(tmp_path) == []


def test_published_part_stays_and_so_does_the_next_ones_file(tmp_path: Path) -> None:
    published = tmp_path / "published"
    with claim(tmp_path, SHA, SIZE) as part:
        part.keep([(0, SIZE)])
        os.replace(part.path, published)
        part.path.write_bytes(b"somebody else's by now")
    assert published.stat().st_size == SIZE
    assert part.path.read_bytes() == b"somebody else's by now"
    assert names(tmp_path) == [part.path.name, "published"]


def test_file_that_its_holder_published_between_open_and_lock_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, published = tmp_path / f"{SHA}.part", tmp_path / "published"
    path.write_bytes(b"good")
    lock = fcntl.flock

    def late(fd: int, how: int) -> None:
        if not published.exists():
            os.replace(path, published)
        lock(fd, how)

    monkeypatch.setattr("labsync.transfer.parts.fcntl.flock", late)
    with claim(tmp_path, SHA, SIZE), claim(tmp_path, SHA, SIZE) as other:
        assert other.path != path, "the lock is that of the new file"
    assert published.read_bytes() == b"good"
    assert list(tmp_path.iterdir()) == [published]


@pytest.mark.fault(15)
def test_file_system_without_locks_gives_a_name_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("labsync.transfer.parts.fcntl.flock", refuse)
    with claim(tmp_path, SHA, SIZE) as part:
        assert part.path.name != f"{SHA}.part"
        assert not part.is_resumable
    assert names(tmp_path) == []


def test_scratch_keeps_no_descriptor_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with scratch(tmp_path, SHA) as path:
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        assert path.name != f"{SHA}.part"
        with reopen(path, SIZE) as part:
            assert not part.is_resumable
        assert path.stat().st_size == SIZE
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert names(tmp_path) == []


def test_scratch_that_was_published_leaves_the_next_ones_file_alone(tmp_path: Path) -> None:
    with scratch(tmp_path, SHA) as path:
        os.replace(path, tmp_path / "published")
        path.write_bytes(b"somebody else's")
    assert names(tmp_path) == sorted([path.name, "published"])


# What killed runs left


def test_part_is_continued_as_far_as_its_journal_goes(tmp_path: Path) -> None:
    path = leave(tmp_path, (0, 5), (7, 9))
    os.pwrite(fd := os.open(path, os.O_RDWR), b"12345", 0)
    os.close(fd)
    assert arrived(tmp_path, SHA) == 7
    with claim(tmp_path, SHA, SIZE) as part:
        assert part.arrived == ((0, 5), (7, 9))
        assert os.pread(part.fd, 5, 0) == b"12345"


def test_part_without_a_byte_in_its_journal_is_not_left_behind(tmp_path: Path) -> None:
    leave(tmp_path)
    assert names(tmp_path) == []


def test_small_content_has_no_journal(tmp_path: Path) -> None:
    with claim(tmp_path, SHA, WORTH) as part:
        part.keep([(0, WORTH)])
    assert names(tmp_path) == []


def test_journal_without_the_file_it_tells_of_is_of_no_use(tmp_path: Path) -> None:
    leave(tmp_path, (0, 5)).unlink()
    assert arrived(tmp_path, SHA) == 0
    with claim(tmp_path, SHA, SIZE) as part:
        assert part.arrived == ()
        assert not os.pread(part.fd, SIZE, 0).strip(b"\0")


def test_file_that_is_cut_off_is_begun_anew(tmp_path: Path) -> None:
    os.truncate(leave(tmp_path, (0, 5)), 3)
    assert arrived(tmp_path, SHA) == 0
    with claim(tmp_path, SHA, SIZE) as part:
        assert part.arrived == ()
        assert os.fstat(part.fd).st_size == SIZE


def test_room_is_taken_from_the_start_and_told(tmp_path: Path) -> None:
    with claim(tmp_path, SHA, SIZE) as part:
        assert os.fstat(part.fd).st_size == SIZE
        assert os.fstat(part.fd).st_blocks * 512 >= SIZE
        assert held(tmp_path, SHA) == 0, "a part that no run can continue takes no room when it begins"
        part.keep([(0, 5)])
        assert held(tmp_path, SHA) == SIZE
    assert held(tmp_path, SHA) == SIZE
    assert arrived(tmp_path, SHA) == 5


@pytest.mark.fault(17)
def test_disk_without_room_is_found_before_the_first_byte(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="does not fit") as caught, claim(tmp_path, SHA, 1 << 60):
        pass
    assert caught.value.__cause__ is None, "a smaller file may fit"
    assert names(tmp_path) == []


@pytest.mark.fault(18)
def test_quota_that_only_reserving_meets_is_found_before_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.EDQUOT, "disk quota exceeded")

    monkeypatch.setattr("labsync.transfer.parts.os.posix_fallocate", refuse)
    with pytest.raises(DiskError, match="does not fit"), claim(tmp_path, SHA, SIZE):
        pass
    assert names(tmp_path) == []


def test_disk_that_cannot_reserve_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr("labsync.transfer.parts.os.posix_fallocate", refuse)
    with claim(tmp_path, SHA, SIZE) as part:
        assert os.fstat(part.fd).st_size == SIZE
    room = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    with pytest.raises(DiskError, match="does not fit"), claim(tmp_path, SHA, room + (1 << 30)):
        pass  # and looked at all the same


@pytest.mark.fault(24)
def test_failed_sync_is_not_tried_again_and_the_part_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    with claim(tmp_path, SHA, SIZE) as part:
        part.keep([(0, 5)])
        monkeypatch.setattr("labsync.transfer.parts.os.fdatasync", fail)
        with pytest.raises(OSError, match="input/output"):
            part.keep([(5, 9)])
    assert names(tmp_path) == []


def test_whole_file_is_adopted_and_the_lock_goes_with_it(tmp_path: Path) -> None:
    whole, stage = tmp_path / "whole", tmp_path / "stage"
    stage.mkdir()
    whole.write_bytes(b"w" * SIZE)
    with claim(stage, SHA, SIZE) as part:
        assert part.adopt(whole)
        assert not whole.exists()
        assert os.pread(part.fd, 3, 0) == b"www"
        with claim(stage, SHA, SIZE) as other:
            assert other.path != part.path
        os.replace(part.path, tmp_path / "published")
    assert names(stage) == []


def test_file_of_another_size_is_not_adopted(tmp_path: Path) -> None:
    whole, stage = tmp_path / "whole", tmp_path / "stage"
    stage.mkdir()
    whole.write_bytes(b"half")
    with claim(stage, SHA, SIZE) as part:
        assert not part.adopt(whole)
        assert not part.adopt(tmp_path / "absent")
        assert os.fstat(part.fd).st_size == SIZE
    assert whole.read_bytes() == b"half"


# Sweeping


def entered(folder: Path, *wanted: str) -> list[str]:
    stages = Stages(wanted)
    stages.enter(folder)
    stages.close()
    return names(folder)


def old(path: Path) -> None:
    os.utime(path, (time.time() - KEPT - 60,) * 2)


def test_what_can_be_continued_is_kept_for_a_day_and_while_it_is_wanted(tmp_path: Path) -> None:
    path = leave(tmp_path, (0, 5))
    assert entered(tmp_path) == [f"{SHA}.blocks", f"{SHA}.part"]
    old(path)
    assert entered(tmp_path, SHA) == [f"{SHA}.blocks", f"{SHA}.part"]
    assert entered(tmp_path) == []


@pytest.mark.parametrize(
    "name", [f"{SHA}.part", f"{SHA}.0123abcd.part", f"{SHA}.blocks", f"{'0' * 64}.part"], ids=lambda n: n[64:]
)
def test_what_no_run_can_continue_is_removed_even_if_it_is_wanted(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"half a file")
    assert entered(tmp_path, SHA) == []


@pytest.mark.parametrize("name", ["notes.part", f"{SHA}.txt", f"x{SHA}.part", f"{SHA}.parts"])
def test_foreign_files_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"the user's")
    assert entered(tmp_path) == [name]


def test_stage_in_use_is_not_swept(tmp_path: Path) -> None:
    first, second = Stages(), Stages()
    first.enter(tmp_path)
    (tmp_path / f"{SHA}.part").write_bytes(b"being written")
    second.enter(tmp_path)
    assert names(tmp_path) == [f"{SHA}.part"]
    first.close()
    second.close()
    assert entered(tmp_path) == []


# Reading from the disk


@pytest.mark.parametrize(("start", "stop"), [(0, None), (0, 10), (1, 4), (5, None), (9, 10), (3, 3)])
def test_disk_reader_gives_the_part_it_is_asked_for(tmp_path: Path, start: int, stop: int | None) -> None:
    home, data = FakeHome(tmp_path), b"some bytes"
    home.put("a", data)
    blocks = DiskReader(home).read(Ref("", path="a"), entry_of("a", data), start, stop)
    assert b"".join(map(bytes, blocks)) == data[start:stop]


@pytest.mark.parametrize("now", [b"some bytes and more", b"some"])
def test_disk_reader_says_when_the_file_has_another_size(tmp_path: Path, now: bytes) -> None:
    home = FakeHome(tmp_path)
    home.put("a", now)
    with pytest.raises(IntegrityError):
        list(DiskReader(home).read(Ref("", path="a"), entry_of("a", b"some bytes")))


def test_disk_reader_says_when_the_file_becomes_shorter(tmp_path: Path) -> None:
    data = bytes(3 << 20)
    path = tmp_path / "a"
    path.write_bytes(data)
    blocks = FileReader(path).read(Ref(""), entry_of("a", data))
    next(blocks)
    os.truncate(path, 1 << 20)
    with pytest.raises(IntegrityError):
        list(blocks)


def test_disk_reader_says_when_the_file_is_gone_or_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        list(FileReader(tmp_path / "a").read(Ref(""), entry_of("a", b"")))
    (tmp_path / "a").mkdir()
    with pytest.raises(UnreadableError):
        list(FileReader(tmp_path / "a").read(Ref(""), entry_of("a", b"")))


def test_nobody_enters_a_stage_before_it_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweeping, go_on = threading.Event(), threading.Event()
    sweep = Stages._sweep

    def slow(self: Stages, folder: Path) -> None:
        sweeping.set()
        assert go_on.wait(30)
        sweep(self, folder)

    monkeypatch.setattr(Stages, "_sweep", slow)
    stages, entered = Stages(), threading.Event()

    def enter() -> None:
        stages.enter(tmp_path)
        entered.set()

    first = threading.Thread(target=stages.enter, args=(tmp_path,))
    first.start()
    assert sweeping.wait(30)
    assert tmp_path not in stages._held
    second = threading.Thread(target=enter)
    second.start()
    assert not entered.is_set()
    go_on.set()
    for thread in (first, second):
        thread.join(30)
    assert entered.is_set()
    stages.close()
