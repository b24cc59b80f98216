"""A snapshot's id: one canonical form, equal everywhere."""

from __future__ import annotations

import gc
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labsync.errors import RefusedError
from labsync.snapshot import EMPTY, FileEntry, Snapshot, canonical_line, from_columns, no_collections
from tests.strategies import odd_snapshots

A, B = "a" * 64, "b" * 64


def test_the_canonical_form_is_the_documented_one() -> None:
    snapshot = Snapshot.of([FileEntry("é/b", B, 7, executable=True), FileEntry('a"\\', A, 0)])
    lines = (
        f'{{"path":"a\\"\\\\","sha256":"{A}","size":0}}\n{{"path":"é/b","sha256":"{B}","size":7,"x":true}}\n'
    )
    assert snapshot.id == hashlib.sha256(lines.encode()).hexdigest()
    assert snapshot.short_id == snapshot.id[:12]
    assert (len(snapshot), snapshot.size) == (2, 7)
    assert snapshot.by_path["é/b"].executable


@given(st.text(), st.integers(0, 1 << 70), st.booleans())
def test_a_canonical_line_is_plain_json_without_spaces(path: str, size: int, executable: bool) -> None:
    fields: dict[str, object] = {"path": path, "sha256": A, "size": size} | (
        {"x": True} if executable else {}
    )
    line = canonical_line(path, A, size, executable)
    assert line == json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    assert line == FileEntry(path, A, size, executable).canonical()


def test_every_character_is_written_as_json_writes_it() -> None:
    for code in (*range(0x3000), 0xD800, 0xDFFF, 0xFFFE, 0x1F600, 0x10FFFF):
        written = json.dumps(chr(code), ensure_ascii=False)
        assert canonical_line(chr(code), A, 0, executable=False).startswith(f'{{"path":{written},"sha256":')


def test_a_long_snapshot_has_the_digest_of_all_its_lines() -> None:
    snapshot = Snapshot.of(FileEntry(f"{n:05}", A, n) for n in range(2500))
    lines = "".join(f"{entry.canonical()}\n" for entry in snapshot)
    assert snapshot.id == hashlib.sha256(lines.encode()).hexdigest()


def test_entries_made_from_columns_are_like_any_other() -> None:
    made = from_columns(FileEntry, ["a", "b"], [A, B], [1, 2], [False, True])
    assert made == [FileEntry("a", A, 1), FileEntry("b", B, 2, executable=True)]
    assert hash(made[0]) == hash(FileEntry("a", A, 1))
    assert from_columns(FileEntry, [], [], [], []) == []
    with pytest.raises(AssertionError):
        from_columns(FileEntry, ["a"], [A], [1])
    with pytest.raises(AssertionError):
        from_columns(FileEntry, ["a"], [A], [1], [])


def test_the_garbage_collector_is_as_it_was_after_its_rest() -> None:
    assert gc.isenabled()
    with no_collections():
        assert not gc.isenabled()
        with no_collections():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), no_collections():
        _ = 1 / 0
    assert gc.isenabled()


def test_the_empty_snapshot_has_the_digest_of_nothing() -> None:
    assert EMPTY.id == hashlib.sha256(b"").hexdigest()
    assert EMPTY.size == 0


@given(odd_snapshots(), st.randoms(use_true_random=False))
def test_the_order_of_the_files_does_not_count(snapshot: Snapshot, random: object) -> None:
    shuffled = list(snapshot)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again = Snapshot.of(shuffled)
    assert again == snapshot
    assert again.id == snapshot.id
    assert [e.path.encode() for e in again] == sorted(e.path.encode() for e in again)


@pytest.mark.parametrize(
    "other",
    [FileEntry("b", A, 1), FileEntry("a", B, 1), FileEntry("a", A, 2), FileEntry("a", A, 1, executable=True)],
)
def test_every_field_counts(other: FileEntry) -> None:
    assert Snapshot.of([FileEntry("a", A, 1)]).id != Snapshot.of([other]).id


def test_paths_are_sorted_by_utf_8_and_not_by_utf_16() -> None:
    assert [e.path for e in Snapshot.of([FileEntry("\U00010000", A, 1), FileEntry("\uffee", A, 1)])] == [
        "\uffee", "\U00010000",
    ]  # fmt: skip


@pytest.mark.parametrize("paths", [["../a"], ["\ud800"], ["a", "A"], ["a", "a/b"]])
def test_refused_names_make_no_snapshot(paths: list[str]) -> None:
    with pytest.raises(RefusedError):
        Snapshot.of(FileEntry(path, A, 1) for path in paths)


@given(odd_snapshots())
def test_a_snapshot_knows_its_files(snapshot: Snapshot) -> None:
    assert set(snapshot.by_path) == {entry.path for entry in snapshot}
    assert len(snapshot) == len(snapshot.entries)
    assert snapshot.size == sum(entry.size for entry in snapshot)
