"""`labsync smoke --one-at-a-time`: more models than the disk can hold, each brought, proven and removed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from labsync.digest import sha256_file
from labsync.manifest.parse import load_manifest
from labsync.settings import Options
from labsync.steps import prove
from labsync.steps.lab import Lab
from labsync.steps.one_at_a_time import remove
from tests.fakes.box import Box
from tests.fakes.hub import Hub
from tests.fakes.recorder import Recorder

if TYPE_CHECKING:
    import pytest

    from tests.fakes.box import Run


def _results(run: Run) -> dict[str, str]:
    return {s["name"]: s["result"] for s in run.report["smoke"]}


MODEL = """
  {name}:
    origin: file:../{name}.bin
    sha256: {sha256}
    mirror: false
    path: {name}/weights
    smoke: {{task: python, function: "mine:look"}}
"""
TOP = """
version: 1
project: smoke
mirror: ./mirror
device: {device}
disk: {{budget: {budget}}}
models:"""
COUNT = b"""
import os
def look(path):
    return [name for name in ("first", "second") if os.path.exists(f"{name}/weights")]
"""


def _several(folder: Path, budget: str, device: str = "cpu", first: int = 3) -> Box:
    manifest = TOP.format(budget=budget, device=device)
    for name, mib in (("first", first), ("second", 3)):
        (folder / f"{name}.bin").write_bytes(name[:1].encode() * (mib << 20))
        manifest += MODEL.format(name=name, sha256=sha256_file(folder / f"{name}.bin")[0])
    box = Box(folder / "box", manifest)
    box.write("mine.py", COUNT)
    assert box.labsync("lock").code == 0
    return box


def test_models_that_do_not_fit_together_are_proven_in_turn_and_removed(tmp_path: Path) -> None:
    box = _several(tmp_path, "5MiB")
    assert box.labsync("pull").code == 9
    done = box.labsync("smoke", "--one-at-a-time")
    assert done.code == 0, done.messages
    assert _results(done) == {"models/first": "pass", "models/second": "pass"}
    assert [item["reason"] for item in done.report["smoke"]] == ['["first"]', '["second"]']
    assert not (box.root / "first" / "weights").exists()
    assert not (box.root / "second" / "weights").exists()
    assert box.labsync("status").artifacts["models/first"]["disk"] == "missing"
    assert box.labsync("pull", "first").code == 0
    assert box.labsync("verify", "first").code == 0


def test_models_that_fit_together_stay(tmp_path: Path) -> None:
    box = _several(tmp_path, "1GiB")
    assert box.labsync("smoke", "--one-at-a-time").code == 0
    assert box.tree("first").keys() == box.tree("second").keys() == {"weights"}


def test_what_was_on_the_disk_before_stays(tmp_path: Path) -> None:
    box = _several(tmp_path, "5MiB")
    assert box.labsync("pull", "first").code == 0
    box.manifest.write_text(box.manifest.read_text().replace("5MiB", "7MiB"))
    assert box.labsync("smoke", "--one-at-a-time").code == 0
    assert (box.root / "first" / "weights").exists()


def test_what_a_person_put_beside_a_model_or_changed_in_it_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "weights").write_bytes(b"weights")
    one = "models: {m: {origin: 'file:../folder/', path: m}}"
    box = Box(tmp_path / "box", f"version: 1\nproject: p\nmirror: ./mirror\n{one}\n")
    assert box.labsync("lock").code == box.labsync("pull").code == 0
    lab = Lab(load_manifest(box.manifest), Options(env=box.env), Recorder())
    model = lab.manifest.by_name["models/m"]
    mine = box.write("m/mine.txt", b"mine")
    remove(lab, model)
    assert box.tree("m").keys() == {"weights", "mine.txt"}
    mine.unlink()
    box.write("m/weights", b"trained")
    remove(lab, model)
    assert box.read("m/weights") == b"trained"
    assert box.labsync("pull", "--force").code == 0
    remove(lab, model)
    assert not (box.root / "m").exists()


def test_a_model_that_does_not_fit_alone_is_9_and_the_others_are_proven(tmp_path: Path) -> None:
    box = _several(tmp_path, "5MiB", first=8)
    done = box.labsync("smoke", "--one-at-a-time")
    assert done.code == 9
    assert _results(done) == {"models/first": "skipped", "models/second": "pass"}


def test_nothing_is_pulled_that_cannot_be_run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = _several(tmp_path, "5MiB", device="cuda")
    monkeypatch.setattr(prove, "has_gpu", lambda: False)
    done = box.labsync("smoke", "--one-at-a-time")
    assert set(_results(done).values()) == {"skipped"}
    assert not (box.root / "first" / "weights").exists()


def test_a_model_in_the_cache_is_removed_with_its_repository_alone(tmp_path: Path) -> None:
    with Hub() as hub:
        for name in ("one", "other"):
            hub.add_repo("models", f"tiny/{name}", {"config.json": b"{}", "w.safetensors": b"w" * 9})
        models = "models: {one: {origin: 'hf://tiny/one'}, other: {origin: 'hf://tiny/other'}}"
        text = f"version: 1\nproject: p\nmirror: ./mirror\n{models}\n"
        box = Box(tmp_path / "box", text, {"HF_ENDPOINT": hub.url})
        assert box.labsync("lock").code == box.labsync("pull").code == 0
        lab = Lab(load_manifest(box.manifest), Options(env=box.env), Recorder())
        remove(lab, lab.manifest.by_name["models/one"])
        cache = Path(box.env["HF_HOME"]) / "hub"
        assert sorted(path.name for path in cache.glob("models--*")) == ["models--tiny--other"]
        standing = box.labsync("status").artifacts
        assert (standing["models/one"]["disk"], standing["models/other"]["disk"]) == ("missing", "ok")
        assert box.labsync("pull", "one").code == 0
        assert box.labsync("verify", "one").code == 0
