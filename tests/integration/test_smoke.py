"""Every probe on real (tiny) models, and every way in which a model can be shown not to work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from labsync.digest import sha256_file
from labsync.manifest.model import SmokeInputs, SmokeSpec
from labsync.smoke import torchvision_cpu
from labsync.smoke.checks import SmokePlan, judge
from labsync.smoke.ladder import Climb, Rung
from labsync.smoke.request import ProbeRequest
from labsync.smoke.run import Subject, run_probe, smoke_one
from labsync.smoke.troubles import FOREIGN_CODE
from tests.fakes.quickstart import build

if TYPE_CHECKING:
    from collections.abc import Callable

    from labsync.report import SmokeResult

Tensors: TypeAlias = "dict[str, np.ndarray]"

DINO = "models/dinov3-tiny"
SAM = "checkpoints/sam_tiny.pth"
QWEN = "models/qwen2-vl-tiny"
LIMIT = 500 << 20  # bytes: enough for the libraries and a little work, too little for a large picture
VIDEO = "models/videomae-tiny"
RUN = SmokePlan("run", device="cpu")
FEATURES = SmokeSpec("image-feature-extraction")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("quickstart") / "origin"
    build(target)
    return target


def _smoke(spec: SmokeSpec, model: Path | str, root: Path, env: dict[str, str] | None = None) -> SmokeResult:
    subject = Subject("models/it", spec, str(model), root)
    return smoke_one(subject, RUN, Path(sys.executable), {**os.environ, **(env or {})}).result


# --- every task passes ---------------------------------------------------------------------------

QUICKSTART = [
    (
        SmokeSpec(
            "image-text-to-text",
            max_new_tokens=8,
            max_pixels=28 * 28 * 8,
            inputs=SmokeInputs(prompt="Describe."),
        ),
        QWEN,
    ),
    (SmokeSpec("image-feature-extraction", inputs=SmokeInputs(image="datasets/pictures/rings.png")), DINO),
    (SmokeSpec("video-classification", inputs=SmokeInputs(video="datasets/clips/ball")), VIDEO),
    (
        SmokeSpec(
            "segment-anything",
            inputs=SmokeInputs("datasets/pictures/shapes.png", points=((60, 50), (70, 55))),
        ),
        SAM,
    ),
]
ANSWERS = {
    "image-text-to-text": "36 prompt tokens; answer:",  # 129 without max_pixels
    "image-feature-extraction": "features 201x64",
    "video-classification": "%, ",
    "segment-anything": "3 masks, best score",
}


@pytest.mark.parametrize(("spec", "model"), QUICKSTART, ids=[spec.task for spec, _ in QUICKSTART])
def test_the_quickstarts_models_pass(origin: Path, spec: SmokeSpec, model: str) -> None:
    result = _smoke(spec, origin / model, origin)
    assert result.result == "pass", result.reason
    assert ANSWERS[spec.task] in result.reason
    assert result.device == "cpu"
    assert result.seconds > 0
    assert result.peak_bytes > 50e6


def test_a_video_file_is_read_in_colour(tmp_path: Path) -> None:
    import cv2

    writer = cv2.VideoWriter(str(tmp_path / "red.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for number in range(20):
        writer.write(np.full((48, 64, 3), (0, 5 * number, 240), np.uint8))  # OpenCV's order: blue, green, red
    writer.release()
    from labsync.smoke.probes.inputs import clips

    first, second = clips(ProbeRequest("video-classification", "/m", video=str(tmp_path / "red.mp4")), 16)
    red, green, blue = (int(value) for value in np.asarray(first[-1]).mean(axis=(0, 1)))
    assert red > 200 > green > 60 > blue
    assert len(first) == len(second) == 16


def test_a_model_in_the_cache_is_found_by_its_hub_id(origin: Path, tmp_path: Path) -> None:
    commit = "c" * 40
    repository = tmp_path / "hub" / "models--tiny--dino"
    shutil.copytree(origin / DINO, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    env = {"HF_HOME": str(tmp_path)}
    assert _smoke(FEATURES, "tiny/dino", tmp_path, env).result == "pass"
    missing = _smoke(FEATURES, "tiny/other", tmp_path, env)
    assert missing.result == "fail"
    assert missing.reason == "`tiny/other` is not in the Hugging Face cache of this box"


def test_sam_in_the_form_of_transformers_runs_in_half_precision(origin: Path) -> None:
    inputs = SmokeInputs("datasets/pictures/shapes.png", points=((60, 50),))
    spec = SmokeSpec("segment-anything", dtype="bfloat16", inputs=inputs)
    result = _smoke(spec, origin / "models/sam-hub-tiny", origin)
    assert (result.result, result.dtype) == ("pass", "bfloat16"), result.reason
    assert "3 masks" in result.reason


# --- code that came with a model -----------------------------------------------------------------

COMMIT = "c" * 40
# As VideoMAE-v2's own: a class of its own for older releases, which never calls `post_init`.
OWN_CODE = """
import os
import torch
from transformers import PretrainedConfig, PreTrainedModel
open(os.environ["CANARY"], "a").write("ran")
class OwnConfig(PretrainedConfig):
    model_type = "videomae_v2_tiny"
