from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from labsync.env.kernel import KernelRequest, kernel_name, kernel_state, kernels_dir, write_kernel
from labsync.env.stamp import write_stamp
from labsync.errors import EnvironmentFailedError, RefusedError


@pytest.fixture
def request_(tmp_path: Path) -> KernelRequest:
    prefix = tmp_path / "envs" / "lab-000000000000"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "python").touch()
    variables = {"PATH": f"{prefix}/bin:${{PATH}}", "VIRTUAL_ENV": str(prefix), "PRICE": "$$5"}
    write_stamp(prefix, {}, (), variables)
    env = {"HOME": str(tmp_path), "HF_HOME": "/data/hf", "HF_HUB_OFFLINE": "1"}
    return KernelRequest("lab", prefix, "Python (lab)", env=env)


def written(request: KernelRequest) -> dict[str, dict[str, object]]:
    value: dict[str, dict[str, object]] = json.loads(write_kernel(request).read_text())
    return value


def test_the_kernel_points_into_the_versioned_prefix(request_: KernelRequest) -> None:
    spec = written(request_)
    prefix = str(request_.prefix)
    assert list(spec["argv"]) == [
        f"{prefix}/bin/python",
        "-m",
        "ipykernel_launcher",
        "-f",
        "{connection_file}",
    ]
    assert spec["env"] == {
        "PATH": f"{prefix}/bin:${{PATH}}",
        "VIRTUAL_ENV": prefix,
        "PRICE": "$$5",
        "HF_HOME": "/data/hf",
    }
    assert spec["metadata"]["labsync"] == {"environment": "lab", "prefix": prefix}
    assert '"display_name": "Python (lab)"' in (request_.folder / "kernel.json").read_text()


def test_offline_only_when_it_is_asked_for(request_: KernelRequest) -> None:
    assert "HF_HUB_OFFLINE" not in written(request_)["env"]
    offline = KernelRequest("lab", request_.prefix, offline=True, env=request_.env)
    assert written(offline)["env"]["HF_HUB_OFFLINE"] == "1"


def test_states(request_: KernelRequest, tmp_path: Path) -> None:
    assert kernel_state(request_) == "missing"
    path = write_kernel(request_)
    assert path == tmp_path / ".local/share/jupyter/kernels/lab/kernel.json"
    assert kernel_state(request_) == "ok"
    moved = KernelRequest("lab", tmp_path / "envs" / "lab-111111111111", "Python (lab)", env=request_.env)
    assert kernel_state(moved) == "stale"
    (request_.prefix / "bin" / "python").unlink()
    assert kernel_state(request_) == "stale"


def test_the_same_kernel_is_not_written_again(request_: KernelRequest) -> None:
    path = write_kernel(request_)
    before = path.stat().st_ino
    assert write_kernel(request_).stat().st_ino == before
    write_kernel(KernelRequest("lab", request_.prefix, "Other", env=request_.env))
    assert path.stat().st_ino != before
    assert [one.name for one in path.parent.iterdir()] == ["kernel.json"]


@pytest.mark.parametrize("content", ["{}", '{"metadata": {}}', "[1]", '{"metadata": []}'])
def test_a_kernel_of_somebody_else_is_never_replaced(request_: KernelRequest, content: str) -> None:
    path = request_.folder / "kernel.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(RefusedError) as caught:
        write_kernel(request_)
    assert caught.value.exit_code == 12
    assert "jupyter kernelspec remove lab" in caught.value.hint
    assert path.read_text() == content
    assert kernel_state(request_) == "foreign"


@pytest.mark.parametrize("content", ["", '{"argv": ["/x/bin/pyth'])
def test_a_kernel_that_nobody_can_read_is_set_aside_and_written_anew(
    request_: KernelRequest, content: str
) -> None:
    path = request_.folder / "kernel.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert kernel_state(request_) == "broken"
    write_kernel(request_)
    assert kernel_state(request_) == "ok"
    assert path.with_name("kernel.json.broken").read_text() == content


def test_a_link_in_the_kernels_place_is_somebody_elses(request_: KernelRequest, tmp_path: Path) -> None:
    request_.folder.parent.mkdir(parents=True)
    request_.folder.symlink_to(tmp_path)
    with pytest.raises(RefusedError):
        write_kernel(request_)


def test_an_empty_folder_is_no_kernel(request_: KernelRequest) -> None:
    request_.folder.mkdir(parents=True)
    assert kernel_state(request_) == "missing"
    write_kernel(request_)
    assert kernel_state(request_) == "ok"


def test_without_an_environment_no_kernel_is_written(request_: KernelRequest) -> None:
    (request_.prefix / "bin" / "python").unlink()
    with pytest.raises(EnvironmentFailedError) as caught:
        write_kernel(request_)
    assert "labsync env build" in caught.value.hint
    assert not request_.folder.exists()


@pytest.mark.parametrize(("name", "expected"), [("lab", "lab"), ("Lab 2", "lab-2"), ("a/../b", "a-..-b")])
def test_kernel_names(name: str, expected: str) -> None:
    assert kernel_name(name) == expected


@pytest.mark.parametrize(
    "settings",
    [{}, {"XDG_DATA_HOME": "/x/data"}, {"JUPYTER_DATA_DIR": "/x/jupyter", "XDG_DATA_HOME": "/x/data"}],
)
def test_the_folder_is_the_one_that_jupyter_reads(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from jupyter_core.paths import jupyter_data_dir

    for name in ("XDG_DATA_HOME", "JUPYTER_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert kernels_dir(os.environ) == Path(jupyter_data_dir()) / "kernels"
