"""Smoke tests decided and judged, without running any."""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import pytest

from labsync.manifest.model import SmokeInputs, SmokeSpec, Task
from labsync.report import DiskState, Share, SmokeResult
from labsync.smoke.checks import Outcome, SmokePlan, fits, judge, plan_smoke, trust_problem
from labsync.smoke.ladder import Climb, Rung
from labsync.smoke.probes.errors import ProbeError
from labsync.smoke.probes.explain import explain
from labsync.smoke.probes.files import problem_of
from labsync.smoke.probes.inputs import points, spread
from labsync.smoke.probes.measure import printable
from labsync.smoke.probes.serve import MODULES
from labsync.smoke.request import ANY, Observation, ProbeRequest
from labsync.smoke.run import START, Proof, Subject, probe_env, request_of, smoke_one
from labsync.smoke.troubles import CURES, Finding, cure_of, old_api_cure

SPEC = SmokeSpec("segment-anything")
GOOD = Observation(
    shape=(1, 3, 64, 64), expected=(1, 3, ANY, ANY), minimum=-1.0, maximum=2.0, difference=0.5,
    text="3 masks", device="cpu", dtype="float32", load_seconds=1.5, run_seconds=0.25, ram_bytes=400,
    vram_bytes=70, estimated_bytes=300, labels=("cat",), shares=(0.5,), notes=("so",),
)  # fmt: skip


# --- whether a test runs -------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    decision: str
    spec: str = ""
    option: str = ""
    manifest: str = ""
    gpu: bool = False
    require: bool = False
    device: str = ""


@pytest.mark.parametrize(
    "case",
    [
        Case("run", gpu=True, device="cuda"),
        Case("pending"),
        Case("pending", manifest="auto"),
        Case("run", manifest="cpu", device="cpu"),
        Case("run", spec="cpu", device="cpu"),
        Case("run", spec="cuda:1", manifest="cpu", gpu=True, device="cuda:1"),
        Case("run", spec="cuda", option="cpu", device="cpu"),
        Case("pending", option="cuda", manifest="cpu"),
        Case("fail", require=True),
        Case("fail", manifest="cpu", require=True),
        Case("run", manifest="cpu", gpu=True, require=True, device="cuda"),
    ],
)
def test_the_device_decides_whether_a_model_runs_now(case: Case) -> None:
    plan = plan_smoke(
        replace(SPEC, device=case.spec),
        "ok",
        has_gpu=case.gpu,
        device_option=case.option,
        manifest_device=case.manifest,
        require_gpu=case.require,
    )
    assert (plan.decision, plan.device) == (case.decision, case.device)
    assert bool(plan.reason) == (case.decision != "run")


@pytest.mark.parametrize("disk", get_args(DiskState))
def test_only_what_is_whole_on_the_disk_runs(disk: DiskState) -> None:
    plan = plan_smoke(SPEC, disk, has_gpu=True)
    whole = disk not in {"missing", "incomplete", "skipped", "failed"}
    assert plan.decision == ("run" if whole else "skipped")
    assert whole or disk in plan.reason


def test_without_a_spec_nothing_runs_and_the_reason_says_so() -> None:
    plan = plan_smoke(None, "ok", has_gpu=True)
    assert plan == SmokePlan("skipped", reason="the manifest names no smoke test for it")


def test_a_plan_that_does_not_run_is_the_result() -> None:
    subject = Subject("models/m", SPEC, "/nowhere", Path("/"))
    proof = smoke_one(subject, SmokePlan("pending", reason="no GPU"), Path("/no/python"), {})
    assert proof == Proof(SmokeResult("models/m", "segment-anything", "pending", "no GPU"))


# --- what an outcome means -----------------------------------------------------------------------


def _judge(outcome: Outcome, task: str = "segment-anything") -> SmokeResult:
    return judge("checkpoints/sam", task, "cpu", Climb(Rung(ProbeRequest(task, "/m")), outcome))


