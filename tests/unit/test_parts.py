"""Part files belong to one writer; reading from the disk and the proof of bytes."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from labsync.errors import IntegrityError, NotFoundError
from labsync.places import Ref
from labsync.transfer.parts import claim
from labsync.transfer.verify import DiskReader, verify
from tests.fakes.places import FakeHome
from tests.strategies import entry_of

SHA = "ab" * 32


def test_one_content_claimed_twice_at_once_has_two_names(tmp_path: Path) -> None:
    with claim(tmp_path, SHA) as first, claim(tmp_path, SHA) as second:
        assert first.path == tmp_path / f"{SHA}.part"
        assert second.path.name.startswith(SHA)
        assert second.path != first.path
    with claim(tmp_path, SHA) as again:
        assert again.path == first.path
    assert list(tmp_path.iterdir()) == []


def test_published_part_stays_and_so_does_the_next_ones_file(tmp_path: Path) -> None:
    published = tmp_path / "published"
    with claim(tmp_path, SHA) as part:
        part.path.write_bytes(b"good")
        os.replace(part.path, published)
        part.path.write_bytes(b"somebody else's by now")
    assert published.read_bytes() == b"good"
    assert part.path.read_bytes() == b"somebody else's by now"


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
    with claim(tmp_path, SHA) as part:
        part.path.write_bytes(b"new")
        with claim(tmp_path, SHA) as other:
            assert other.path != part.path, "the lock is that of the new file"
    assert published.read_bytes() == b"good"
    assert list(tmp_path.iterdir()) == [published]


def test_part_of_its_own_keeps_no_descriptor_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with claim(tmp_path, SHA, alone=True) as part:
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        assert part.path.name != f"{SHA}.part"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("start", [0, 1, 5, 9])
def test_disk_reader_writes_from_the_start_it_is_given(tmp_path: Path, start: int) -> None:
    home, into, counts = FakeHome(tmp_path), tmp_path / "into", list[int]()

    def advance(count: int) -> None:
        counts.append(count)

    home.put("a", b"some bytes")
    into.write_bytes(b"some bytes"[:start])
    DiskReader(home).read(Ref("", path="a"), entry_of("a", b"some bytes"), into, start, advance)
    assert into.read_bytes() == b"some bytes"
    assert sum(counts) == 10 - start


def test_disk_reader_does_not_write_past_the_end_and_says_so(tmp_path: Path) -> None:
    home, into = FakeHome(tmp_path), tmp_path / "into"
    home.put("a", b"some bytes and more")
    with pytest.raises(IntegrityError):
        DiskReader(home).read(Ref("", path="a"), entry_of("a", b"some bytes"), into, 0, lambda _: None)
    assert into.read_bytes() == b"some bytes"


def test_disk_reader_says_when_the_file_is_gone(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        DiskReader(FakeHome(tmp_path)).read(
            Ref("", path="a"), entry_of("a", b""), tmp_path / "into", 0, lambda _: None
        )


def test_size_and_digest_are_both_proven(tmp_path: Path) -> None:
    from dataclasses import replace

    file, entry = tmp_path / "file", entry_of("file", b"bytes")
    file.write_bytes(b"bytes")
    verify(file, entry, lambda: None)
    with pytest.raises(IntegrityError, match="5 bytes instead of 4"):
        verify(file, replace(entry, size=4), lambda: None)
    with pytest.raises(IntegrityError, match="SHA-256"):
        verify(file, entry_of("file", b"bits!"), lambda: None)
