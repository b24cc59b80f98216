"""Reading files for their digests: what may happen to them meanwhile."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from labsync.digest import sha256_bytes, sha256_stream
from labsync.disk import hashing
from labsync.disk.hashing import ATTEMPTS, hash_file
from labsync.errors import DiskError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def test_a_file_that_is_gone_is_none(tmp_path: Path) -> None:
    assert hash_file(str(tmp_path / "gone"), "gone") is None


def test_a_link_that_took_the_files_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"secret")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(DiskError):
        hash_file(str(tmp_path / "link"), "link")


@pytest.mark.fault(74)
def test_a_pipe_that_took_the_files_place_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert hash_file(str(tmp_path / "pipe"), "pipe") is None


def test_a_file_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, writes, real = tmp_path / "file", [b"second"], sha256_stream
    path.write_bytes(b"first")

    def with_a_writer(blocks: Iterable[bytes]) -> tuple[str, int]:
        answer = real(blocks)
        if writes:
            path.write_bytes(writes.pop())
        return answer

    monkeypatch.setattr(hashing, "sha256_stream", with_a_writer)
    item = hash_file(str(path), "file")
    assert item is not None
    assert item.sha256 == sha256_bytes(b"second")


def test_a_file_that_never_rests_is_reported_and_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real, reads = tmp_path / "file", sha256_stream, []
    path.write_bytes(b"x")

    def with_a_writer(blocks: Iterable[bytes]) -> tuple[str, int]:
        answer = real(blocks)
        reads.append(answer)
        path.write_bytes(b"x" * (len(reads) + 1))
        os.utime(path, ns=(1, 1))
        return answer

    monkeypatch.setattr(hashing, "sha256_stream", with_a_writer)
    item = hash_file(str(path), "file")
    assert item is not None
    assert len(reads) == ATTEMPTS
    assert item.is_racy


@pytest.mark.fault(23)
@pytest.mark.parametrize(("failures", "is_read"), [(ATTEMPTS - 1, True), (ATTEMPTS, False)])
def test_a_reading_error_is_tried_again_and_then_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int, *, is_read: bool
) -> None:
    path, real, left = tmp_path / "file", os.open, [failures]
    path.write_bytes(b"x")

    def failing(name: str, flags: int) -> int:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(5, "Input/output error", name)
        return real(name, flags)

    monkeypatch.setattr(os, "open", failing)
    if is_read:
        item = hash_file(str(path), "file")
        assert item is not None
        assert item.sha256 == sha256_bytes(b"x")
    else:
        with pytest.raises(DiskError, match="Input/output error"):
            hash_file(str(path), "file")
