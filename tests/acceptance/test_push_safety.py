"""What a push must never do: forget, truncate, or take for stored what is not in this mirror."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from tests.fakes.box import Box
from tests.fakes.live import assert_sound, data_files, start, stop, until

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = """
version: 1
project: safety
mirror: {mirror}
results:
  runs: {{path: outputs}}
checkpoints:
  tuned: {{path: tuned}}
"""


def _box(folder: Path, name: str = "a", mirror: str = "mirror") -> Box:
    return Box(folder / name, MANIFEST.format(mirror=folder / mirror))


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return _box(tmp_path)


def _move_mirror(box: Box, mirror: str) -> None:
    box.manifest.write_text(MANIFEST.format(mirror=box.root.parent / mirror), "utf-8")


def test_another_mirror_has_nothing_until_it_is_pushed_to(box: Box, tmp_path: Path) -> None:
    box.write("outputs/x", b"x")
    box.write("tuned/one/w", b"1")
    assert box.labsync("push").code == 0
    _move_mirror(box, "second")
    stood = box.labsync("status")
    assert {name: a["disk"] for name, a in stood.artifacts.items()} == {
        "results/runs": "ahead",
        "checkpoints/tuned": "ahead",
    }
    assert stood.lines[0]["at_risk_files"] == 2
    pushed = box.labsync("push")
    assert pushed.code == 0
    assert pushed.transferred["to_mirror"] == 2
    other = _box(tmp_path, "b", "second")
    assert other.labsync("pull").code == 0
    assert other.tree("outputs") == {"x": b"x"}
    assert other.tree("tuned") == {"one/w": b"1"}
    # And back: the first mirror's base is still known.
    _move_mirror(box, "mirror")
    assert box.labsync("push").requests == {"LIST": 1}


def test_a_second_mirror_that_others_pushed_to_gets_all_of_mine(box: Box, tmp_path: Path) -> None:
    box.write("outputs/mine", b"mine")
    assert box.labsync("push").code == 0
    other = _box(tmp_path, "b", "second")
    other.write("outputs/theirs", b"theirs")
    assert other.labsync("push").code == 0
    _move_mirror(box, "second")
    assert box.labsync("push").code == 0
    assert other.labsync("pull").code == 0
    assert other.tree("outputs") == {"mine": b"mine", "theirs": b"theirs"}


def test_uploads_to_one_mirror_are_not_taken_for_uploads_to_another(box: Box) -> None:
    for number in range(30):
        box.write(f"outputs/{number}", b"%d" % number)
    child = start(box, "push", "results", "-j", "1")
    until(lambda: len(data_files(box.root.parent / "mirror")) >= 10, child)
    stop(child, signal.SIGKILL)
    _move_mirror(box, "second")
    assert box.labsync("push", "results").code == 0
    assert_sound(box.root.parent / "second")
    assert len(data_files(box.root.parent / "second")) == 30


def test_a_mirror_that_was_emptied_gets_everything_again(box: Box, tmp_path: Path) -> None:
    box.write("outputs/x", b"x")
    box.write("tuned/one/w", b"1")
    assert box.labsync("push").code == 0
    shutil.rmtree(tmp_path / "mirror")
    assert box.labsync("status").lines[0]["at_risk_files"] == 2
    assert box.labsync("push").code == 0
    assert_sound(tmp_path / "mirror")
    assert len(data_files(tmp_path / "mirror")) == 2


def test_an_empty_folder_makes_no_snapshot(box: Box, tmp_path: Path) -> None:
    (box.root / "outputs").mkdir()
    assert box.labsync("push", "results").code == 0
    assert box.labsync("log", "results").lines[:-1] == []


def test_pruning_keeps_what_cannot_be_pushed_now(box: Box, tmp_path: Path) -> None:
    for name in ("busy", "gone", "stays"):
        box.write(f"outputs/{name}", name.encode())
    assert box.labsync("push").code == 0
    (box.root / "outputs/gone").unlink()
    with (box.root / "outputs/busy").open("ab") as log:
        log.write(b" more")
        log.flush()
        pushed = box.labsync("push", "results", "--prune")
    assert pushed.code == 0, pushed.messages
    other = _box(tmp_path, "b")
    assert other.labsync("pull").code == 0
    assert other.tree("outputs") == {"busy": b"busy", "stays": b"stays"}
    assert box.labsync("push").code == 0
    assert other.labsync("pull").code == 0
    assert other.read("outputs/busy") == b"busy more"


@pytest.mark.fault(25)
def test_damage_is_not_pushed_over_good_bytes(box: Box, tmp_path: Path) -> None:
    target = box.write("outputs/x", b"good bytes")
    assert box.labsync("push").code == 0
    before = target.stat()
    target.write_bytes(b"evil bytes")
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    box.write("outputs/new", b"new")
    pushed = box.labsync("push")
    assert pushed.code == 5
    assert [error["path"] for error in pushed.errors] == ["x"]
    other = _box(tmp_path, "b")
    assert other.labsync("pull").code == 0
    assert other.tree("outputs") == {"new": b"new", "x": b"good bytes"}
    assert box.labsync("verify", "--repair").code == 0
    assert box.read("outputs/x") == b"good bytes"
    assert box.labsync("push").code == 0


def test_direct_checkpoint_files_are_pushed_together_or_not_at_all(box: Box) -> None:
    box.write("tuned/config.json", b"{}")
    with box.write("tuned/model.bin", b"half").open("ab"):
        waiting = box.labsync("push", "tuned")
    assert waiting.code == 0
    assert {item["path"] for item in waiting.report["skipped"]} == {"model.bin", "tuned"}
    assert box.labsync("log", "tuned").lines[:-1] == []
    assert box.labsync("push", "tuned").code == 0
    assert [line["files"] for line in box.labsync("log", "tuned").lines[:-1]] == [2]


def test_what_one_artifact_skips_holds_up_no_other(box: Box) -> None:
    box.write("tuned/one/w", b"1")
    with box.write("outputs/one/w", b"x").open("ab"):
        assert box.labsync("push").code == 0
    assert len(box.labsync("log", "tuned").lines) == 2


def test_a_link_in_a_checkpoint_does_not_hold_it_up_for_ever(box: Box) -> None:
    box.write("tuned/one/w", b"1")
    (box.root / "tuned/one/latest").symlink_to("w")
    pushed = box.labsync("push", "tuned")
    assert pushed.code == 0
    assert len(box.labsync("log", "tuned").lines) == 2
    assert [item["path"] for item in pushed.report["skipped"]] == ["one/latest"]


def test_force_after_a_conflict_makes_my_checkpoint_the_newest(box: Box, tmp_path: Path) -> None:
    other = _box(tmp_path, "b")
    box.write("tuned/mine/w", b"mine")
    other.write("tuned/theirs/w", b"theirs")
    assert other.labsync("push", "tuned").code == 0
    refused = box.labsync("push", "tuned")
    assert refused.code == 11
    assert "labsync push checkpoints/tuned --force" in refused.messages
    forced = box.labsync("push", "tuned", "--force")
    assert forced.code == 0, forced.messages
    assert forced.transferred["to_mirror"] == 0
    fresh = _box(tmp_path, "c")
    assert fresh.labsync("pull", "tuned").code == 0
    assert fresh.tree("tuned") == {"mine/w": b"mine"}
    # Theirs is still there.
    assert len(fresh.labsync("log", "tuned").lines[:-1]) >= 2


def test_what_a_conflict_kept_is_safe_and_not_advised_to_be_pushed_again(box: Box, tmp_path: Path) -> None:
    other = _box(tmp_path, "b")
    box.write("tuned/mine/w", b"mine")
    box.write("outputs/same", b"mine")
    other.write("tuned/theirs/w", b"theirs")
    other.write("outputs/same", b"theirs")
    assert other.labsync("push").code == 0
    assert box.labsync("status").lines[0]["at_risk_files"] == 2
    assert box.labsync("push").code == 11
    advice = box.labsync("status").lines[0]
    assert advice["at_risk_files"] == 0
    assert advice["next_command"].startswith("labsync pull results/runs --force")
    assert box.labsync("pull", "tuned").code == 0
    stood = box.labsync("status", "tuned")
    assert stood.code == 0
    assert stood.lines[0]["next_command"] == ""


def test_only_what_is_nowhere_else_is_at_risk(box: Box, tmp_path: Path) -> None:
    other = _box(tmp_path, "b")
    for each in (box, other):
        each.write("outputs/same", b"the same here and there")
    assert other.labsync("push").code == 0
    box.write("outputs/mine", b"mine")
    advice = box.labsync("status").lines[0]
    assert (advice["at_risk_files"], advice["at_risk_bytes"]) == (1, 4)


def test_a_disk_is_verified_without_its_mirror(tmp_path: Path) -> None:
    box = _box(tmp_path)
    box.write("outputs/x", b"good bytes")
    assert box.labsync("push").code == 0
    target = box.root / "outputs/x"
    before = target.stat()
    target.write_bytes(b"evil bytes")
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    (tmp_path / "mirror").rename(tmp_path / "moved")
    (tmp_path / "mirror").symlink_to("nowhere")
    verified = box.labsync("verify")
    assert verified.code == 5
    assert verified.artifacts["results/runs"]["mirror"] == "off"
    assert [error["code"] for error in box.labsync("push").errors] == [8]
    assert [error["code"] for error in box.labsync("mirror").errors] == [8]


def test_what_the_manifest_does_not_include_any_more_stays_in_the_mirror_and_out_of_the_way(
    box: Box, tmp_path: Path
) -> None:
    box.write("outputs/x.bin", b"x")
    box.write("outputs/y.json", b"y")
    box.write("tuned/one/w.bin", b"w")
    box.write("tuned/one/big.tmp", b"big")
    assert box.labsync("push").code == 0
    narrowed = box.manifest.read_text().replace("outputs}", 'outputs, include: ["*.json"]}')
    narrowed = narrowed.replace("tuned}", 'tuned, exclude: ["*.tmp"]}')
    box.manifest.write_text(narrowed)
    other = Box(tmp_path / "b", narrowed)
    for each in (box, other):
        for _ in range(2):
            assert each.labsync("pull").code == 0
        assert each.labsync("status").code == 0
        assert each.labsync("verify").code == 0
    assert other.tree("outputs") == {"y.json": b"y"}
    assert other.tree("tuned") == {"one/w.bin": b"w"}
    other.write("tuned/two/w.bin", b"w2")
    other.write("outputs/z.json", b"z")
    assert other.labsync("push", "--prune").code == 0
    assert box.labsync("push", "--prune").code == 0
    everything = _box(tmp_path, "c")
    assert everything.labsync("pull", "results").code == 0
    assert set(everything.tree("outputs")) == {"x.bin", "y.json", "z.json"}
