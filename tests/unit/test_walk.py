"""The walk through a folder: its order is a snapshot's, and nothing is left out in silence."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labsync.disk.walk import Walk
from labsync.errors import DiskError
from labsync.filters import Filter

ALL = Filter()
# Characters that sort before and after the slash, beyond ASCII and beyond 16 bits; no two fold into one.
SEGMENTS = st.text(alphabet="ab-.!0~éñ日\U0001f600", min_size=1, max_size=4).filter(
    lambda name: name not in {".", ".."}
)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join)


def make(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode("utf-8", "surrogateescape"))


def plant(root: Path, paths: set[str]) -> set[str]:
    """Make those of the files that can be: a name is a file or a folder."""
    made: set[str] = set()
    for path in sorted(paths):
        if not any(other.startswith(f"{path}/") or path.startswith(f"{other}/") for other in made):
            make(root, path)
            made.add(path)
    return made


@settings(max_examples=60, deadline=None)
@given(st.sets(PATHS, max_size=25))
def test_files_come_in_the_order_of_their_utf8_paths(paths: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = plant(Path(folder), paths)
        found = list(Walk(Path(folder), ALL))
        assert [path for path, _ in found] == sorted(made, key=str.encode)
        assert all(stat.st_size == len(path.encode()) for path, stat in found)
        assert all(stat.st_ino == (Path(folder) / path).stat().st_ino for path, stat in found)


def test_a_folder_sorts_with_its_slash(tmp_path: Path) -> None:
    make(tmp_path, "a/x", "a.txt", "a-b", "a0", "a/.hidden", "b/c/d", "b/c.txt")
    assert [path for path, _ in Walk(tmp_path, ALL)] == [
        "a-b", "a.txt", "a/.hidden", "a/x", "a0", "b/c.txt", "b/c/d",
    ]  # fmt: skip


def test_a_walk_can_be_taken_twice(tmp_path: Path) -> None:
    make(tmp_path, "a", "b/c")
    walk = Walk(tmp_path, ALL)
    assert list(walk) == list(walk)


def test_only_what_the_filter_keeps_is_looked_at(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "a.bin", "deep/b.txt")
    (tmp_path / "link.bin").symlink_to("a.txt")
    walk = Walk(tmp_path, Filter(("*.txt",), ("deep/",)))
    assert [path for path, _ in walk] == ["a.txt"]
    assert walk.skipped == ()


@pytest.mark.fault(74)
def test_what_is_left_out_is_told_sorted_with_the_reason(tmp_path: Path) -> None:
    make(tmp_path, "fine", "new\nline", "bad\udcff", "bad\udcfe/inside", "long/" + "/".join(["x" * 200] * 6))
    (tmp_path / "link").symlink_to("fine")
    (tmp_path / "bad\udcff-link").symlink_to("fine")
    walk = Walk(tmp_path, ALL)
    assert [path for path, _ in walk] == ["fine"]
    assert [item.reason for item in walk.skipped] == [
        "its name is not valid UTF-8",
        "its name is not valid UTF-8",
        "its name is not valid UTF-8",
        "is a link",
        "its name is longer than 1024 bytes",
        "its name has a control character",
    ]


def test_what_is_labsyncs_own_is_not_mentioned(tmp_path: Path) -> None:
    make(tmp_path, ".labsync/x", ".labsync-stage/y", ".abc.labsync-new", "deep/.labsync-stage/z", "a")
    walk = Walk(tmp_path, ALL)
    assert [path for path, _ in walk] == ["a"]
    assert walk.skipped == ()


def test_what_vanishes_meanwhile_is_absent(tmp_path: Path) -> None:
    make(tmp_path, "a", "b", "c/d", "e/f")
    found = []
    for path, _ in Walk(tmp_path, ALL):
        found.append(path)
        if path == "a":
            (tmp_path / "b").unlink()
            (tmp_path / "c" / "d").unlink()
            (tmp_path / "c").rmdir()
    assert found == ["a", "e/f"]


def test_a_folder_that_vanishes_behind_its_first_file_is_absent_from_there(tmp_path: Path) -> None:
    make(tmp_path, "a/b", "a/c", "d")
    walk = iter(Walk(tmp_path, ALL))
    assert next(walk)[0] == "a/b"
    (tmp_path / "a").rename(tmp_path.parent / "elsewhere")
    for file in (tmp_path.parent / "elsewhere").iterdir():
        file.unlink()
    assert [path for path, _ in walk] == ["d"]


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a", "deep/b")
    with pytest.raises(DiskError, match="a/"):
        list(Walk(tmp_path / "a", ALL))

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", deny)
    with pytest.raises(DiskError, match="Permission denied"):
        list(Walk(tmp_path, ALL))


def test_a_walk_keeps_no_folder_open(tmp_path: Path) -> None:
    make(tmp_path, *(f"{'d/' * depth}{name}" for depth in range(30) for name in ("a", "z")))
    before = len(os.listdir("/proc/self/fd"))
    walk = iter(Walk(tmp_path, ALL))
    for _ in range(25):
        next(walk)
        assert len(os.listdir("/proc/self/fd")) <= before + 1
    walk.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.fault(73)
@pytest.mark.parametrize(
    ("paths", "is_refused"),
    [
        (("a", "B", "b.txt"), False),
        (("A/x", "b/X"), False),
        (("File", "file"), True),
        (("deep/é", "deep/e\u0301"), True),
        (("deep/straße", "deep/STRASSE"), True),
        (("A/x", "a/y"), True),
    ],
)
def test_names_that_may_be_one_name_elsewhere_are_noticed(
    tmp_path: Path, paths: tuple[str, ...], *, is_refused: bool
) -> None:
    make(tmp_path, *paths)
    walk = Walk(tmp_path, ALL)
    assert len(list(walk)) == len(paths)
    assert walk.is_refused == is_refused
