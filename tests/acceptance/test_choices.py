"""What a person chose stays chosen, what they cannot know is not claimed, and repair repairs."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.fakes.box import Box

if TYPE_CHECKING:
    from pathlib import Path

TEXT = (
    "version: 1\nproject: p\nmirror: {mirror}\n"
    "results:\n  runs: {{path: out}}\ncheckpoints:\n  tuned: {{path: ck}}\n"
)


@pytest.fixture
def boxes(tmp_path: Path) -> tuple[Box, Box]:
    text = TEXT.format(mirror=tmp_path / "mirror")
    return Box(tmp_path / "a", text), Box(tmp_path / "b", text)


def _conflict(a: Box, b: Box) -> None:
    a.write("out/same", b"from a")
    b.write("out/same", b"from b")
    assert a.labsync("push").code == 0
    assert b.labsync("push").code == 11
    assert b.labsync("status", "results").artifacts["results/runs"]["mirror"] == "conflict"


@pytest.mark.parametrize("choice", [("pull", "--force"), ("push", "--force")])
def test_a_conflict_is_over_once_somebody_chose(boxes: tuple[Box, Box], choice: tuple[str, ...]) -> None:
    a, b = boxes
    _conflict(a, b)
    assert b.labsync(*choice).code == 0
    stood = b.labsync("status", "results").artifacts["results/runs"]
    assert (stood["disk"], stood["mirror"]) == ("ok", "ok")


def test_a_conflict_of_checkpoints_is_told_until_somebody_chose(boxes: tuple[Box, Box]) -> None:
    a, b = boxes
    a.write("ck/from-a/w", b"a")
    b.write("ck/one/w", b"1")
    b.write("ck/two/w", b"2")
    assert a.labsync("push", "tuned").code == 0
    for _ in range(3):
        assert b.labsync("push", "tuned").code == 11
    losers = [line for line in b.labsync("log", "tuned").lines if "conflict" in line.get("label", "")]
    assert len(losers) == 2  # every unit is safe, not the newest alone
    assert b.labsync("push", "tuned", "--force").code == 0


@pytest.mark.fault(25)
def test_repair_brings_back_what_is_missing_or_damaged_of_what_was_made_here(boxes: tuple[Box, Box]) -> None:
    a, _ = boxes
    a.write("out/kept", b"kept")
    flipped = a.write("out/flipped", b"good bytes")
    a.write("out/gone", b"gone")
    assert a.labsync("push").code == 0
    stat = flipped.stat()
    flipped.write_bytes(b"bad. bytes")
    os.utime(flipped, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (a.root / "out/gone").unlink()
    assert a.labsync("verify").code == 4
    assert a.labsync("verify", "--repair").code == 0
    assert a.tree("out") == {"flipped": b"good bytes", "gone": b"gone", "kept": b"kept"}
    assert a.labsync("verify").code == 0


def test_a_mirror_on_this_machine_keeps_nothing_safe(tmp_path: Path) -> None:
    box = Box(tmp_path / "box", "version: 1\nproject: p\nresults:\n  runs: {path: out}\n")
    box.write("out/x", b"12345")
    assert box.labsync("push").code == 0
    advice = box.labsync("status").lines[0]
    assert advice["embedded"]
    assert (advice["at_risk_files"], advice["at_risk_bytes"]) == (1, 5)


def test_a_secret_is_neither_pushed_nor_asked_for(boxes: tuple[Box, Box]) -> None:
    a, _ = boxes
    a.write("out/.env", b"TOKEN=1")
    a.write("out/x", b"x")
    assert a.labsync("push").code == 0
    status = a.labsync("status")
    assert status.artifacts["results/runs"]["disk"] == "ok"
    assert status.lines[0]["at_risk_files"] == 0
    assert [item["path"] for item in status.report["skipped"]] == [".env"]


def test_what_could_not_be_looked_at_is_not_called_safe(boxes: tuple[Box, Box]) -> None:
    a, _ = boxes
    a.write("out/A", b"1")
    a.write("out/a", b"2")  # one name on some file systems: refused
    advice = a.labsync("status", "results").lines[0]
    assert advice["unknown"] == ["results/runs"]
    assert "mirror" not in advice["next_command"]


def test_the_advice_can_be_pasted(boxes: tuple[Box, Box]) -> None:
    a, _ = boxes
    a.write("out/x", b"x")
    manifest = str(a.manifest)
    assert (
        a.labsync("status", "-m", manifest).lines[0]["next_command"]
        == f"labsync push results/runs -m {manifest}"
    )


def test_a_reader_that_goes_away_does_not_stop_the_transfer(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(300):
        (source / str(number)).write_bytes(b"%d" % number)
    text = "version: 1\nproject: p\ndatasets:\n  d: {origin: 'file:../source/', path: d}\n"
    box = Box(tmp_path / "box", text)
    assert box.labsync("lock").code == 0
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "labsync", "pull", "-v"],
            cwd=box.root,
            env={**os.environ, **box.env},
            stdout=gone,
            stderr=gone,
            check=False,
        )
    assert done.returncode == 0
    assert len(box.tree("d")) == 300


def test_many_damaged_files_are_told_briefly_and_listed_whole(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(50):
        (source / str(number)).write_bytes(b"%d" % number)
    text = "version: 1\nproject: p\ndatasets:\n  d: {origin: 'file:../source/', path: d}\n"
    box = Box(tmp_path / "box", text)
    assert box.labsync("lock").code == 0
    verified = box.labsync("verify")
    assert verified.code == 6
    assert len(verified.errors) == 50
    done = subprocess.run(
        [sys.executable, "-m", "labsync", "verify"],
        cwd=box.root,
        env={**os.environ, **box.env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 6
    assert "47 more files of `datasets/d` alike" in done.stderr
    assert len(done.stderr.splitlines()) < 15


def test_a_dry_push_tells_of_conflicts_and_of_dropped_names(boxes: tuple[Box, Box]) -> None:
    a, b = boxes
    for name in ("one", "two", "three"):
        a.write(f"out/{name}", b"a")
    assert a.labsync("push").code == 0
    b.write("out/one", b"b")
    planned = b.labsync("push", "--dry-run")
    assert planned.code == 11
    assert not [line for line in b.labsync("log", "results").lines if "conflict" in line.get("label", "")]
    (a.root / "out/three").unlink()
    planned = a.labsync("push", "--prune", "--dry-run")
    assert planned.code == 0
    assert [(x["path"], x["reason"]) for x in planned.lines[:-1]] == [
        ("three", "dropped from the newest push")
    ]


def test_what_is_left_to_prove_is_the_next_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labsync.steps.prove.GPU_SIGNS", ())
    (tmp_path / "m.bin").write_bytes(b"m")
    text = (
        "version: 1\nproject: p\nmodels:\n  m:\n    origin: 'file:../m.bin'\n    path: m.bin\n"
        "    smoke: {task: python, function: 'lab:prove'}\n"
    )
    box = Box(tmp_path / "box", text)
    assert box.labsync("lock").code == 0
    assert box.labsync("pull").code == 0
    waiting = box.labsync("smoke")
    assert [result["result"] for result in waiting.report["smoke"]] == ["pending"]
    assert box.labsync("status").lines[0]["next_command"].startswith("labsync smoke --pending")
    pasted = box.labsync("status", "-m", "labsync.yaml").lines[0]["next_command"]
    assert pasted == "labsync smoke --pending -m labsync.yaml (on a GPU session)"
    box.manifest.write_text(text + "environment: {name: lab, manager: venv, inherit: true}\n")
    assert box.labsync("status").lines[0]["next_command"] == "labsync env build"
