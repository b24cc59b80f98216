"""What outlives a killed run of the uploads in parts under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from labsync.places import StoredPart, UnfinishedUpload
from labsync.state import State

if TYPE_CHECKING:
    from pathlib import Path

SHA = "a" * 64
OTHER = "b" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".labsync" / "labsync.sqlite"


@pytest.fixture
def state(path: Path) -> State:
    return State(path)


def test_an_upload_in_parts_is_continued_by_the_next_process(state: State, path: Path) -> None:
    journal = state.multipart("s3://a results/runs")
    assert journal.unfinished("key") is None
    journal.begin("key", SHA, "upload-1", 8 << 20)
    parts = (StoredPart(1, "e1", OTHER), StoredPart(2, "e2", SHA))
    for part in reversed(parts):
        journal.add("key", part)
    again = State(path).multipart("s3://a results/runs")
    assert again.unfinished("key") == UnfinishedUpload("upload-1", 8 << 20, parts)
    assert again.keys() == {SHA: "key"}
    assert again.unfinished("another") is None


def test_a_part_sent_again_replaces_the_one_before(state: State) -> None:
    journal = state.multipart("a")
    journal.begin("key", SHA, "upload-1", 8)
    journal.add("key", StoredPart(1, "old", OTHER))
    journal.add("key", StoredPart(1, "new", SHA))
    assert journal.unfinished("key") == UnfinishedUpload("upload-1", 8, (StoredPart(1, "new", SHA),))


def test_a_new_upload_forgets_the_parts_of_the_one_before(state: State) -> None:
    journal = state.multipart("a")
    journal.begin("key", SHA, "upload-1", 8)
    journal.add("key", StoredPart(1, "e1", OTHER))
    journal.begin("key", OTHER, "upload-2", 16)
    assert journal.unfinished("key") == UnfinishedUpload("upload-2", 16)
    assert journal.keys() == {OTHER: "key"}


def test_uploads_of_other_artifacts_and_keys_are_left_alone(state: State) -> None:
    mine, other = state.multipart("a"), state.multipart("b")
    for journal in (mine, other):
        for key in ("one", "two"):
            journal.begin(key, SHA if key == "one" else "", f"upload-{key}", 8)
            journal.add(key, StoredPart(1, "e1", OTHER))
    mine.end("one")
    mine.end("one")
    assert mine.unfinished("one") is None
    assert mine.keys() == {}  # of a pack nobody knows the digest before it is written
    assert mine.unfinished("two") == UnfinishedUpload("upload-two", 8, (StoredPart(1, "e1", OTHER),))
    assert other.unfinished("one") == UnfinishedUpload("upload-one", 8, (StoredPart(1, "e1", OTHER),))
