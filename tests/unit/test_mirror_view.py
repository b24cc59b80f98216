"""The mirror as one command sees it: asked once, remembered by marks, walked from head to parent."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from labsync.errors import InvalidError, NotFoundError
from labsync.mirrors.base import Head, HeadName, Index, Located
from labsync.mirrors.memory import MemoryMirror
from labsync.names import ArtifactName
from labsync.snapshot import FileEntry
from labsync.state import State
from labsync.steps.mirror_view import MirrorView

RUNS = ArtifactName("results/runs")


def _index(*contents: str, parent: str = "") -> Index:
    located = []
    for content in contents:
        entry = FileEntry(content, hashlib.sha256(content.encode()).hexdigest(), len(content))
        located.append(Located(entry, f"results/runs/batch/{content}"))
    return Index(RUNS, tuple(located), parent=parent, time="2026-01-01T00:00:00Z", host="box")


def _conflict(content: str) -> str:
    return HeadName.conflict(RUNS, _index(content).snapshot.id).label


@pytest.fixture
def mirror() -> MemoryMirror:
    return MemoryMirror()


@pytest.fixture
def state() -> State:
    return State(Path(":memory:"))


def _publish(mirror: MemoryMirror, index: Index, expected: Head | None = None, label: str = "") -> Head:
    return mirror.publish(HeadName(RUNS, label), index, expected)


def test_heads_are_listed_once_and_again_after_a_refresh(mirror: MemoryMirror, state: State) -> None:
    view = MirrorView(mirror, state)
    assert view.newest(RUNS) is None
    head = _publish(mirror, _index("a"))
    assert view.newest(RUNS) is None
    view.refresh()
    assert view.newest(RUNS) == head
    assert mirror.requests().LIST == 2


def test_an_unchanged_head_and_its_index_are_never_fetched_again(mirror: MemoryMirror, state: State) -> None:
    head = _publish(mirror, _index("a"))
    first = MirrorView(mirror, state)
    assert first.newest(RUNS) == head
    index = first.index(head.index)
    asked = mirror.requests().GET
    second = MirrorView(mirror, state)
    assert second.newest(RUNS) == head
    assert second.index(head.index) == index
    assert asked == mirror.requests().GET


def test_a_moved_head_is_fetched(mirror: MemoryMirror, state: State) -> None:
    head = _publish(mirror, _index("a"))
    assert MirrorView(mirror, state).newest(RUNS) == head
    moved = _publish(mirror, _index("b", parent=head.index), head)
    assert MirrorView(mirror, state).newest(RUNS) == moved


def test_what_was_published_here_is_known_without_asking(mirror: MemoryMirror, state: State) -> None:
    view = MirrorView(mirror, state)
    assert view.newest(RUNS) is None
    head = _publish(mirror, _index("a"))
    view.remember(head)
    asked = mirror.requests()
    assert view.newest(RUNS) == head
    assert mirror.requests() == asked


def test_contents_are_those_of_every_head(mirror: MemoryMirror, state: State) -> None:
    first = _publish(mirror, _index("a"))
    _publish(mirror, _index("b"), first)
    loser = _publish(mirror, _index("c"), label=_conflict("c"))
    view = MirrorView(mirror, state)
    assert sorted(ref.location[-1] for ref in view.contents(RUNS).values()) == ["b", "c"]
    assert view.contents(ArtifactName("results/other")) == {}
    assert [name.label for name in view.conflicts(RUNS)] == [loser.name.label]


def test_history_walks_from_the_newest_to_the_first_then_to_the_losers(
    mirror: MemoryMirror, state: State
) -> None:
    first = _publish(mirror, _index("a"))
    second = _publish(mirror, _index("b", parent=first.index), first)
    third = _publish(mirror, _index("c", parent=second.index), second)
    loser = _publish(mirror, _index("x", parent=second.index), label=_conflict("x"))
    found = [index_id for index_id, _ in MirrorView(mirror, state).history(RUNS)]
    assert found == [third.index, second.index, first.index, loser.index]


def test_an_index_is_read_once_in_a_command(mirror: MemoryMirror, state: State) -> None:
    first = _publish(mirror, _index("a"))
    head = _publish(mirror, _index("b", parent=first.index), first)
    view = MirrorView(mirror, state)
    indexes = dict(view.history(RUNS))
    assert view.index(head.index) is indexes[head.index]
    assert dict(view.history(RUNS))[first.index] is indexes[first.index]


def test_only_the_indexes_used_last_are_kept(
    mirror: MemoryMirror, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labsync.steps.mirror_view.KEPT_FILES", 2)
    ids = [_publish(mirror, _index(name), label=_conflict(name)).index for name in ("a", "b", "c")]
    view = MirrorView(mirror, state)
    a, b = view.index(ids[0]), view.index(ids[1])
    assert view.index(ids[0]) is a
    view.index(ids[2])  # now three files: b, unused for longest, must go
    assert view.index(ids[0]) is a
    assert view.index(ids[1]) == b
    assert view.index(ids[1]) is not b
    monkeypatch.setattr("labsync.steps.mirror_view.KEPT_FILES", 0)
    last = view.index(ids[2])
    assert view.index(ids[2]) is last


def test_what_an_index_counts_and_follows_is_remembered_without_it(
    mirror: MemoryMirror, state: State
) -> None:
    first = _publish(mirror, _index("a"))
    second = _publish(mirror, _index("b", "ccc", parent=first.index), first)
    head = _publish(mirror, _index("d", parent=second.index), second)
    view = MirrorView(mirror, state)
    view.list_heads()
    assert view.counts(second.index) == (2, 4)
    assert view.descends(RUNS, first.index)
    for found in (first, second, head):
        state.delete("index", found.index)
        del mirror.objects[f".labsync/index/{found.index}.jsonl.zst"]
    later = MirrorView(mirror, state)
    later.list_heads()
    assert later.counts(second.index) == (2, 4)
    assert later.descends(RUNS, first.index)
    assert not later.descends(RUNS, "0" * 64)  # and to say so the first index would be needed


def test_an_index_that_is_gone_is_not_an_empty_one(mirror: MemoryMirror, state: State) -> None:
    with pytest.raises(NotFoundError):
        MirrorView(mirror, state).index("0" * 64)


def test_a_head_that_does_not_go_back_to_an_index_is_another_mirrors(
    mirror: MemoryMirror, state: State
) -> None:
    first = _publish(mirror, _index("a"))
    second = _publish(mirror, _index("b", parent=first.index), first)
    view = MirrorView(mirror, state)
    assert view.descends(RUNS, "0" * 64)  # nothing was listed
    view.list_heads()
    assert view.descends(RUNS, first.index)
    assert view.descends(RUNS, second.index)
    assert not view.descends(RUNS, "0" * 64)
    assert view.descends(ArtifactName("results/other"), "0" * 64)  # no head


def test_damaged_keys_stay_known(mirror: MemoryMirror, state: State) -> None:
    view = MirrorView(mirror, state)
    assert view.damaged == frozenset()
    view.condemn(frozenset({"results/runs/b/x", "results/runs/b/\u2028"}))
    view.condemn(frozenset({"results/runs/b/y"}))
    known = {"results/runs/b/x", "results/runs/b/\u2028", "results/runs/b/y"}
    assert view.damaged == MirrorView(mirror, state).damaged == known


def test_an_index_that_is_lost_or_damaged_is_not_readable_but_a_newer_one_is_not_guessed_at(
    mirror: MemoryMirror, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = _publish(mirror, _index("a"))
    (key,) = [key for key in mirror.objects if key.startswith(".labsync/index/")]
    data = mirror.objects.pop(key)
    assert MirrorView(mirror, state).readable(head) is None
    mirror.objects[key] = data[:-1]
    assert MirrorView(mirror, state).readable(head) is None
    monkeypatch.setattr("labsync.mirrors.indexes.VERSION", 2)
    newer = _publish(mirror, _index("b"), head)
    monkeypatch.undo()
    with pytest.raises(InvalidError, match="version 2"):
        MirrorView(mirror, state).readable(newer)
    mirror.objects[key] = data
    assert MirrorView(mirror, state).readable(head) == _index("a")
