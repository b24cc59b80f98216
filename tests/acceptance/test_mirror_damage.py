"""A mirror that lost something, was made anew, or is filled by two boxes at once: seen, and put right."""

from __future__ import annotations

import os
import shutil
import signal
import time
from typing import TYPE_CHECKING

import pytest

from labsync.cli.app import run
from labsync.mirrors.directory import DirectoryMirror
from labsync.steps import publish as publish_step
from labsync.steps import push_results as push_step
from tests.fakes.box import Box
from tests.fakes.live import assert_sound, data_files, start, stop, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from labsync.manifest.model import Artifact
    from labsync.mirrors.base import Head, HeadName, Index, Located
    from labsync.steps.lab import Lab

FILES = {"one.bin": b"1" * 5000, "two.bin": b"2" * 6000, "sub/three.txt": b"three"}
SIZE = sum(map(len, FILES.values()))

MANIFEST = """
version: 1
project: damaged
mirror: {root}/mirror
datasets:
  frames: {{origin: "file://{root}/origin/", path: frames}}
results:
  runs: {{path: outputs}}
"""


@pytest.fixture
def a(tmp_path: Path) -> Box:
    for path, data in FILES.items():
        file = tmp_path / "origin" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    box = _box(tmp_path, "a")
    assert box.labsync("lock").code == 0
    return box


def _box(root: Path, name: str) -> Box:
    return Box(root / name, MANIFEST.format(root=root))


def _other(a: Box, name: str = "b") -> Box:
    box = _box(a.root.parent, name)
    box.write("labsync.lock", a.read("labsync.lock"))
    return box


def _mirror(box: Box) -> Path:
    return box.root.parent / "mirror"


def _stored(box: Box, path: str) -> Path:
    (file,) = [file for file in data_files(_mirror(box)) if file.as_posix().endswith(f"/{path}")]
    return file


def _overwrite(file: Path, data: bytes) -> None:
    file.unlink()
    file.write_bytes(data)


def _served_without_the_origin(a: Box, name: str) -> None:
    """Assert that the mirror alone fills a box."""
    box = _other(a, name)
    pulled = box.labsync("pull", "frames", "--offline")
    assert pulled.code == 0, pulled.messages
    assert box.tree("frames") == FILES
    assert_sound(_mirror(a))


# A mirror that was removed and made anew.


def test_a_mirror_made_anew_is_not_taken_for_the_old_one(a: Box) -> None:
    b = _other(a)
    a.write("outputs/x", b"from a")
    assert a.labsync("push", "results").code == 0
    shutil.rmtree(_mirror(a))
    b.write("outputs/y", b"from b")
    assert b.labsync("push", "results").code == 0
    a.write("outputs/z", b"new")
    stood = a.labsync("status", "results").artifacts["results/runs"]
    assert stood["disk"] != "ok"
    pushed = a.labsync("push", "results")
    assert pushed.code == 0, pushed.messages
    assert_sound(_mirror(a))
    c = _other(a, "c")
    assert c.labsync("pull", "results").code == 0
    assert c.tree("outputs") == {"x": b"from a", "y": b"from b", "z": b"new"}


# Data that is damaged or gone.


def _cut(file: Path) -> None:
    _overwrite(file, file.read_bytes()[:-1])


def _flip(file: Path) -> None:
    _overwrite(file, b"?" + file.read_bytes()[1:])


@pytest.mark.fault(26)
@pytest.mark.parametrize("harm", [_flip, _cut, os.unlink])
def test_damaged_data_comes_from_the_origin_and_the_mirror_is_made_whole(
    a: Box, harm: Callable[[Path], None]
) -> None:
    assert a.labsync("pull", "frames").code == 0
    harm(_stored(a, "two.bin"))
    b = _other(a)
    pulled = b.labsync("pull", "frames")
    assert pulled.code == 0, pulled.messages
    assert b.tree("frames") == FILES
    assert "`two.bin` of `datasets/frames` is damaged: it is written again" in pulled.stderr
    assert pulled.transferred["to_mirror"] == len(FILES["two.bin"])
    _served_without_the_origin(a, "c")
    again = _other(a, "d").labsync("pull", "frames")
    assert again.transferred["from_origin"] == again.transferred["to_mirror"] == 0


