"""A snapshot's id: one canonical form, equal everywhere."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labsync.errors import RefusedError
from labsync.snapshot import EMPTY, FileEntry, Snapshot
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
