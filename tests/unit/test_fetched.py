"""Reading once to know digests: checked, retried, bounded by the disk, stopped with the run, used by pull."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING

import pytest

from labsync.digest import git_blob_id
from labsync.errors import DiskError, IntegrityError, NotFoundError, UnavailableError
from labsync.origins.base import Listed
from labsync.places import NoRangesError, Ref
from labsync.snapshot import FileEntry
from labsync.steps.arriving import sweep
from labsync.steps.fetched import Fetcher, drop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from labsync.places import Blocks


class Origin:
    """Files by path; `before` is called with the path before each read and may raise."""

    def __init__(self, files: dict[str, bytes], before: Callable[[str], None] = lambda path: None) -> None:
        self.files, self.before = files, before
        self.reads: list[str] = []

    def read(self, ref: Ref, entry: FileEntry, start: int = 0, stop: int | None = None) -> Blocks:
        self.reads.append(ref.path)
        self.before(ref.path)
        if data := self.files[ref.path][start:stop]:
            yield data


def _fetcher(
    origin: Origin, folder: Path, *, room: int = 1 << 30, keep_above: int = 0, jobs: int = 2
) -> Fetcher:
    return Fetcher(origin, folder, jobs, lambda: room, keep_above, lambda count: None)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labsync.steps.fetched.roll", lambda: 0.0)


def test_entries_come_in_their_order_and_bytes_stay_for_pull(tmp_path: Path) -> None:
    files = {name: name.encode() * 10 for name in "abcdef"}
    origin = Origin(files)
    listed = [Listed(name, size) for name, size in (("c", 10), ("a", -1), ("f", 10))]
    entries = _fetcher(origin, tmp_path / "fetched").fetch("o", "r", listed)
    assert [(entry.path, entry.sha256, entry.size) for entry in entries] == [
        (name, _sha256(files[name]), 10) for name in "caf"
    ]
    assert {path.name for path in (tmp_path / "fetched").iterdir()} == {entry.sha256 for entry in entries}

    drop(tmp_path / "fetched", entries[1:])
    drop(tmp_path / "fetched", entries[1:])
    assert {path.name for path in (tmp_path / "fetched").iterdir()} == {entries[0].sha256}


@pytest.mark.parametrize(
    "listed",
    [
        Listed("a", 4),
        Listed("a", 3, sha256="0" * 64),
        Listed("a", 3, oid="0" * 40),
        Listed("a", -1, sha256="0" * 64),
    ],
)
def test_bytes_that_are_not_the_announced_ones_are_refused_and_not_kept(
    tmp_path: Path, listed: Listed
) -> None:
    with pytest.raises(IntegrityError):
        _fetcher(Origin({"a": b"abc"}), tmp_path / "fetched").fetch("o", "r", [listed])
    assert list((tmp_path / "fetched").iterdir()) == []


def test_what_is_announced_truly_passes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    with (tmp_path / "x").open("rb") as file:
        oid = git_blob_id(file, 3)
    listed = [Listed("a", 3, sha256=_sha256(b"abc"), oid=oid)]
    assert _fetcher(Origin({"a": b"abc"}), tmp_path / "fetched").fetch("o", "r", listed)[0].size == 3


def test_a_read_that_breaks_goes_on_where_it_broke_or_begins_again_where_it_cannot(tmp_path: Path) -> None:
    class Breaking(Origin):
        def read(self, ref: Ref, entry: FileEntry, start: int = 0, stop: int | None = None) -> Blocks:
            self.reads.append(f"{ref.path}{start}")
            if start and ref.path == "whole":
                raise NoRangesError("only the whole")
            yield b"abc"[start : start + 2]
            if not start and len(self.reads) < 2:
                raise UnavailableError("broke")
            yield from [b"abc"[2:]] if not start else []

    for path, reads in (("part", ["part0", "part2"]), ("whole", ["whole0", "whole2", "whole0"])):
        origin = Breaking({})
        entry = _fetcher(origin, tmp_path / "fetched").fetch("o", "r", [Listed(path, 3)])[0]
        assert entry.sha256 == _sha256(b"abc")
        assert origin.reads == reads


def test_an_origin_that_fails_for_a_while_is_asked_again(tmp_path: Path) -> None:
    failures = iter([True, True, False])

    def before(path: str) -> None:
        if next(failures):
            raise UnavailableError("not now")

    origin = Origin({"a": b"abc"}, before)
    assert len(_fetcher(origin, tmp_path / "f").fetch("o", "r", [Listed("a", 3)])) == 1
    assert origin.reads == ["a"] * 3


def test_an_origin_that_never_answers_is_given_up(tmp_path: Path) -> None:
    def before(path: str) -> None:
        raise UnavailableError("never")

    origin = Origin({"a": b"abc"}, before)
    with pytest.raises(UnavailableError):
        _fetcher(origin, tmp_path / "f").fetch("o", "r", [Listed("a", 3)])
    assert len(origin.reads) == 6


def test_one_files_failure_ends_the_others_and_is_the_one_that_is_told(tmp_path: Path) -> None:
    stalled = threading.Event()

    def before(path: str) -> None:
        if path == "gone":
            stalled.wait(30)
            raise NotFoundError("no such file")
        if path == "later":
            stalled.set()
            raise UnavailableError("wait a long time", retry_after=300)

    origin = Origin({"gone": b"", "later": b"x"}, before)
    listed = [Listed("gone", 0), Listed("later", 1)]
    with pytest.raises(NotFoundError):
        _fetcher(origin, tmp_path / "f").fetch("o", "r", listed)
    assert origin.reads.count("later") == 1
    assert list((tmp_path / "f").iterdir()) == []


def test_a_file_that_does_not_fit_is_not_begun(tmp_path: Path) -> None:
    origin = Origin({"a": b"abc"})
    with pytest.raises(DiskError, match="does not fit"):
        _fetcher(origin, tmp_path / "f", room=2).fetch("o", "r", [Listed("a", 3)])
    assert origin.reads == []


def test_bytes_are_dropped_where_they_would_take_the_last_room(tmp_path: Path) -> None:
    fetcher = _fetcher(Origin({"a": b"abc"}), tmp_path / "f", room=100, keep_above=97)
    assert fetcher.fetch("o", "r", [Listed("a", 3)])[0].sha256 == _sha256(b"abc")
    assert list((tmp_path / "f").iterdir()) == []


def test_what_a_killed_run_left_is_swept(tmp_path: Path) -> None:
    sweep(tmp_path / "absent")
    (tmp_path / "0123.part").write_bytes(b"half")
    (tmp_path / _sha256(b"x")).write_bytes(b"x")
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [_sha256(b"x")]