def test_damage_found_by_a_run_that_may_not_write_is_repaired_by_the_next(a: Box) -> None:
    assert a.labsync("pull", "frames").code == 0
    _flip(_stored(a, "two.bin"))
    b = _other(a)
    seen = b.labsync("pull", "frames", "--no-mirror")
    assert seen.code == 0
    assert "stays so" in seen.stderr
    assert b.labsync("pull", "frames").transferred["to_mirror"] == len(FILES["two.bin"])
    _served_without_the_origin(a, "c")


@pytest.mark.fault(26)
def test_damage_that_nothing_can_repair_is_an_error_that_names_it(a: Box) -> None:
    a.write("outputs/x", b"the only copy")
    assert a.labsync("push", "results").code == 0
    _flip(_stored(a, "x"))
    pulled = _other(a).labsync("pull", "results")
    assert pulled.code == 5
    assert [(e["artifact"], e["path"]) for e in pulled.errors] == [("results/runs", "x")]
    _stored(a, "x").unlink()
    assert _other(a, "c").labsync("pull", "results").code == 6


# An index that is damaged or gone.


def _indexes(box: Box) -> list[Path]:
    return list((_mirror(box) / ".labsync" / "index").iterdir())


@pytest.mark.parametrize("harm", [_flip, os.unlink])
def test_without_its_index_a_sourced_artifact_comes_from_the_origin_and_gets_a_new_one(
    a: Box, harm: Callable[[Path], None]
) -> None:
    assert a.labsync("pull", "frames").code == 0
    for file in _indexes(a):
        harm(file)
    b = _other(a)
    pulled = b.labsync("pull", "frames")
    assert pulled.code == 0, pulled.messages
    assert "lost or damaged" in pulled.stderr
    assert b.tree("frames") == FILES
    assert_sound(_mirror(a))
    _served_without_the_origin(a, "c")
    assert "lost or damaged" not in _other(a, "d").labsync("pull", "frames").stderr


@pytest.mark.parametrize(("harm", "code"), [(_flip, 5), (os.unlink, 6)])
def test_without_its_index_a_made_artifact_is_an_error_with_a_way_out_that_works(
    a: Box, harm: Callable[[Path], None], code: int
) -> None:
    a.write("outputs/x", b"mine")
    assert a.labsync("push", "results").code == 0
    (index,) = _indexes(a)
    harm(index)
    b = _other(a)
    pulled = b.labsync("pull", "results")
    assert pulled.code == code
    assert index.name in pulled.messages
    assert "`labsync push` from a box that has its files" in pulled.messages
    shutil.rmtree(_mirror(a) / ".labsync" / "heads" / "results")
    assert a.labsync("push", "results").code == 0
    assert b.labsync("pull", "results").code == 0
    assert b.tree("outputs") == {"x": b"mine"}


# What the journal says was uploaded.


@pytest.mark.parametrize("harm", [_cut, os.unlink])
def test_journalled_uploads_that_are_gone_are_sent_again(a: Box, harm: Callable[[Path], None]) -> None:
    names = [f"{number:02}" for number in range(30)]
    for name in names:
        a.write(f"outputs/{name}", name.encode() * 4096)
    child = start(a, "push", "results", "-j", "1")
    until(lambda: _mirror(a).exists() and len(data_files(_mirror(a))) > 4, child)
    stop(child, signal.SIGKILL)
    assert not DirectoryMirror(_mirror(a)).heads()
    for file in data_files(_mirror(a))[:2]:
        harm(file)
    pushed = a.labsync("push", "results")
    assert pushed.code == 0, pushed.messages
    assert_sound(_mirror(a))
    assert 0 < pushed.transferred["to_mirror"] < 30 * 8192  # what is there still is not sent again