def test_a_good_observation_passes_and_says_what_the_model_answered() -> None:
    assert _judge(Outcome(0, GOOD)) == SmokeResult(
        "checkpoints/sam", "segment-anything", "pass", "3 masks", 1.75, "cpu", 400,
        dtype="float32", ram_bytes=400, estimated_bytes=300, notes=("so",), best=(Share("cat", 0.5),),
    )  # fmt: skip


def test_on_a_gpu_the_peak_is_the_gpus() -> None:
    assert _judge(Outcome(0, replace(GOOD, device="cuda:0"))).peak_bytes == 70


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (replace(GOOD, problem="the file is cut off"), "the file is cut off"),
        (replace(GOOD, missing=("a.weight",)), "1 tensor (`a.weight`) is missing and filled with random"),
        (replace(GOOD, missing=("classifier.weight", "classifier.bias")), "has not been fine-tuned"),
        (replace(GOOD, missing=("a", "b", "c", "d")), "4 tensors (`a`, `b`, `c`, …) are missing"),
        (replace(GOOD, unexpected=("b.weight",)), "without a place in the model"),
        (replace(GOOD, mismatched=("c.weight",)), "of another shape than the model's"),
        (replace(GOOD, nonfinite=("d.weight",)), "not finite (NaN or infinity)"),
        (replace(GOOD, shape=(1, 2, 64, 64)), "the shape 1x2x64x64 where 1x3xanyxany was expected"),
        (replace(GOOD, finite=False), "the output holds NaN or infinity"),
        (replace(GOOD, minimum=2.0), "the output is constant (2 everywhere)"),
        (replace(GOOD, minimum=2.0 - 1e-9), "the output is constant"),
        (replace(GOOD, minimum=0.0, maximum=0.0, difference=0.0), "the output is constant"),
        (replace(GOOD, difference=0.0), "ignores what it is shown"),
        (replace(GOOD, difference=1e-6), "ignores what it is shown"),
    ],
)
def test_every_flaw_fails_with_its_reason(changed: Observation, reason: str) -> None:
    result = _judge(Outcome(0, changed))
    assert result.result == "fail"
    assert reason in result.reason


@pytest.mark.parametrize("task", ["image-feature-extraction", "feature-extraction"])
def test_a_head_left_behind_is_no_flaw_where_only_the_body_is_wanted(task: str) -> None:
    assert _judge(Outcome(0, replace(GOOD, unexpected=("classifier.weight",))), task).result == "pass"


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Outcome(-15, None, timed_out=True, limit=20), "it did not finish within 20 s"),
        (Outcome(-15, GOOD, timed_out=True, limit=20), "it did not finish within 20 s"),
        (Outcome(-9, None), "killed by SIGKILL, most likely because memory ran out"),
        (Outcome(-11, None), "it crashed with SIGSEGV"),
        (Outcome(-11, GOOD), "it crashed with SIGSEGV"),
        (Outcome(-60, None), "it crashed with signal 60"),
        (Outcome(0, None), "exit code 0 and no result"),
        (Outcome(3, None, error_text="a\nlast words"), "exit code 3 and no result: last words"),
        (Outcome(1, GOOD, error_text="too late"), "exit code 1 after its result: too late"),
    ],
)
def test_how_the_process_ended_comes_first(outcome: Outcome, reason: str) -> None:
    result = _judge(outcome)
    assert result.result == "fail"
    assert reason in result.reason


def test_the_users_own_function_is_judged_by_itself_alone() -> None:
    empty = Observation(text="7")
    assert _judge(Outcome(0, empty), "python").result == "pass"
    assert _judge(Outcome(0, empty)).result == "fail"
    assert _judge(Outcome(1, Observation(problem="ValueError: no")), "python").reason == "ValueError: no"


def test_a_shape_fits_by_length_and_by_each_size() -> None:
    assert fits((1, 7, 64), (1, ANY, 64))
    assert not fits((1, 7), (1, ANY, 64))
    assert not fits((1, 0, 64), (1, ANY, 64))
    assert not fits((), (1,))


