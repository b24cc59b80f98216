"""How an artifact stands: truth tables of the pure comparisons."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from labsync.places import Found, Inventory
from labsync.snapshot import EMPTY, FileEntry, Snapshot
from labsync.steps.status import Difference, checkpoint_state, compare, made_state, sourced_state

if TYPE_CHECKING:
    from labsync.places import FoundState
    from labsync.report import DiskState


def entry(path: str, content: str) -> FileEntry:
    return FileEntry(path, hashlib.sha256(content.encode()).hexdigest(), len(content))


def snapshot(**files: str) -> Snapshot:
    return Snapshot.of(entry(path.replace("__", "/"), content) for path, content in files.items())


def disk(*, complete: bool = True, **files: str | tuple[str, FoundState]) -> Inventory:
    """Return what is found; a bare content is `changed`, as a file that labsync has no record of."""
    found = {}
    for name, value in files.items():
        path = name.replace("__", "/")
        changed: FoundState = "changed"
        content, state = (value, changed) if isinstance(value, str) else value
        found[path] = Found(entry(path, content), state)
    return Inventory(found, complete=complete)


def test_compare_sorts_every_path_into_one_heap() -> None:
    wanted = snapshot(same="1", lost="1", old="2", mine="2", rotten="2").by_path
    found = disk(
        same=("1", "recorded"),
        old=("1", "recorded"),
        mine=("x", "changed"),
        rotten=("y", "damaged"),
        more="z",
    ).files
    assert compare(wanted, found) == Difference(
        missing=("lost",), damaged=("rotten",), behind=("old",), changed=("mine",), extra=("more",)
    )


def test_a_file_with_the_wanted_bytes_is_no_difference_whatever_its_record_says() -> None:
    for state in ("recorded", "changed", "damaged"):
        assert compare(snapshot(a="1").by_path, disk(a=("1", state)).files) == Difference()


def test_the_executable_bit_is_content() -> None:
    wanted = {"a": FileEntry("a", entry("a", "1").sha256, 1, executable=True)}
    assert compare(wanted, disk(a=("1", "recorded")).files).behind == ("a",)


WANTED = snapshot(a="1", b="2")


@pytest.mark.parametrize(
    ("inventory", "state", "why"),
    [
        (disk(a=("1", "recorded"), b=("2", "recorded")), "ok", ""),
        (disk(a="1", b="2", c="extra"), "ok", ""),
        (Inventory({}, exists=False), "missing", "not on the disk"),
        (disk(a=("1", "recorded")), "incomplete", "`b` missing"),
        (disk(a=("0", "recorded"), b=("2", "recorded")), "behind", "the lock has a newer version of `a`"),
        (disk(a="0", b="2"), "modified", "`a` changed here"),
        (disk(a=("0", "damaged"), b="0"), "modified", "`a` damaged: `labsync verify --repair`"),
        (disk(a="0"), "modified", "`a` changed here"),
        (disk(a="1", b="2", complete=False), "incomplete", "an update of it did not end"),
    ],
)  # fmt: skip
def test_sourced(inventory: Inventory, state: DiskState, why: str) -> None:
    assert sourced_state(WANTED, inventory) == (state, why)


def test_an_empty_sourced_artifact_is_ok_and_not_missing() -> None:
    assert sourced_state(EMPTY, Inventory({}, exists=False)) == ("ok", "")


A1, A2 = snapshot(a="1"), snapshot(a="2")


@pytest.mark.parametrize(
    ("base", "head", "inventory", "state"),
    [
        # nothing, here or there
        (None, None, Inventory({}, exists=False), "ok"),
        # never pushed
        (None, None, disk(a="1"), "ahead"),
        # pushed, unchanged
        (A1, A1, disk(a=("1", "recorded")), "ok"),
        (A1, A1, disk(a="1"), "ok"),
        # changed here, a new file here
        (A1, A1, disk(a="2"), "ahead"),
        (A1, A1, disk(a="1", b="2"), "ahead"),
        # changed there
        (A1, A2, disk(a="1"), "behind"),
        (A1, snapshot(a="1", b="2"), disk(a="1"), "behind"),
        # changed here and there: to the same, and not
        (A1, A2, disk(a="2"), "ok"),
        (A1, A2, disk(a="3"), "conflict"),
        # without a base: the same bytes are fine, others conflict
        (None, A1, disk(a="1"), "ok"),
        (None, A1, disk(a="2"), "conflict"),
        (None, A1, Inventory({}, exists=False), "behind"),
        # seen and gone from the disk: all of it, a part of it
        (A1, A1, disk(b="2"), "ahead"),
        (A1, A1, Inventory({}), "missing"),
        (snapshot(a="1", b="2"), snapshot(a="1", b="2"), disk(a="1"), "incomplete"),
        # gone from the head and still here: kept, and no news
        (snapshot(a="1", b="2"), A1, disk(a="1", b="2"), "ok"),
        # damage is told before everything else
        (A1, A2, disk(a=("0", "damaged")), "modified"),
        (A1, A1, disk(a=("1", "recorded"), complete=False), "incomplete"),
    ],
)
def test_made(base: Snapshot | None, head: Snapshot | None, inventory: Inventory, state: DiskState) -> None:
    assert made_state(base, head, inventory)[0] == state


def test_made_says_which_paths() -> None:
    found = disk(a="x", b="y", c="z")
    assert made_state(None, None, found) == ("ahead", "`a` and 2 more not pushed")
    assert made_state(None, None, Inventory({}, exists=False)) == ("ok", "nothing made yet")


def test_names_are_escaped_in_the_reason() -> None:
    inventory = Inventory({"a\x1b[31m": Found(entry("a\x1b[31m", "x"), "changed")})
    assert made_state(None, None, inventory)[1] == "`a\\x1b[31m` not pushed"


ONE, TWO = snapshot(one__w="1"), snapshot(two__w="2")


@pytest.mark.parametrize(
    ("base", "head", "inventory", "state"),
    [
        (None, None, Inventory({}, exists=False), "ok"),
        (None, None, disk(one__w="1"), "ahead"),
        # recorded with another mirror, or with one that lost its head, is not pushed to this one
        (None, None, disk(one__w=("1", "recorded")), "ahead"),
        (ONE, ONE, disk(one__w=("1", "recorded")), "ok"),
        # an older unit of this box, pushed before: recorded, and neither base nor head
        (TWO, TWO, disk(one__w=("1", "recorded"), two__w=("2", "recorded")), "ok"),
        # rotation: the older one is gone
        (TWO, TWO, disk(two__w=("2", "recorded")), "ok"),
        (ONE, ONE, disk(one__w=("1", "recorded"), two__w="2"), "ahead"),
        (ONE, ONE, Inventory({}, exists=False), "missing"),
        (None, ONE, Inventory({}, exists=False), "behind"),
        (ONE, TWO, disk(one__w=("1", "recorded")), "behind"),
        (ONE, TWO, disk(one__w=("1", "recorded"), mine__w="3"), "conflict"),
        (None, TWO, disk(mine__w="3"), "conflict"),
        # another box's newest lies here already: what is mine is only ahead
        (ONE, TWO, disk(two__w="2", mine__w="3"), "ahead"),
    ],
)
def test_checkpoints(
    base: Snapshot | None, head: Snapshot | None, inventory: Inventory, state: DiskState
) -> None:
    assert checkpoint_state(base, head, inventory)[0] == state


def test_direct_files_are_one_unit_and_it_has_a_name_for_people() -> None:
    assert checkpoint_state(None, None, disk(w="1")) == ("ahead", "`(files)` not pushed")
