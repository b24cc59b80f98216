"""`smoke` as a person uses it, with a task of the user's own: what is run, remembered, refused, said."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from labsync.events import Note
from labsync.manifest.parse import load_manifest
from labsync.settings import Options
from labsync.steps import prove
from labsync.steps.environment import environment_is_missing
from labsync.steps.lab import Lab
from labsync.steps.prove import SmokeOptions, chosen_models, pending_models
from tests.fakes.box import Box
from tests.fakes.recorder import Recorder

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.box import Run

MANIFEST = """
version: 1
project: smoke
mirror: {mirror}
checkpoints:
  one: {{origin: 'file:../one.bin', path: one.bin, smoke: {{task: python, function: 'mine:look'}}}}
  bare: {{origin: 'file:../one.bin', path: bare.bin}}
  made: {{path: made, smoke: {{task: python, function: 'mine:look'}}}}
device: {device}
"""
LOOK = b"def look(path):\n    open('ran', 'a').write('x')\n    return len(open(path, 'rb').read())\n"


def _box(folder: Path, *, mirror: str = "./mirror", device: str = "cpu", more: str = "") -> Box:
    (folder / "one.bin").write_bytes(b"weights")
    box = Box(folder / "box", MANIFEST.format(mirror=mirror, device=device) + more)
    box.write("mine.py", LOOK)
    return box


def _pulled(folder: Path, **keys: str) -> Box:
    box = _box(folder, **keys)
    assert box.labsync("lock").code == 0
    assert box.labsync("pull").code == 0
    return box


def _results(run: Run) -> dict[str, str]:
    return {s["name"]: s["result"] for s in run.report["smoke"]}


def _opened(box: Box) -> Lab:
    return Lab(load_manifest(box.manifest), Options(env=box.env), Recorder())


def test_a_model_is_run_and_what_was_never_made_is_skipped(tmp_path: Path) -> None:
    box = _pulled(tmp_path)
    done = box.labsync("smoke")
    assert done.code == 0, done.messages
    assert _results(done) == {"checkpoints/one": "pass", "checkpoints/made": "skipped"}


@pytest.mark.parametrize(
    "environment",
    [
        "environment: {name: lab, manager: venv, spec: absent.yaml, lock: absent.lock.yaml}\n",
        "environment: {name: lab, manager: venv, inherit: true}\n",
    ],
)
@pytest.mark.parametrize("command", ["bootstrap", "smoke"])
def test_without_its_environment_no_model_is_proven(tmp_path: Path, environment: str, command: str) -> None:
    box = _pulled(tmp_path, more=environment)
    (tmp_path / "box-home/labsync/envs/lab").mkdir(parents=True)  # somebody else's, so it cannot be built
    done = box.labsync(command)
    assert done.code != 0
    assert len(done.errors) == 1
    assert done.report["environment"]["state"] == "failed"
    assert done.report["kernel"] is None
    assert _results(done) == {"checkpoints/one": "skipped", "checkpoints/made": "skipped"}
    assert {s["reason"] for s in done.report["smoke"]} == {"the environment failed"}
    assert not (box.root / "ran").exists()
    assert _opened(box).state.get("smoke", "checkpoints/one") is None


def test_an_unreachable_mirror_does_not_keep_a_model_from_being_proven(tmp_path: Path) -> None:
    box = _pulled(tmp_path)
    text = box.manifest.read_text()
    box.manifest.write_text(
        text.replace("./mirror", "{url: 's3://bucket/p', endpoint: 'http://127.0.0.1:9'}")
    )
    done = box.labsync("smoke", "one")
    assert done.code == 0, done.messages
    assert _results(done) == {"checkpoints/one": "pass"}
    assert done.requests == {}


@pytest.mark.parametrize("name", ["one", "made"])
def test_a_model_that_was_asked_for_and_is_not_there_is_6(tmp_path: Path, name: str) -> None:
    box = _box(tmp_path)
    box.labsync("lock")
    done = box.labsync("smoke", name)
    assert done.code == 6
    assert done.errors[0]["hint"] == f"`labsync pull checkpoints/{name}`"
    everything = box.labsync("smoke")
    assert everything.code == 0
    assert set(_results(everything).values()) == {"skipped"}


def test_require_gpu_leaves_the_model_pending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = _pulled(tmp_path)
    monkeypatch.setattr(prove, "has_gpu", lambda: False)
    assert box.labsync("smoke", "one", "--require-gpu").code == 14
    assert pending_models(_opened(box)) == ("checkpoints/one",)
    again = box.labsync("smoke", "one", "--pending")
    assert _results(again) == {"checkpoints/one": "pass"}
    assert pending_models(_opened(box)) == ()


def test_a_skipped_model_stays_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = _pulled(tmp_path, device="cuda")
    monkeypatch.setattr(prove, "has_gpu", lambda: False)
    assert _results(box.labsync("smoke"))["checkpoints/one"] == "pending"
    (box.root / "one.bin").unlink()
    assert _results(box.labsync("smoke"))["checkpoints/one"] == "skipped"
    assert pending_models(_opened(box)) == ("checkpoints/one",)


def test_nothing_pending_is_said_and_builds_no_environment(tmp_path: Path) -> None:
    box = _pulled(tmp_path)
    assert box.labsync("smoke", "one").code == 0
    lab = _opened(box)
    one = [lab.manifest.by_name["checkpoints/one"]]
    assert chosen_models(lab, one, SmokeOptions(pending=True)) == []
    assert isinstance(lab.observe, Recorder)
    assert [note.message for note in lab.observe.of(Note)] == ["no model is pending"]
    assert box.labsync("smoke", "one", "--pending").report["smoke"] == []


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--device", "bogus"], "bogus"),
        (["--device", "cuda:x"], "cuda:x"),
        (["--device", "cpu", "--require-gpu"], "--require-gpu"),
        (["bare"], "bare"),
        (["one", "bare"], "bare"),
    ],
)
def test_what_makes_no_sense_is_2_and_named(tmp_path: Path, args: list[str], named: str) -> None:
    box = _pulled(tmp_path)
    refused = box.labsync("smoke", *args)
    assert refused.code == 2
    assert named in refused.messages
    assert not (box.root / "ran").exists()


def test_a_kind_with_some_models_is_no_mistake(tmp_path: Path) -> None:
    box = _pulled(tmp_path)
    assert _results(box.labsync("smoke", "checkpoints"))["checkpoints/one"] == "pass"


def test_a_dry_run_lists_and_runs_and_remembers_nothing(tmp_path: Path) -> None:
    box = _pulled(tmp_path)
    dry = box.labsync("smoke", "--dry-run")
    assert dry.code == 0
    assert {line["artifact"]: line["reason"] for line in dry.lines[:-1]} == {
        "checkpoints/one": "run python on cpu",
        "checkpoints/made": "skipped: it is not whole on the disk (`missing`)",
    }
    assert dry.report["smoke"] == []
    assert not (box.root / "ran").exists()
    assert _opened(box).state.get("smoke", "checkpoints/one") is None


@pytest.mark.parametrize("command", [["env", "build"], ["kernel"], ["smoke"]])
def test_dry_runs_build_no_environment(tmp_path: Path, command: list[str]) -> None:
    box = _pulled(tmp_path, more="environment: {name: lab, manager: venv, inherit: true}\n")
    home = tmp_path / "box-home"
    before = sorted(home.rglob("*"))
    dry = box.labsync(*command, "--dry-run")
    assert dry.code == 0, dry.messages
    assert dry.report["environment"]["state"] == "missing"
    assert sorted(home.rglob("*")) == before
    assert environment_is_missing(_opened(box))


# --- the report ----------------------------------------------------------------------------------


def test_a_smoke_run_renews_the_report_that_bootstrap_left(tmp_path: Path) -> None:
    box = _box(tmp_path)
    assert box.labsync("bootstrap").code == 0
    first = json.loads((box.root / "labsync-report.json").read_text())
    assert first["run"]["command"] == "bootstrap"
    stages = [span["name"] for span in first["run"]["spans"] if span["kind"] == "stage"]
    assert stages == ["lock", "pull", "smoke"]
    carried = {span["name"] for span in first["run"]["spans"] if span["kind"] == "artifact"}
    assert carried == {"checkpoints/bare", "checkpoints/one"}
    box.write("mine.py", b"def look(path):\n    raise ValueError('the mask is empty')\n")
    assert box.labsync("smoke", "one").code == 14
    then = json.loads((box.root / "labsync-report.json").read_text())
    assert (then["run"]["command"], then["exit_code"]) == ("smoke", 14)
    assert then["artifacts"] == first["artifacts"]
    assert [item["name"] for item in then["smoke"]] == [item["name"] for item in first["smoke"]]
    assert then["run"]["earlier"][0]["result"] == "pass"
    shown = (box.root / "labsync-report.html").read_text("utf-8")
    assert "the mask is empty" in shown
    assert "Last time" in shown


def test_a_dry_run_and_a_mistake_leave_the_report_alone(tmp_path: Path) -> None:
    box = _pulled(tmp_path)
    box.labsync("smoke", "--dry-run")
    box.labsync("smoke", "bare")
    assert not (box.root / "labsync-report.json").exists()
    (box.root / "labsync-report.json").write_text("{}")  # of another version, or somebody else's
    assert box.labsync("smoke", "one").code == 0
    assert json.loads((box.root / "labsync-report.json").read_text())["exit_code"] == 0


HUNGRY = b"""
def look(path):
    if path.endswith("one.bin"):
        raise MemoryError
    return path[-5:]