class OwnModel(PreTrainedModel):
    config_class = OwnConfig
    def __init__(self, config):
        super().__init__(config)
        self.patches = torch.nn.Conv3d(3, 8, kernel_size=(2, 56, 56), stride=(2, 56, 56))
    def forward(self, pixel_values):
        return self.patches(pixel_values).flatten(2).mean(dim=2)
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a model that brings its own code."""
    cache = tmp_path_factory.mktemp("cache")
    repository = cache / "hub" / "models--tiny--videomae-v2"
    folder = repository / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    (folder / "own.py").write_text(OWN_CODE)
    auto = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    config = {"model_type": "videomae_v2_tiny", "auto_map": auto, "model_config": {"num_frames": 16}}
    (folder / "config.json").write_text(json.dumps(config))
    crop = {"image_processor_type": "VideoMAEImageProcessor", "size": {"shortest_edge": 224}}
    (folder / "preprocessor_config.json").write_text(json.dumps(crop))
    weight = np.random.default_rng(0).normal(size=(8, 3, 2, 56, 56)).astype(np.float32)
    tensors = {"patches.weight": weight, "patches.bias": np.zeros(8, np.float32)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return cache


@pytest.mark.parametrize("trusted", ["", COMMIT])
def test_a_models_own_code_runs_only_where_the_manifest_pins_it(
    own: Path, tmp_path: Path, trusted: str
) -> None:
    env = {"HF_HOME": str(own), "CANARY": str(tmp_path / "canary")}
    result = _smoke(
        SmokeSpec("video-classification", trust_remote_code=trusted), "tiny/videomae-v2", tmp_path, env
    )
    assert (tmp_path / "canary").exists() == bool(trusted)
    if trusted:
        assert result.reason == "8 features, by the model's own code"
        assert result.result == "pass"
    else:
        assert result.reason == FOREIGN_CODE
        assert "trust_remote_code: <commit>" in result.hint


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        (QWEN, SmokeSpec("image-text-to-text", dtype="int8", max_new_tokens=4, max_pixels=28 * 28 * 8)),
        (
            "models/minilm-tiny",
            SmokeSpec("feature-extraction", dtype="int8"),
        ),  # its pooler is not in the file
    ],
    ids=lambda case: case[1].task,
)
def test_int8_runs_on_a_cpu(origin: Path, spec: tuple[str, SmokeSpec]) -> None:
    model, asked = spec
    result = _smoke(asked, origin / model, origin)
    assert (result.result, result.dtype) == ("pass", "int8"), result.reason


def test_a_real_shortage_of_memory_is_survived_with_fewer_pixels(origin: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.effect_noise((2000, 2000), 60).convert("RGB").save(tmp_path / "large.png")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nulimit -d {LIMIT >> 10}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    inputs = SmokeInputs(image="large.png")
    spec = SmokeSpec("image-text-to-text", max_pixels=12_845_056, max_new_tokens=4, inputs=inputs)
    subject = Subject("models/it", spec, str(origin / QWEN), tmp_path)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    result = smoke_one(subject, RUN, python, env).result
    assert (result.result, result.rung) == ("degraded", "fewer pixels"), result.reason
    assert "because memory ran out as asked: " in result.reason


# --- damaged weights -----------------------------------------------------------------------------


def _changed(source: Path, target: Path, change: Callable[[Tensors], None]) -> Path:
    shutil.copytree(source, target)
    tensors = load_file(target / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def _flatten(tensors: Tensors) -> None:
    tensors["norm.weight"][:] = 0
    tensors["norm.bias"][:] = 0.5


def _blind(tensors: Tensors) -> None:
    tensors["norm.weight"][:] = 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [(_flatten, "the output is constant (0.5 everywhere)"), (_blind, "the model ignores what it is shown")],
)
def test_a_model_that_computes_nothing_fails(
    origin: Path, tmp_path: Path, change: Callable[[Tensors], None], reason: str
) -> None:
    result = _smoke(FEATURES, _changed(origin / DINO, tmp_path / "model", change), tmp_path)
    assert (result.result, reason in result.reason) == ("fail", True), result.reason


def test_every_damage_of_a_model_folder_is_seen(origin: Path, tmp_path: Path) -> None:
    def damage(tensors: Tensors) -> None:
        del tensors["layer.1.mlp.up_proj.weight"]
        tensors["layer.0.norm1.weight"][3] = np.nan
        tensors["embeddings.register_tokens"] = np.zeros((1, 2, 64), np.float32)
        tensors["head.weight"] = np.zeros((2, 2), np.float32)

    folder = _changed(origin / DINO, tmp_path / "model", damage)
    request = ProbeRequest(FEATURES.task, str(folder))
    outcome = run_probe(request, Path(sys.executable), 100, os.environ)
    seen = outcome.observation
    assert seen is not None, outcome.error_text
    assert seen.missing == ("model.layer.1.mlp.up_proj.weight",)
    assert seen.nonfinite == ("model.layer.0.norm1.weight",)
    assert seen.mismatched == ("embeddings.register_tokens",)
    assert seen.unexpected == ("head.weight",)
    assert not seen.finite
    result = judge("models/it", FEATURES.task, "cpu", Climb(Rung(request), outcome))
    assert result.result == "fail"
    assert result.reason.startswith("1 tensor (`model.layer.1.mlp.up_proj.weight`) is missing")


def test_a_base_model_without_classes_fails_as_a_classifier(origin: Path, tmp_path: Path) -> None:
    def behead(tensors: Tensors) -> None:
        del tensors["classifier.weight"], tensors["classifier.bias"]
        tensors["decoder.head.weight"] = np.zeros((2, 2), np.float32)

    # In half precision, which the model refuses unless its input is cast.
    spec = SmokeSpec("video-classification", dtype="bfloat16")
    result = _smoke(spec, _changed(origin / VIDEO, tmp_path / "base", behead), tmp_path)
    assert result.result == "fail"
    assert "`classifier.bias`, `classifier.weight`" in result.reason
    assert "has not been fine-tuned" in result.reason


def test_a_sam_checkpoint_with_foreign_tensors_fails(origin: Path, tmp_path: Path) -> None:
    import torch

    state = torch.load(origin / SAM, weights_only=True)
    state["extra"] = torch.zeros(1)
    torch.save(state, tmp_path / "extra.pth")
    spec = SmokeSpec("segment-anything", dtype="bfloat16")
    extra = _smoke(spec, tmp_path / "extra.pth", tmp_path)
    assert "1 tensor (`extra`) is without a place" in extra.reason
    del state["image_encoder.pos_embed"]
    torch.save(state, tmp_path / "foreign.pth")
    foreign = _smoke(spec, tmp_path / "foreign.pth", tmp_path)
    assert "not a checkpoint of `segment_anything`" in foreign.reason
    assert {extra.result, foreign.result} == {"fail"}


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1000)


def _point(file: Path) -> None:
    digest, size = sha256_file(file)
    file.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n")


def _page(file: Path) -> None:
    file.write_text("<!DOCTYPE html>\n<html><body>Please log in</body></html>\n")


@pytest.mark.parametrize("model", [SAM, DINO])
@pytest.mark.parametrize(
    ("damage", "reason"), [(_cut, "cut off"), (_point, "a Git LFS pointer"), (_page, "a web page")]
)
def test_a_file_that_is_not_the_weights_is_named(
    origin: Path, tmp_path: Path, model: str, damage: Callable[[Path], None], reason: str
) -> None:
    copied = tmp_path / Path(model).name
    if (origin / model).is_dir():
        shutil.copytree(origin / model, copied)
        damage(copied / "model.safetensors")
    else:
        shutil.copy(origin / model, copied)
        damage(copied)
    result = _smoke(SmokeSpec("segment-anything"), copied, tmp_path)
    assert (result.result, reason in result.reason) == ("fail", True), result.reason


# --- pickles -------------------------------------------------------------------------------------


class _Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def _disguised(path: Path) -> bytes:
    """Return a pickle that reaches `os.mkdir` through torch, so that the names alone look harmless."""
    words = (b"torch.utils.cpp_extension", b"os.mkdir", os.fsencode(path))
    module, name, argument = (b"\x8c" + bytes([len(word)]) + word for word in words)
    return b"\x80\x04" + module + name + b"\x93" + argument + b"\x85R."


@pytest.mark.fault(77)
def test_a_malicious_pickle_is_refused_and_never_run(origin: Path, tmp_path: Path) -> None:
    import torch

    trap = tmp_path / "t"
    folder = tmp_path / "model"
    shutil.copytree(origin / DINO, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"a": _Touch(trap)}, folder / "pytorch_model.bin")
    torch.save({"a": _Touch(trap)}, tmp_path / "open.pth")
    (tmp_path / "disguised.pth").write_bytes(_disguised(trap))
    unsafe = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    results = [
        _smoke(FEATURES, folder, tmp_path, unsafe),
        _smoke(SmokeSpec("segment-anything"), tmp_path / "open.pth", tmp_path, unsafe),
        _smoke(SmokeSpec("segment-anything"), tmp_path / "disguised.pth", tmp_path, unsafe),
    ]
    assert not trap.exists()
    assert [result.result for result in results] == ["fail"] * 3
    assert all("nothing was executed" in result.reason for result in results), results
    careless = "import pickle, sys, torch.utils.cpp_extension; pickle.load(open(sys.argv[1], 'rb'))"
    subprocess.run([sys.executable, "-c", careless, str(tmp_path / "disguised.pth")], check=True)
    assert trap.exists()  # the trap works, where nobody guards


def test_an_honest_pickle_is_loaded(origin: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file as load_torch

    folder = tmp_path / "model"
    shutil.copytree(origin / DINO, folder)
    torch.save(load_torch(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    result = _smoke(FEATURES, folder, tmp_path)
    assert result.result == "pass", result.reason


# --- inputs, the user's function, and the process itself ------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (SmokeInputs(image="none.png"), "none.png` does not exist"),
        (SmokeInputs(points=((9000, 1),)), "lies outside the picture of 320x240 pixels"),
        (SmokeInputs(image="text.png"), "text.png` is not a picture"),
    ],
)
def test_an_input_that_cannot_be_read_is_told(
    origin: Path, tmp_path: Path, inputs: SmokeInputs, reason: str
) -> None:
    (tmp_path / "text.png").write_text("hello")
    result = _smoke(SmokeSpec("segment-anything", inputs=inputs), origin / SAM, tmp_path)
    assert (result.result, reason in result.reason) == ("fail", True), result.reason


def test_a_gpu_that_is_not_there_is_told(origin: Path, tmp_path: Path) -> None:
    subject = Subject("checkpoints/sam", SmokeSpec("segment-anything"), str(origin / SAM), tmp_path)
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    result = smoke_one(subject, SmokePlan("run", device="cuda"), Path(sys.executable), env).result
    assert result.result == "fail"
    assert "finds no GPU it can use" in result.reason


FUNCTIONS = """
import atexit, os, signal, sys
print("noise on stdout")
atexit.register(print, "and noise at the very end")
def good(path): print("more noise"); return {"files": sorted(os.listdir(path)), "argv": len(sys.argv)}
def bad(path): raise ValueError("the mask is empty")
def odd(path): return object()
def leave(path): sys.exit(3)
def hang(path):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True: pass
def crash(path): os.kill(os.getpid(), signal.SIGSEGV)
def eat(path): os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("function", "result", "reason"),
    [
        ("good", "pass", '{"argv": 2, "files": ["a.txt"]}'),
        ("bad", "fail", "ValueError: the mask is empty"),
        ("odd", "fail", "returned a object, which JSON cannot hold"),
        ("leave", "fail", "exit code 3 and no result"),
        ("hang", "fail", "it did not finish within 2 s"),
        ("crash", "fail", "it crashed with SIGSEGV"),
        ("eat", "fail", "killed by SIGKILL, most likely because memory ran out"),
        ("none", "fail", "the module `lab_checks` has no function `none`"),
    ],
)
def test_the_users_own_function_and_every_way_to_end(
    tmp_path: Path, function: str, result: str, reason: str
) -> None:
    (tmp_path / "lab_checks.py").write_text(FUNCTIONS)
    model = tmp_path / "model"
    model.mkdir()
    (model / "a.txt").touch()
    seen = _smoke(SmokeSpec("python", function=f"lab_checks:{function}", timeout=2), model, tmp_path)
    assert seen.result == result, seen.reason
    assert reason in seen.reason


