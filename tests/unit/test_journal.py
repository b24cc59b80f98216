"""The journal of a part file: what it says is true, wherever it was cut off or damaged."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labsync.transfer.journal import Journal, parse, read
from labsync.transfer.ranges import Extent, merged

SHA = "ab" * 32
SIZE = 10_000


def written(folder: Path, *groups: list[Extent]) -> Journal:
    journal = Journal(folder / "j.blocks", SHA, SIZE)
    for group in groups:
        journal.add(group)
    return journal


def groups() -> st.SearchStrategy[list[list[Extent]]]:
    extent = st.tuples(st.integers(0, SIZE - 1), st.integers(1, 999)).map(
        lambda p: (p[0], min(SIZE, p[0] + p[1]))
    )
    return st.lists(st.lists(extent, min_size=1, max_size=3), min_size=1, max_size=5)


@given(groups())
def test_journal_tells_what_was_added(found: list[list[Extent]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = written(Path(folder), *found)
        again = Journal(Path(folder) / "j.blocks", SHA, SIZE)
        again.load()
        assert again.extents == journal.extents == tuple(merged(e for group in found for e in group))


@pytest.mark.fault(3)
@given(groups(), st.data())
def test_journal_cut_at_any_byte_tells_what_its_whole_lines_say_and_goes_on(
    found: list[list[Extent]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "j.blocks"
        written(Path(folder), *found)
        text = path.read_bytes()
        cut = data.draw(st.integers(0, len(text)))
        path.write_bytes(text[:cut])
        lines = text[:cut].count(b"\n")
        flat = [extent for group in found for extent in group]
        journal = Journal(path, SHA, SIZE)
        journal.load()
        assert journal.extents == tuple(merged(flat[: max(0, lines - 1)]))
        journal.add([(0, 1)])
        again = read(path)
        assert again is not None
        assert again.extents == tuple(merged([*flat[: max(0, lines - 1)], (0, 1)]))


@given(groups(), st.data())
def test_damaged_byte_ends_the_journal_there(found: list[list[Extent]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "j.blocks"
        written(Path(folder), *found)
        text = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(text) - 1))
        text[at] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(text)
        line = path.read_bytes()[:at].count(b"\n")
        record = read(path)
        flat = [extent for group in found for extent in group]
        assert (record.extents if record else ()) == tuple(merged(flat[: max(0, line - 1)]))


@pytest.mark.parametrize(
    ("sha256", "size"), [("cd" * 32, SIZE), (SHA, SIZE + 1)], ids=["another content", "another size"]
)
def test_journal_of_another_content_is_of_no_use(tmp_path: Path, sha256: str, size: int) -> None:
    written(tmp_path, [(0, 5)])
    other = Journal(tmp_path / "j.blocks", sha256, size)
    other.load()
    assert other.extents == ()
    assert not (tmp_path / "j.blocks").exists()


def test_line_of_another_journal_proves_nothing(tmp_path: Path) -> None:
    written(tmp_path, [(0, 5)])
    path = tmp_path / "j.blocks"
    line = path.read_bytes().splitlines(keepends=True)[1]
    path.unlink()
    other = Journal(path, "cd" * 32, SIZE)
    other.add([(5, 6)])
    with path.open("ab") as file:
        file.write(line)
    record = read(path)
    assert record is not None
    assert record.extents == ((5, 6),)


@pytest.mark.parametrize("text", [b"", b"\n", b"labsync blocks 1", b"\0" * 100, b"{}\n", b"\xff 00000000\n"])
def test_what_is_no_journal_is_none(text: bytes) -> None:
    assert parse(text) is None


def test_unknown_version_begins_anew(tmp_path: Path) -> None:
    import zlib

    header = b"labsync blocks 2 %s %d" % (SHA.encode(), SIZE)
    path = tmp_path / "j.blocks"
    path.write_bytes(b"%s %08x\n" % (header, zlib.crc32(header)))
    journal = Journal(path, SHA, SIZE)
    journal.load()
    assert journal.extents == ()
    assert not path.exists()


def test_extent_behind_the_end_is_not_believed(tmp_path: Path) -> None:
    written(tmp_path, [(0, 5), (SIZE - 1, SIZE + 1), (6, 7)])
    record = read(tmp_path / "j.blocks")
    assert record is not None
    assert record.extents == ((0, 5),)


def test_journal_that_somebody_removed_is_written_again_whole(tmp_path: Path) -> None:
    journal = written(tmp_path, [(0, 5)])
    (tmp_path / "j.blocks").unlink()
    journal.add([(7, 9)])
    record = read(tmp_path / "j.blocks")
    assert record is not None
    assert record.extents == ((0, 5), (7, 9))


def test_link_is_not_followed(tmp_path: Path) -> None:
    written(tmp_path, [(0, 5)])
    os.rename(tmp_path / "j.blocks", tmp_path / "elsewhere")
    (tmp_path / "j.blocks").symlink_to(tmp_path / "elsewhere")
    assert read(tmp_path / "j.blocks") is None


def test_format_is_the_documented_one(tmp_path: Path) -> None:
    written(tmp_path, [(0, 5)], [(7, 9)])
    header, *lines = (tmp_path / "j.blocks").read_text().splitlines()
    assert header.rpartition(" ")[0] == f"labsync blocks 1 {SHA} {SIZE}"
    assert [line.rpartition(" ")[0] for line in lines] == ["0 5", "7 9"]
