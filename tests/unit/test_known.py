"""Files beside what is remembered of them: only the very same stat counts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from labsync.disk.known import beside

if TYPE_CHECKING:
    from labsync.state import Remembered

SHA = "a" * 64


def stat_of(*, size: int = 5, mtime: int = 10, ctime: int = 11, inode: int = 7) -> os.stat_result:
    fields = (0o100644, inode, 1, 1, 0, 0, size, 0, 0, 0)
    return os.stat_result(fields, {"st_atime_ns": 0, "st_mtime_ns": mtime, "st_ctime_ns": ctime})


def row_of(path: str) -> Remembered:
    return (path.encode(), 5, 10, 11, 7, SHA, 1, 10)


def test_each_file_gets_what_is_remembered_of_it_and_nothing_else() -> None:
    files = [(path, stat_of()) for path in ("a", "b/c", "ñ", "\U0001f600")]
    rows = [row_of(path) for path in ("!", "a", "b", "b/c", "c", "\uffee", "\U0001f600", "\U0001f601")]
    assert list(beside(files, iter(rows))) == [
        ("a", files[0][1], row_of("a")),
        ("b/c", files[1][1], row_of("b/c")),
        ("ñ", files[2][1], None),
        ("\U0001f600", files[3][1], row_of("\U0001f600")),
    ]


def test_a_name_of_other_bytes_that_is_remembered_hides_none_behind_it() -> None:
    rows = [(b"a\xff", *row_of("a")[1:]), row_of("b")]
    assert [row for *_, row in beside([("b", stat_of())], iter(rows))] == [row_of("b")]


@pytest.mark.parametrize(
    "changed",
    [stat_of(size=6), stat_of(mtime=9), stat_of(ctime=12), stat_of(inode=8)],
    ids=["size", "mtime", "ctime", "inode"],
)
def test_another_stat_is_another_file(changed: os.stat_result) -> None:
    assert [row for *_, row in beside([("a", changed)], iter([row_of("a")]))] == [None]


def test_inode_numbers_of_64_bits_are_compared_as_they_are_kept() -> None:
    row = row_of("a")
    kept = (*row[:4], 2**63 - 1, *row[5:])
    assert [row for *_, row in beside([("a", stat_of(inode=2**64 - 1))], iter([kept]))] == [kept]