"""
TRUSTING = f"task: video-classification, trust_remote_code: '{'c' * 40}'}}}}"


# --- fallbacks, trust, and what makes pickles unsafe ----------------------------------------------


def test_a_model_that_memory_does_not_suffice_for_is_degraded_to_its_fallback(tmp_path: Path) -> None:
    manifest = MANIFEST.replace("'mine:look'}}}}\n  bare", "'mine:look', fallback: [small]}}}}\n  bare") + (
        "models: {{small: {{origin: 'file:../small/', path: small}}}}\n"
    )
    (tmp_path / "one.bin").write_bytes(b"weights")
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "w").write_bytes(b"w")
    box = Box(tmp_path / "box", manifest.format(mirror="./mirror", device="cpu"))
    box.write("mine.py", HUNGRY)
    box.labsync("lock")
    box.labsync("pull")
    done = box.labsync("smoke", "one")
    (result,) = done.report["smoke"]
    assert done.code == 0, done.messages
    assert (result["result"], result["rung"]) == ("degraded", "the fallback models/small")
    assert result["reason"] == 'only with the fallback models/small, because memory ran out as asked: "small"'
    shutil.rmtree(box.root / "small")
    assert box.labsync("smoke", "one").code == 14


def test_a_variable_that_makes_pickles_run_is_warned_of(tmp_path: Path) -> None:
    box = _pulled(tmp_path)
    lab = Lab(
        load_manifest(box.manifest),
        Options(env={**os.environ, **box.env, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}),
        Recorder(),
    )
    models = [lab.manifest.by_name["checkpoints/one"]]
    assert prove.prove_models(lab, models, None, SmokeOptions()).results[0].result == "pass"
    assert isinstance(lab.observe, Recorder)
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" in lab.observe.of(Note)[0].message


def test_code_of_a_model_that_is_not_from_the_hub_is_never_trusted(tmp_path: Path) -> None:
    box = _box(tmp_path)
    trusting = box.manifest.read_text().replace(
        "task: python, function: 'mine:look'}}\n  bare", f"{TRUSTING}\n  bare"
    )
    box.manifest.write_text(trusting)
    box.labsync("lock")
    box.labsync("pull")
    done = box.labsync("smoke", "one")
    assert done.code == 14
    assert "its origin has none" in done.report["smoke"][0]["reason"]
