"""Every fault a model can have, planted in one lab: each is found, told in the right words, and exits 14."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.fakes.box import Box
from tests.fakes.quickstart import build

if TYPE_CHECKING:
    from collections.abc import Callable

Tensors: TypeAlias = "dict[str, np.ndarray]"

DINO = "models/dinov3-tiny"
FUNCTIONS = b"""
import os, resource, signal, sys
def hang(path):
    while True: signal.pause()
def killed(path): os.kill(os.getpid(), signal.SIGKILL)
def starve(path):
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 28, 1 << 28))
    return len(bytearray(1 << 30))
def garbage(path):
    os.write(1, b"\\xff\\x00{not json\\n" * 1000)
    os._exit(0)
def old(path):
    from collections import AutoModelForVision2Seq
"""
TASKS = {
    "nan": "task: image-feature-extraction",
    "missing": "task: image-feature-extraction",
    "blind": "task: image-feature-extraction",
    "cut": "task: image-feature-extraction",
    "evil": "task: image-feature-extraction",
    "hang": "task: python, function: 'mine:hang', timeout: 3s",
    "killed": "task: python, function: 'mine:killed'",
    "starve": "task: python, function: 'mine:starve'",
    "garbage": "task: python, function: 'mine:garbage'",
    "old": "task: python, function: 'mine:old'",
}
WORDS = {
    "nan": ("1 tensor (`model.layer.0.norm1.weight`) is not finite", "--repair"),
    "missing": ("1 tensor (`model.layer.1.mlp.up_proj.weight`) is missing and filled with", "labsync verify"),
    "blind": ("the output is the same for two different inputs", "dtype: float32"),
    "cut": ("it is cut off", "labsync verify models/cut --repair"),
    "evil": ("would call `posix.mkdir`, which is code and not weights; it was not loaded", "safetensors"),
    "hang": ("it did not finish within 3 s", "timeout: 15m"),
    "killed": ("killed by SIGKILL, most likely because memory ran out", "`fallback:`"),
    "starve": ("memory ran out", "`fallback:`"),
    "garbage": ("the probe ended with exit code 0 and no result", "os._exit"),
    "old": ("cannot import name 'AutoModelForVision2Seq'", "write `AutoModelForImageTextToText`"),
}


class _Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def _changed(source: Path, target: Path, change: Callable[[Tensors], None]) -> None:
    shutil.copytree(source, target)
    tensors = load_file(target / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


def _nan(tensors: Tensors) -> None:
    tensors["layer.0.norm1.weight"][3] = np.nan


def _missing(tensors: Tensors) -> None:
    del tensors["layer.1.mlp.up_proj.weight"]


def _blind(tensors: Tensors) -> None:
    tensors["norm.weight"][:] = 0


def _plant(origin: Path, canary: Path) -> None:
    import torch

    dino = origin / DINO
    for name, change in (("nan", _nan), ("missing", _missing), ("blind", _blind)):
        _changed(dino, origin / name, change)
    shutil.copytree(dino, origin / "cut")
    os.truncate(origin / "cut" / "model.safetensors", 400_000)
    shutil.copytree(dino, origin / "evil")
    (origin / "evil" / "model.safetensors").unlink()
    torch.save({"a": _Trap(canary)}, origin / "evil" / "pytorch_model.bin")
    for name in ("hang", "killed", "starve", "garbage", "old"):
        (origin / name).mkdir()
        (origin / name / "weights").write_bytes(name.encode())
    shutil.copytree(dino, origin / "whole")


def _manifest() -> str:
    models = [
        f"  {name}: {{origin: 'file:../origin/{name}/', path: {name}, smoke: {{{task}}}}}"
        for name, task in (TASKS | {"whole": "task: image-feature-extraction"}).items()
    ]
    return "\n".join(
        ["version: 1", "project: faults", "mirror: ./mirror", "device: cpu", "models:", *models, ""]
    )


def _lab(folder: Path) -> Box:
    """Return a lab on the disk in which everything is faulty but one model."""
    build(folder / "origin")
    _plant(folder / "origin", folder / "canary")
    box = Box(folder / "box", _manifest())
    box.write("mine.py", FUNCTIONS)
    assert box.labsync("lock").code == 0
    assert box.labsync("pull").code == 0
    return box


# One test and not ten: they share a run of ten probes, which two workers would each make for themselves.
def test_each_fault_is_told_with_its_cause_and_its_cure_and_exits_14(tmp_path: Path) -> None:
    box = _lab(tmp_path)
    run = box.labsync("smoke", *TASKS)
    assert run.code == 14
    assert not (tmp_path / "canary").exists(), "nothing was executed"
    results = {item["name"]: item for item in run.report["smoke"]}
    errors = {item["artifact"]: item for item in run.errors}
    assert results.keys() == errors.keys() == {f"models/{name}" for name in TASKS}
    for name, (cause, cure) in WORDS.items():
        result, error = results[f"models/{name}"], errors[f"models/{name}"]
        assert (name, result["result"]) == (name, "fail")
        assert (name, cause in result["reason"]) == (name, True), result["reason"]
        assert (name, cure in result["hint"]) == (name, True), result["hint"]
        assert error["code"] == 14
        assert error["hint"].splitlines() == [result["hint"], f"`labsync smoke models/{name}` runs it again"]
    shown = (box.root / "labsync-report.html").read_text("utf-8")
    assert "10 of 10 models did not run (exit code 14)." in shown
    assert "AutoModelForImageTextToText" in shown


def test_a_flipped_bit_loads_silently_and_is_found_by_verify_before(tmp_path: Path) -> None:
    box = _lab(tmp_path)
    shard = box.root / "whole" / "model.safetensors"
    data, stat = bytearray(shard.read_bytes()), shard.stat()
    data[-5] ^= 1
    with shard.open("r+b") as opened:  # in place, as a bad disk does it
        opened.write(data)
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    found = box.labsync("verify", "whole")
    assert found.code == 5
    assert "model.safetensors" in str(found.errors)
    assert box.labsync("verify", "whole", "--repair").code == 0
    assert box.labsync("verify", "whole").code == 0