# Two boxes at once.


@pytest.mark.fault(65)
def test_two_boxes_that_fill_the_mirror_at_once_are_both_done(
    a: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = _other(a)
    real = publish_step.publish_sourced
    published: list[int] = []

    def after_b(lab: Lab, artifact: Artifact, located: tuple[Located, ...]) -> None:
        if not published:
            published.append(0)
            published[0] = b.labsync("pull", "frames").code
        real(lab, artifact, located)

    monkeypatch.setattr("labsync.steps.pull.publish_sourced", after_b)
    pulled = a.labsync("pull", "frames")
    assert published == [0]
    assert pulled.code == 0, pulled.messages
    assert pulled.artifacts["datasets/frames"]["mirror"] == "ok"
    _served_without_the_origin(a, "c")


def test_a_push_that_lost_the_race_sends_no_byte_again(a: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    b = _other(a)
    a.write("outputs/a", b"a" * 100)
    b.write("outputs/b", b"b" * 100)
    real = publish_step.publish
    raced: list[int] = []

    def after_b(lab: Lab, name: HeadName, index: Index, expected: Head | None) -> Head:
        if not raced:
            raced.append(0)
            raced[0] = b.labsync("push", "results").code
        return real(lab, name, index, expected)

    monkeypatch.setattr(push_step, "publish", after_b)
    pushed = a.labsync("push", "results")
    assert raced == [0]
    assert pushed.code == 0, pushed.messages
    assert pushed.transferred["to_mirror"] == 100
    assert pushed.transferred["resent"] == 0
    assert len(data_files(_mirror(a))) == 2
    c = _other(a, "c")
    assert c.labsync("pull", "results").code == 0
    assert set(c.tree("outputs")) == {"a", "b"}


# The folder itself.


def test_a_killed_write_leaves_nothing_in_the_data_folders(a: Box) -> None:
    for number in range(200):
        a.write(f"outputs/{number:03}", b"%d" % number * 1000)
    child = start(a, "push", "results")
    until(lambda: len(data_files(_mirror(a))) > 20, child)
    stop(child, signal.SIGKILL)
    folders = [
        p for p in _mirror(a).rglob("*") if p.is_file() and ".labsync" not in p.relative_to(_mirror(a)).parts
    ]
    assert folders
    assert all(file.name.isdigit() and len(file.name) == 3 for file in folders)


def test_what_a_killed_run_left_in_the_stage_goes_after_a_day(a: Box) -> None:
    stage = _mirror(a) / ".labsync" / "stage"
    stage.mkdir(parents=True)
    now = time.time()
    for name, age in (("old", 25 * 3600), ("young", 23 * 3600)):
        (stage / name).write_bytes(b"half")
        os.utime(stage / name, (now - age, now - age))
    assert a.labsync("pull", "frames").code == 0
    assert [file.name for file in stage.iterdir()] == ["young"]


# `labsync mirror`.


def test_mirror_says_what_it_leaves_to_push(
    a: Box, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(a.root)
    assert run(["mirror", "results"]) == 0
    assert "`results/runs`: made here, so `labsync push` brings it to the mirror" in capsys.readouterr().err


def test_mirror_needs_no_room_but_the_mirrors(a: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    from labsync.disk.budget import Room

    full, roomy = Room(1, 0, 1 << 31), Room(2, 1 << 40, 1 << 40)
    monkeypatch.setattr("labsync.steps.room.measure", lambda path: roomy if path == _mirror(a) else full)
    filled = a.labsync("mirror", "frames")
    assert filled.code == 0, filled.messages
    monkeypatch.setattr("labsync.steps.room.measure", lambda path: full)
    shutil.rmtree(_mirror(a))
    refused = a.labsync("mirror", "frames")
    assert refused.code == 9
    assert "datasets/frames (mirror)" in refused.messages
    assert not _mirror(a).exists()