def test_a_package_that_is_not_installed_is_named(origin: Path, tmp_path: Path) -> None:
    (tmp_path / "lab_checks.py").write_text("import nothing_of_that_name\n")
    result = _smoke(SmokeSpec("python", function="lab_checks:f"), origin, tmp_path)
    assert result.reason == "the package `nothing_of_that_name` is not installed in this environment"


# --- torchvision beside a torch without CUDA -----------------------------------------------------


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torchvision_imports_and_suppresses_boxes_whatever_torch_was_built_for() -> None:
    boxes = "[[0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30.0]]"
    code = (
        "import sys, labsync.smoke.torchvision_cpu as t; t.install(); t.install()\n"
        "assert 'torch' not in sys.modules\n"
        "assert [type(finder).__name__ for finder in sys.meta_path].count('_Finder') == 1\n"
        "import torch, torchvision\n"
        f"print(torchvision.ops.nms(torch.tensor({boxes}), torch.tensor([.5, .9, .3]), .5).tolist())\n"
        f"print(torchvision.ops.batched_nms(torch.tensor({boxes}), torch.tensor([.5, .9, .3]), "
        "torch.tensor([0, 1, 0]), .5).tolist())"
    )
    assert _python(code) == "[1, 2]\n[1, 0, 2]"


def test_nothing_is_defined_where_torch_has_cuda(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("class version: cuda = '12.8'\n")
    (tmp_path / "torchvision.py").write_text("import torch; ready = True\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import labsync.smoke.torchvision_cpu as t; t.install()\n"
        "import torchvision; print(torchvision.ready, t._kept)"
    )
    assert _python(code) == "True []"


def test_the_probes_import_nothing_but_what_they_may() -> None:
    """A probe's folder is loaded under another name, so a relative import is all it needs of labsync."""
    probes = Path(str(torchvision_cpu.__file__)).with_name("probes")
    sources = [*probes.glob("*.py"), probes.with_name("request.py"), Path(str(torchvision_cpu.__file__))]
    assert len(sources) > 10
    for path in sources:
        assert "from labsync" not in path.read_text()
