"""Whether a plan fits, decided before the first byte."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labsync.disk.budget import LEAST_RESERVE, Need, check_room, measure, reserve_of
from labsync.errors import DiskError, ExitCode
from labsync.manifest.model import DiskSpec

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
NO_RESERVE = DiskSpec(reserve=0)


def refusal(needs: list[Need], free: dict[int, int], spec: DiskSpec = NO_RESERVE, used: int = 0) -> DiskError:
    with pytest.raises(DiskError) as caught:
        check_room(needs, free, dict.fromkeys(free, 15 * GIB), spec, used)
    return caught.value


def test_the_default_reserve_is_one_gib_or_five_percent() -> None:
    assert reserve_of(15 * GIB, DiskSpec()) == LEAST_RESERVE
    assert reserve_of(100 * GIB, DiskSpec()) == 5 * GIB
    assert reserve_of(100 * GIB, DiskSpec(reserve=7)) == 7
    assert reserve_of(100 * GIB, DiskSpec(reserve=0)) == 0


@pytest.mark.fault(19)
@given(need=st.integers(0, 20 * GIB), free=st.integers(0, 20 * GIB), reserve=st.integers(0, 3 * GIB))
def test_exactly_what_leaves_the_reserve_fits(need: int, free: int, reserve: int) -> None:
    spec, needs = DiskSpec(reserve=reserve), [Need("models/a", 1, need)]
    if need == 0 or need <= free - reserve:
        check_room([n for n in needs if n.bytes], {1: free}, {1: 20 * GIB}, spec, 0)
    else:
        refusal(needs, {1: free}, spec)


@pytest.mark.fault(21)
def test_the_needs_of_one_device_add_up_and_of_two_do_not() -> None:
    needs = [Need("models/a", 1, 6), Need("models/b", 2, 6)]
    check_room(needs, {1: 10, 2: 10}, {1: 10, 2: 10}, NO_RESERVE, 0)
    refusal([Need("models/a", 1, 6), Need("models/b", 1, 6)], {1: 10})


@pytest.mark.fault(21)
def test_the_budget_counts_what_is_used_already() -> None:
    needs = [Need("models/a", 1, 6), Need("models/b", 2, 6)]
    check_room(needs, {1: 99, 2: 99}, {1: 99, 2: 99}, DiskSpec(reserve=0, budget=20), 8)
    error = refusal(needs, {1: 99, 2: 99}, DiskSpec(reserve=0, budget=20), 9)
    assert "budget" in error.what


@pytest.mark.fault(19)
def test_the_refusal_lists_what_is_needed_and_the_commands_that_would_fit() -> None:
    needs = [Need("models/big", 1, 9 * GIB), Need("models/small", 1, GIB), Need("datasets/mid", 1, 4 * GIB)]
    error = refusal(needs, {1: 6 * GIB}, DiskSpec(reserve=GIB))
    assert error.exit_code == ExitCode.DISK
    assert error.what == "14.0 GiB do not fit: only 6.0 GiB are free, of which 1.0 GiB are the reserve"
    lines = error.hint.splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["models/big", "9.0", "GiB"],
        ["datasets/mid", "4.0", "GiB"],
        ["models/small", "1.0", "GiB"],
    ]
    assert "`labsync pull datasets/mid models/small` fits" in lines[-1]
    assert "`labsync du`" in lines[-1]


def test_where_nothing_fits_no_pull_is_suggested() -> None:
    assert "labsync pull" not in refusal([Need("models/big", 1, 9)], {1: 3}).hint


def test_an_artifact_and_its_copy_in_the_mirror_are_one_choice() -> None:
    needs = [Need("models/a", 1, 4), Need("models/a (mirror)", 1, 4), Need("models/b", 1, 7)]
    assert "`labsync pull models/b` fits" in refusal(needs, {1: 7}).hint


def test_more_than_the_reserve_is_gone_already() -> None:
    error = refusal([Need("models/a", 1, 1)], {1: 0}, DiskSpec(reserve=GIB))
    assert error.hint.startswith("0 B of room for")


def test_measuring_a_path_that_is_not_there_yet_asks_its_nearest_parent(tmp_path: Path) -> None:
    room = measure(tmp_path / "not" / "yet")
    assert room.device == tmp_path.stat().st_dev
    assert 0 < room.free < room.total


def test_free_is_what_an_ordinary_user_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)
    fields = list(real[:10])
    fields[0], fields[1], fields[2], fields[3], fields[4] = 8192, 4096, 100, 50, 40
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))
    assert measure(tmp_path)[1:] == (40 * 4096, 100 * 4096)


def test_a_disk_that_does_not_answer_is_a_disk_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "statvfs", fail)
    with pytest.raises(DiskError):
        measure(tmp_path)
