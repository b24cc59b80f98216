"""The main job, end to end, on the quickstart's models: bootstrap, damage, repair, a second box."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.box import Box, Run
from tests.fakes.hub import Hub

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
MODELS = {
    "qwen2-vl": "image-text-to-text",
    "dinov3": "image-feature-extraction",
    "videomae": "video-classification",
}


def _build(target: Path) -> None:
    builder = ROOT / "manifests" / "quickstart" / "build.py"
    subprocess.run([sys.executable, str(builder), str(target)], check=True)


def _repo_files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class Lab:
    """Box A after a bootstrap from a hub, a git repository and a folder."""

    def __init__(self, box: Box, hub: Hub, booted: Run) -> None:
        self.box, self.hub, self.booted = box, hub, booted


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("quickstart") / "origin"
    _build(target)
    return target


def _manifest(origin: Path, mirror: str) -> str:
    models = "".join(
        f"  {name}:\n    origin: hf://tiny/{name}@main\n    smoke: {{task: {task}}}\n"
        for name, task in MODELS.items()
    )
    return (
        "version: 1\nproject: whole-path\n"
        f"mirror: {mirror}\n"
        f"models:\n{models}"
        "checkpoints:\n  sam:\n"
        f"    origin: file:{origin}/checkpoints/sam_tiny.pth\n"
        "    path: checkpoints/sam_tiny.pth\n    smoke: {task: segment-anything}\n"
        f"datasets:\n  pictures: {{origin: 'file:{origin}/datasets/pictures/'}}\n"
        "libraries:\n  segment-anything:\n"
        f"    origin: git+file:{origin}/segment-anything.git@main\n    install: true\n"
        "results:\n  runs: {path: outputs}\n"
        "environment: {name: whole, manager: venv, inherit: true, kernel: Python (whole)}\n"
        "device: cpu\n"
    )


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, origin: Path) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    with Hub() as hub:
        for name in MODELS:
            files = _repo_files(next((origin / "models").glob(f"{name}*")))
            hub.add_repo("models", f"tiny/{name}", files, lfs=("*.safetensors",))
        box = Box(folder / "a", _manifest(origin, str(folder / "mirror")), {"HF_ENDPOINT": hub.url})
        yield Lab(box, hub, box.labsync("bootstrap"))


def test_bootstrap_ends_with_a_proven_lab(lab: Lab) -> None:
    report = lab.booted.report
    assert lab.booted.code == 0, lab.booted.messages + lab.booted.stderr
    assert {a["disk"] for a in report["artifacts"]} == {"ok"}
    assert {a["mirror"] for a in report["artifacts"]} == {"ok"}
    assert report["environment"]["state"] == "built"
    assert report["kernel"]["state"] == "proven"
    assert {s["name"]: s["result"] for s in report["smoke"]} == {
        "models/qwen2-vl": "pass",
        "models/dinov3": "pass",
        "models/videomae": "pass",
        "checkpoints/sam": "pass",
    }
    assert {s["device"] for s in report["smoke"]} == {"cpu"}
    written = json.loads((lab.box.root / "labsync-report.json").read_text())
    run = written.pop("run")
    assert written == report
    assert run["command"] == "bootstrap"
    shown = (lab.box.root / "labsync-report.html").read_text("utf-8")
    assert "Every model ran: 4 of 4." in shown
    assert shown.count("data:image/png;base64,") == 4


def test_a_second_bootstrap_transfers_and_builds_nothing(lab: Lab) -> None:
    asked = len(lab.hub.requests)
    again = lab.box.labsync("bootstrap")
    assert again.code == 0, again.messages
    assert again.transferred == dict.fromkeys(again.transferred, 0)
    assert again.report["environment"]["state"] == "reused"
    assert len(lab.hub.requests) == asked


def test_status_after_it_is_all_ok(lab: Lab) -> None:
    status = lab.box.labsync("status")
    assert status.code == 0, status.messages
    assert {a["disk"] for a in status.report["artifacts"]} == {"ok"}
    assert status.lines[0]["at_risk_files"] == 0


@pytest.mark.fault(25)
def test_damage_is_named_and_repaired_from_the_mirror_without_the_origin(lab: Lab, tmp_path: Path) -> None:
    box = lab.box
    pictures = sorted(p for p in (box.root / "datasets/pictures").iterdir() if p.is_file())
    missing, flipped = pictures[0], box.root / "checkpoints/sam_tiny.pth"
    before = {path: path.read_bytes() for path in (missing, flipped)}
    missing.unlink()
    stat = flipped.stat()
    data = bytearray(before[flipped])
    data[len(data) // 2] ^= 1
    flipped.write_bytes(bytes(data))
    os.utime(flipped, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    verified = box.labsync("verify")
    assert verified.code == 4
    assert {error["path"]: error["code"] for error in verified.errors} == {missing.name: 6, flipped.name: 5}

    with _origin_unreachable(lab):
        pulled = box.labsync("pull", "datasets")
        assert pulled.code == 0, pulled.messages
        assert missing.read_bytes() == before[missing]
        repaired = box.labsync("verify", "--repair")
        assert repaired.code == 0, repaired.messages
        assert repaired.transferred["from_origin"] == 0
    assert flipped.read_bytes() == before[flipped]
    assert box.labsync("verify").code == 0


class _origin_unreachable:  # noqa: N801  reads as a statement
    """While it lasts, neither the hub nor the folder that the lock names can be read."""

    def __init__(self, lab: Lab) -> None:
        self._endpoint = lab.box.env["HF_ENDPOINT"]
        self._lab = lab
        text = lab.box.manifest.read_text()
        self._origin = Path(text.split("origin: file:")[1].split("/checkpoints")[0])

    def __enter__(self) -> None:
        self._lab.box.env["HF_ENDPOINT"] = "http://127.0.0.1:9"
        self._origin.rename(self._origin.with_name("away"))

    def __exit__(self, *_: object) -> None:
        self._lab.box.env["HF_ENDPOINT"] = self._endpoint
        self._origin.with_name("away").rename(self._origin)


def _second_box(lab: Lab, folder: Path, mirror: str | None = None, env: dict[str, str] | None = None) -> Box:
    text = lab.box.manifest.read_text()
    if mirror is not None:
        old = text.split("mirror: ")[1].splitlines()[0]
        text = text.replace(f"mirror: {old}", f"mirror: {mirror}")
    box = Box(folder / "b", text, {"HF_ENDPOINT": "http://127.0.0.1:9", **(env or {})})
    shutil.copy(lab.box.root / "labsync.lock", box.root)
    return box


def _same_disks(a: Box, b: Box) -> None:
    for folder in ("checkpoints", "datasets", "libraries"):
        assert a.tree(folder) == b.tree(folder)


def _from_pretrained(box: Box, name: str) -> str:
    script = (
        "import labsync.smoke.torchvision_cpu as t; t.install(); import transformers, sys; "
        "m = transformers.AutoModel.from_pretrained(sys.argv[1]); print(type(m).__name__)"
    )
    env = {**os.environ, **box.env, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, f"tiny/{name}"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_second_box_restores_everything_from_the_directory_mirror(lab: Lab, tmp_path: Path) -> None:
    b = _second_box(lab, tmp_path)
    with _origin_unreachable(lab):
        pulled = b.labsync("pull")
    assert pulled.code == 0, pulled.messages
    assert pulled.transferred["from_origin"] == 0
    assert {a["disk"] for a in pulled.report["artifacts"]} == {"ok"}
    snapshots = {name: a["snapshot"] for name, a in pulled.artifacts.items()}
    assert snapshots == {a["name"]: a["snapshot"] for a in lab.booted.report["artifacts"]}
    _same_disks(lab.box, b)
    assert _from_pretrained(b, "dinov3") == "DINOv3ViTModel"


@pytest.mark.fault(60, 62)
def test_a_second_box_restores_everything_from_s3(lab: Lab, tmp_path: Path) -> None:
    from tests.fakes.s3 import moto_server

    with moto_server() as server:
        server.make_bucket("lab")
        mirror = f"{{url: s3://lab/p, endpoint: '{server.url}', region: us-east-1}}"
        lab.box.env.update(server.env)
        manifest = lab.box.manifest.read_text()
        old = manifest.split("mirror: ")[1].splitlines()[0]
        lab.box.manifest.write_text(manifest.replace(f"mirror: {old}", f"mirror: {mirror}"))
        try:
            pushed = lab.box.labsync("push", "*/*")
            assert pushed.code == 0, pushed.messages
            b = _second_box(lab, tmp_path, env=server.env)
            with _origin_unreachable(lab):
                pulled = b.labsync("pull")
            assert pulled.code == 0, pulled.messages
            assert pulled.transferred["from_origin"] == 0
            _same_disks(lab.box, b)
            assert _from_pretrained(b, "videomae").startswith("VideoMAE")
            first = b.labsync("status")
            assert first.code == 0, first.messages
            assert b.labsync("status").requests == {"LIST": 1}
        finally:
            lab.box.manifest.write_text(manifest)


@pytest.mark.fault(53)
def test_offline_everything_present_needs_no_network(lab: Lab) -> None:
    asked = len(lab.hub.requests)
    assert lab.box.labsync("pull", "--offline").code == 0
    assert lab.box.labsync("status", "--offline").code == 0
    assert len(lab.hub.requests) == asked