# --- the picture that a probe leaves --------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("left", "kept"),
    [(PNG + b"rest", PNG + b"rest"), (b"<html>", b""), (PNG + b"0" * (5 << 20), b""), (None, b"")],
)
def test_a_picture_is_looked_at_before_it_gets_into_the_report(
    tmp_path: Path, left: bytes | None, kept: bytes
) -> None:
    (tmp_path / "left").write_bytes(left or b"")
    copy = f"shutil.copy({str(tmp_path / 'left')!r}, json.load(open(sys.argv[2]))['picture'])" if left else ""
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\nimport json, shutil, sys\n{copy}\n")
    python.chmod(0o755)
    proof = smoke_one(Subject("models/m", SPEC, "/m", tmp_path), SmokePlan("run", "cpu"), python, {})
    assert proof.picture == kept


# --- what crosses the process border -------------------------------------------------------------


def test_a_request_survives_the_border() -> None:
    request = ProbeRequest("python", "/m", points=((1.5, 2.0),), prompt="é", max_pixels=3)
    assert ProbeRequest.from_json(request.to_json()) == request


def test_an_observation_survives_the_border() -> None:
    assert Observation.from_json(GOOD.to_json()) == GOOD


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Loading weights: 100%",
        "[1]",
        "{}",
        json.dumps({**json.loads(GOOD.to_json()), "extra": 1}),
        json.dumps({**json.loads(GOOD.to_json()), "shape": "1x3"}),
        json.dumps({**json.loads(GOOD.to_json()), "shape": [1, "3"]}),
        json.dumps({**json.loads(GOOD.to_json()), "finite": 1}),
    ],
)
def test_anything_else_is_no_observation(line: str) -> None:
    assert Observation.from_json(line) is None


def test_the_users_inputs_become_absolute() -> None:
    spec = SmokeSpec(
        "segment-anything", inputs=SmokeInputs(image="a/b.png", points=((1, 2),)), dtype="float16"
    )
    request = request_of(Subject("models/m", spec, "org/name", Path("/lab"), "c" * 40), "cuda")
    assert (request.image, request.video, request.points) == ("/lab/a/b.png", "", ((1, 2),))
    assert (request.model, request.is_local, request.revision) == ("org/name", False, "c" * 40)
    assert (request.device, request.dtype, request.folder) == ("cuda", "float16", "/lab")


