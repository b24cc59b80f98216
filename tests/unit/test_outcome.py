"""What workflows return: exit codes from errors, lines from plans, conflicts with their ways out."""

from __future__ import annotations

import hashlib

import pytest

from labsync.errors import ConflictError
from labsync.names import ArtifactName
from labsync.places import Found, Inventory, Ref
from labsync.plan import Goal, Kept, Plan, make_plan
from labsync.report import ErrorReport, MirrorRequests, Transferred
from labsync.snapshot import FileEntry, Snapshot
from labsync.steps.conflicts import pull_conflict, push_conflict
from labsync.steps.outcome import Action, Location, actions, finish

RUNS = ArtifactName("results/runs")


def _entry(path: str, content: str) -> FileEntry:
    return FileEntry(path, hashlib.sha256(content.encode()).hexdigest(), len(content))


def _error(code: int) -> ErrorReport:
    return ErrorReport(code, "", "", "it broke", "")


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([], 0),
        ([5], 5),
        ([5, 5], 5),
        ([5, 8], 4),
        ([8, 15], 15),
        ([5, 130], 130),
        ([1, 143], 1),
        ([143, 15], 143),
    ],
)
def test_the_exit_code_follows_the_errors(codes: list[int], code: int) -> None:
    outcome = finish(map(_error, codes))
    assert outcome.report.exit_code == code
    assert len(outcome.report.errors) == len(codes)


def test_items_requests_and_bytes_are_passed_on() -> None:
    outcome = finish(
        (), items=[Location("a", "/a")], requests=MirrorRequests(GET=2), transferred=Transferred(files=1)
    )
    assert outcome.items == (Location("a", "/a"),)
    assert outcome.report.mirror_requests.GET == 2
    assert outcome.report.transferred.files == 1


def test_actions_name_every_path_its_source_its_targets_and_the_reason() -> None:
    twice, other, lost = _entry("a", "same"), _entry("b", "other"), _entry("lost", "nowhere")
    goal = Goal(
        RUNS,
        Snapshot.of([twice, _entry("a2", "same"), other, lost, _entry("mine", "theirs")]),
        disk=Inventory({"mine": Found(_entry("mine", "mine"), "changed")}),
        mirrored={other.sha256: Ref("key"), _entry("", "theirs").sha256: Ref("their key")},
        origin={"a": Ref("hf://x", path="a")},
    )
    assert actions([make_plan(goal)]) == (
        Action(RUNS, "a", "origin", ("disk", "mirror"), 4, "missing on the disk"),
        Action(RUNS, "a2", "origin", ("disk", "mirror"), 4, "missing on the disk"),
        Action(RUNS, "b", "mirror", ("disk",), 5, "missing on the disk"),
        Action(RUNS, "mine", "disk", (), 0, "kept: conflict"),
        Action(RUNS, "lost", "", (), 0, "no place has it"),
    )


def test_no_conflict_where_nothing_is_kept_or_only_ahead() -> None:
    assert pull_conflict(Plan(RUNS), "head") is None
    assert pull_conflict(Plan(RUNS, kept=(Kept(RUNS, "x", "ahead"),)), "head") is None


def test_a_conflict_of_a_pull_names_three_paths_and_the_way_out() -> None:
    kept = tuple(Kept(RUNS, f"{name}\x1b", "conflict") for name in "abcde")
    error = pull_conflict(Plan(RUNS, kept=kept), "head")
    assert isinstance(error, ConflictError)
    assert error.what == (
        "`a\\x1b`, `b\\x1b`, `c\\x1b` and 2 more of `results/runs` was changed here and differs from the head"
    )
    assert "`labsync pull results/runs --force`" in error.hint
    assert error.path == "a\x1b"


def test_a_conflict_of_a_push_names_both_ways_out_and_where_mine_is() -> None:
    mine = Snapshot.of([_entry("a", "x")])
    error = push_conflict(RUNS, ("a",), mine)
    assert error.what == "`a` of `results/runs` changed here and on another box"
    assert f"results/runs@{mine.short_id}" in error.safe
    assert "`labsync push results/runs --force`" in error.hint
    assert "`labsync pull results/runs --force`" in error.hint
