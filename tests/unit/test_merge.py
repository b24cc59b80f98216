"""How two histories of a made artifact meet: the tables, and what holds for every pair of them."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from labsync.errors import RefusedError
from labsync.merge import base_after, is_complete, merge_results, units
from labsync.snapshot import EMPTY, FileEntry, Snapshot
from tests.strategies import PATHS, entries, entry_of, odd_snapshots, paths, snapshots

A, B, C = (entry_of("f", data) for data in (b"a", b"b", b"c"))
Content = FileEntry | None


def one(entry: Content) -> Snapshot:
    return Snapshot((entry,) if entry else ())


def overlay(under: Snapshot, *changes: FileEntry) -> Snapshot:
    return Snapshot.of({**under.by_path, **{e.path: e for e in changes}}.values())


@pytest.mark.parametrize(
    ("disk", "base", "head", "expected"),
    [
        # disk, base, head -> head afterwards
        (None, None, None, None),
        (A, None, None, A),  # new here
        (None, None, A, A),  # new there
        (A, None, A, A),  # the same on both sides
        (A, A, A, A),  # nothing happened
        (B, A, A, B),  # changed here
        (A, A, B, B),  # changed there
        (B, A, B, B),  # changed to the same
        (None, A, A, A),  # gone here: absence is not deletion
        (None, A, B, B),  # gone here, changed there
        (A, A, None, None),  # pruned there: not brought back by a disk that only still has it
        (B, A, None, B),  # pruned there, changed here
        (None, A, None, None),  # gone on both sides
    ],
)
def test_merge_table(disk: Content, base: Content, head: Content, expected: Content) -> None:
    merge = merge_results(one(disk), one(base), one(head), prune=False, force=False)
    assert merge.snapshot == one(expected)
    assert merge.conflicts == ()
    assert merge.loser is None


@pytest.mark.parametrize("base", [one(A), one(None), None])
def test_path_changed_on_both_sides_keeps_both_contents(base: Snapshot | None) -> None:
    merge = merge_results(one(B), base, one(C), prune=False, force=False)
    assert merge.conflicts == ("f",)
    assert merge.snapshot == one(C)
    assert merge.loser == one(B)


@pytest.mark.parametrize("base", [one(A), None])
def test_force_takes_this_disks_content(base: Snapshot | None) -> None:
    merge = merge_results(one(B), base, one(C), prune=False, force=True)
    assert (merge.snapshot, merge.conflicts, merge.loser) == (one(B), (), None)


@pytest.mark.parametrize(
    ("base", "head", "expected"),
    [
        (A, A, None),  # known here, gone here: removed
        (A, B, B),  # somebody changed it meanwhile: not ours to remove
        (None, A, A),  # never was here
    ],
)
def test_prune_removes_only_what_the_base_knew(base: Content, head: Content, expected: Content) -> None:
    merge = merge_results(EMPTY, one(base), one(head), prune=True, force=False)
    assert merge.snapshot == one(expected)


def test_loser_differs_from_the_head_in_the_conflicting_paths_only() -> None:
    theirs, newer = entry_of("other", b"theirs"), entry_of("g", b"newer")
    base, older = one(A), entry_of("g", b"older")
    merge = merge_results(
        overlay(one(B), older), overlay(base, older), overlay(one(C), theirs, newer),
        prune=False, force=False,
    )  # fmt: skip
    assert merge.loser == overlay(merge.snapshot, B)
    assert merge.loser.by_path["g"] == newer


def test_names_that_one_file_system_would_fold_are_refused() -> None:
    with pytest.raises(RefusedError):
        merge_results(Snapshot((entry_of("F", b""),)), None, one(A), prune=False, force=False)


def test_a_change_that_was_not_pulled_is_not_taken_back_by_the_next_push() -> None:
    disk, head = overlay(one(A), entry_of("mine", b"1")), one(B)
    first = merge_results(disk, one(A), head, prune=False, force=False)
    assert first.snapshot.by_path["f"] == B
    second = merge_results(disk, first.base, first.snapshot, prune=False, force=False)
    assert second.snapshot == first.snapshot


def test_prune_after_a_push_spares_files_that_were_never_here() -> None:
    theirs = entry_of("theirs", b"t")
    first = merge_results(one(A), None, one(theirs), prune=False, force=False)
    second = merge_results(one(A), first.base, first.snapshot, prune=True, force=False)
    assert second.snapshot.by_path["theirs"] == theirs


@pytest.mark.parametrize(
    ("disk", "base", "head", "expected"),
    [
        (A, None, A, A),  # seen
        (A, B, A, A),  # seen by now
        (A, A, B, A),  # not pulled yet
        (B, A, C, A),  # a conflict keeps its old base
        (B, A, A, A),  # ahead
        (None, A, A, A),  # gone here, known still
        (None, None, A, None),  # never was here
        (A, A, None, A),  # pruned there, still here
        (None, A, None, None),  # forgotten
        (A, None, None, None),
    ],
)
def test_base_table(disk: Content, base: Content, head: Content, expected: Content) -> None:
    assert base_after(one(disk), one(base), one(head)) == one(expected)


@given(odd_snapshots(), st.none() | odd_snapshots(), odd_snapshots(), st.booleans())
def test_base_is_a_snapshot_that_can_be_whatever_the_names(
    disk: Snapshot, base: Snapshot | None, head: Snapshot, prune: bool
) -> None:
    try:
        merge = merge_results(disk, base, head, prune=prune, force=False)
    except RefusedError:
        assume(False)
    assert set(merge.base) <= set(merge.snapshot) | set(base or ())


@pytest.mark.fault(65)
@given(snapshots(), st.none() | snapshots(), snapshots(), st.booleans(), st.booleans())
def test_every_content_of_the_head_and_of_this_disk_survives_or_was_superseded(
    disk: Snapshot, base: Snapshot | None, head: Snapshot, prune: bool, force: bool
) -> None:
    merge = merge_results(disk, base, head, prune=prune, force=force)
    known = (base or EMPTY).by_path
    kept = set(merge.snapshot) | set(merge.loser or ())
    for entry in head:
        superseded = force or known.get(entry.path) == entry
        assert entry in kept or superseded
    for entry in disk:
        assert entry in kept or known.get(entry.path) == entry


@given(snapshots(), st.none() | snapshots(), snapshots())
def test_without_prune_no_name_leaves_the_head(disk: Snapshot, base: Snapshot | None, head: Snapshot) -> None:
    merge = merge_results(disk, base, head, prune=False, force=False)
    assert head.by_path.keys() <= merge.snapshot.by_path.keys()


@given(snapshots(), st.none() | snapshots(), snapshots())
def test_conflicts_are_the_paths_in_which_head_and_loser_differ(
    disk: Snapshot, base: Snapshot | None, head: Snapshot
) -> None:
    merge = merge_results(disk, base, head, prune=False, force=False)
    loser = merge.loser or merge.snapshot
    differing = {p for p, e in loser.by_path.items() if merge.snapshot.by_path.get(p) != e}
    assert differing == set(merge.conflicts)
    for path in merge.conflicts:
        assert merge.snapshot.by_path[path] == head.by_path[path]
        assert loser.by_path[path] == disk.by_path[path]
        assert merge.base.by_path.get(path) == (base or EMPTY).by_path.get(path)


@given(snapshots(), st.none() | snapshots(), snapshots(), st.booleans())
def test_pushing_again_changes_nothing(
    disk: Snapshot, base: Snapshot | None, head: Snapshot, force: bool
) -> None:
    first = merge_results(disk, base, head, prune=False, force=force)
    again = merge_results(disk, first.base, first.snapshot, prune=False, force=False)
    assert again.snapshot == first.snapshot
    assert again.base == first.base
    assert again.conflicts == first.conflicts


@given(snapshots(), st.data())
def test_disjoint_changes_of_two_boxes_meet_in_the_same_head_in_either_order(
    base: Snapshot, data: st.DataObject
) -> None:
    mine, yours = set(PATHS[::2]), set(PATHS[1::2])
    box_a = overlay(base, *(data.draw(entries(p)) for p in sorted(mine) if data.draw(st.booleans())))
    box_b = overlay(base, *(data.draw(entries(p)) for p in sorted(yours) if data.draw(st.booleans())))

    def push(disk: Snapshot, head: Snapshot) -> Snapshot:
        merge = merge_results(disk, base, head, prune=False, force=False)
        assert merge.conflicts == ()
        return merge.snapshot

    assert push(box_b, push(box_a, base)) == push(box_a, push(box_b, base))
    assert push(box_b, push(box_a, base)) == overlay(base, *(e for e in (*box_a, *box_b) if e not in base))


def test_units_are_the_child_folders_and_the_direct_files_together() -> None:
    found = units(["checkpoint-2/b/c", "checkpoint-1/a", "last.pth", "config.json", "checkpoint-2/a"])
    assert found == {
        "": ("config.json", "last.pth"),
        "checkpoint-1": ("checkpoint-1/a",),
        "checkpoint-2": ("checkpoint-2/a", "checkpoint-2/b/c"),
    }


@given(st.lists(paths(), unique=True))
def test_every_path_is_in_exactly_one_unit(names: list[str]) -> None:
    members = [path for unit in units(names).values() for path in unit]
    assert sorted(members) == sorted(names)


@pytest.mark.fault(36)
@pytest.mark.parametrize(
    ("unit", "members", "marker", "expected"),
    [
        ("checkpoint-10", ["checkpoint-10/model.safetensors"], "", False),
        ("checkpoint-10", ["checkpoint-10/trainer_state.json"], "", True),
        ("checkpoint-10", ["checkpoint-10/deep/trainer_state.json"], "", False),
        ("mine", ["mine/model.pth"], "", True),
        ("mine", ["mine/model.pth"], "DONE", False),
        ("mine", ["mine/model.pth", "mine/DONE"], "DONE", True),
        ("checkpoint-10", ["checkpoint-10/trainer_state.json"], "DONE", False),
        ("", ["model.pth"], "", True),
        ("", ["model.pth"], "DONE", False),
        ("", ["model.pth", "DONE"], "DONE", True),
    ],
)
def test_completeness_table(unit: str, members: list[str], marker: str, expected: bool) -> None:
    assert is_complete(unit, members, marker) is expected