def test_a_probe_is_offline_and_keeps_what_is_safe() -> None:
    given = {
        "PATH": "/bin",
        "PYTHONPATH": "/x",
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
        "HF_HUB_OFFLINE": "0",
    }
    env = probe_env(given)
    assert env["PATH"] == "/bin"
    assert env["HF_HUB_OFFLINE"] == env["TRANSFORMERS_OFFLINE"] == "1"
    assert not {"PYTHONPATH", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"} & env.keys()


def test_every_task_has_a_probe() -> None:
    assert set(MODULES) == set(get_args(Task))
    assert all((START.parent / f"{module}.py").is_file() for module in MODULES.values())


# --- what probes find out without torch ----------------------------------------------------------


def _safetensors(size: int = 8) -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * size


def _zip(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"archive/{name}.pkl", data)
    return buffer.getvalue()


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("1",)


def _cause(finding: Finding | None) -> str:
    return finding.cause if finding else ""


def _calling(module: str, name: str) -> bytes:
    """Return a pickle that would call a name with nothing."""
    words = b"".join(b"\x8c" + bytes([len(word)]) + word for word in (module.encode(), name.encode()))
    return b"\x80\x04" + words + b"\x93)R."


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("m.safetensors", _safetensors(), ""),
        ("m.safetensors", _safetensors(3), "promises 77: it is cut off"),
        ("m.safetensors", _safetensors(11), "it is too long"),
        ("m.safetensors", b"", "is not a safetensors file"),
        ("m.safetensors", b"\xff" * 40, "is not a safetensors file"),
        ("m.safetensors", struct.pack("<Q", 4) + b"nope", "has a header that is not"),
        ("m.safetensors", struct.pack("<Q", 9) + b'{"a": 12}', "has a header that is not"),
        ("m.safetensors", LFS, "is a Git LFS pointer"),
        ("m.pth", LFS, "is a Git LFS pointer"),
        ("m.safetensors", b"\n <!DOCTYPE html><html>", "is a web page"),
        ("m.bin", b"<html>", "is a web page"),
        ("m.pth", _zip(data=pickle.dumps({"a": 1})), ""),
        ("m.pth", _zip(data=pickle.dumps({"a": 1}))[:-30], "is cut off or damaged"),
        ("m.pth", _zip(data=pickle.dumps(_Evil())), "would call `builtins.eval`"),
        ("m.pth", pickle.dumps(_Evil(), protocol=2), "would call `__builtin__.eval`"),
        ("m.pth", pickle.dumps(_Evil(), protocol=4), "would call `builtins.eval`"),
        ("m.pth", b"no pickle at all", "is cut off or damaged"),
        ("m.pth", _zip(data=_calling("torch._utils", "_rebuild_tensor_v2")), ""),
        ("m.pth", _zip(data=_calling("collections", "OrderedDict")), ""),
        # What torch itself imports is not what a checkpoint needs of it.
        ("m.pth", _calling("torch.utils.cpp_extension", "os.mkdir"), "`torch.utils.cpp_extension.os.mkdir`"),
        ("m.pth", _calling("torch", "os.system"), "would call `torch.os.system`"),
        ("m.pth", _calling("numpy.testing", "runstring"), "would call `numpy.testing.runstring`"),
    ],
)
def test_a_weight_file_is_looked_at_before_it_is_loaded(
    tmp_path: Path, name: str, data: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(data)
    found = problem_of(tmp_path / name)
    assert problem in _cause(found)
    assert bool(found) == bool(problem)
    assert problem_of(tmp_path) == found


def test_a_folder_needs_weights_and_every_shard_that_its_index_names(tmp_path: Path) -> None:
    assert "holds no weights" in _cause(problem_of(tmp_path))
    assert "does not exist" in _cause(problem_of(tmp_path / "nowhere"))
    (tmp_path / "one.safetensors").write_bytes(_safetensors())
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "the shard `two.safetensors` is missing" in _cause(problem_of(tmp_path))
    (tmp_path / "two.safetensors").write_bytes(_safetensors())
    assert problem_of(tmp_path) is None


@pytest.mark.fault(77)
def test_a_pickle_beside_safetensors_is_not_looked_at_because_it_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(_safetensors())
    (tmp_path / "m.bin").write_bytes(pickle.dumps(_Evil()))
    assert problem_of(tmp_path) is None


@pytest.mark.parametrize(
    ("total", "count", "indices"),
    [(4, 4, [0, 1, 2, 3]), (10, 4, [0, 3, 6, 9]), (2, 4, [0, 0, 0, 1]), (1, 3, [0, 0, 0]), (5, 1, [0])],
)
def test_frames_are_spread_over_the_whole_clip(total: int, count: int, indices: list[int]) -> None:
    assert spread(total, count) == indices


def test_points_default_to_the_middle_and_stay_inside() -> None:
    assert points(ProbeRequest("segment-anything", "/m"), (10, 6)) == [[5, 3]]
    assert points(ProbeRequest("segment-anything", "/m", points=((1, 2), (9, 5))), (10, 6)) == [
        [1, 2],
        [9, 5],
    ]
    with pytest.raises(ProbeError, match="outside the picture of 10x6"):
        points(ProbeRequest("segment-anything", "/m", points=((10, 2),)), (10, 6))


def test_an_answer_is_one_printable_line() -> None:
    assert printable("a\n\x1b[31m b\ufffd\u0000c") == "a [31m b c"
    assert len(printable("x" * 500)) == 120


@pytest.mark.parametrize(
    ("error", "trouble", "sentence"),
    [
        (ProbeError("it is so", "input"), "input", "it is so"),
        (MemoryError(), "memory", "memory ran out"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9"), "memory", "memory ran out: Default"),
        (ModuleNotFoundError("No module", name="cv2"), "package", "the package `cv2` is not installed"),
        (pickle.UnpicklingError("Weights only load failed."), "pickle", "nothing was executed"),
        (ValueError("pass `trust_remote_code=True` to run it"), "code", "and the manifest does not trust it"),
        (
            ImportError("cannot import name 'AutoModelForVision2Seq' from 'transformers'"),
            "api",
            "ImportError",
        ),
        (TypeError("got an unexpected keyword argument 'load_in_8bit'"), "api", "TypeError: got an"),
        (ValueError("first\nsecond"), "unknown", "ValueError: first"),
        (KeyError(), "unknown", "KeyError"),
    ],
)
def test_an_exception_becomes_a_sentence(error: Exception, trouble: str, sentence: str) -> None:
    seen = explain(error)
    assert seen.trouble == trouble
    assert sentence in seen.problem


def test_a_failure_carries_a_cause_and_a_cure() -> None:
    failed = _judge(Outcome(1, Observation(problem="it is cut off", trouble="file")))
    assert failed.reason == "it is cut off"
    assert failed.hint.startswith("`labsync verify checkpoints/sam --repair`")
    own = _judge(Outcome(1, Observation(problem="an old name", trouble="api", cure="write the new one")))
    assert own.hint == "write the new one"


@pytest.mark.parametrize("trouble", CURES)
def test_each_cure_is_one_sentence_that_names_the_model(trouble: str) -> None:
    cure = cure_of(trouble, "models/m")
    assert "\n" not in cure
    assert "{" not in cure
    assert not cure.endswith(".")


@pytest.mark.parametrize(
    ("error", "word"),
    [
        ("ImportError: cannot import name 'AutoModelForVision2Seq'", "`AutoModelForImageTextToText`"),
        ("ImportError: cannot import name 'VideoMAEFeatureExtractor'", "`AutoImageProcessor`"),
        ("TypeError: __init__() got an unexpected keyword argument 'load_in_8bit'", "BitsAndBytesConfig"),
        ("ValueError: Mismatch in total number of <|image_pad|> tokens", "apply_chat_template"),
        ("ImportError: FlashAttention2 has been toggled on, but flash_attn is", 'attn_implementation="sdpa"'),
        ("RuntimeError: The size of tensor a (784) must match the size (1568)", "config.num_frames"),
        ("AttributeError: module 'numpy' has no attribute 'bool'", "instead of `np.bool`"),
        ("AttributeError: module transformers has no attribute 'TFAutoModel'", "migration guide"),
        ("TypeError: f() got an unexpected keyword argument 'x'", "take the argument out"),
        ("ValueError: the mask is empty", ""),
    ],
)
def test_an_old_interface_is_recognised_with_what_replaces_it(error: str, word: str) -> None:
    cure = old_api_cure(error)
    assert word in cure
    assert bool(cure) == bool(word)


# --- what a model may execute --------------------------------------------------------------------

COMMIT = "c" * 40


@pytest.mark.parametrize(
    ("trusted", "revision", "problem"),
    [
        ("", COMMIT, ""),
        (COMMIT, COMMIT, ""),
        (COMMIT, "d" * 40, "trusts the code at cccccccccccc and the lock has dddddddddddd"),
        (COMMIT, "", "its origin has none"),
    ],
)
def test_code_of_a_model_runs_at_the_pinned_commit_alone(trusted: str, revision: str, problem: str) -> None:
    found = trust_problem(replace(SPEC, trust_remote_code=trusted), revision)
    assert problem in found
    assert bool(found) == bool(problem)
