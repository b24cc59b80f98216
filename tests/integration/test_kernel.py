"""Kernels started for real, in an environment that inherits the running Python's ipykernel."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from labsync.env import kernel_proof
from labsync.env.base import EnvironmentRequest, Interpreter
from labsync.env.build import build_environment
from labsync.env.kernel import KernelRequest, kernel_state, write_kernel
from labsync.env.kernel_proof import install_kernel, prove_kernel
from labsync.env.record import site_packages
from labsync.errors import EnvironmentFailedError
from labsync.events import ignore


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    request = EnvironmentRequest("lab", inherit=True, home=tmp_path_factory.mktemp("home"), offline=True)
    return Path(build_environment(request, ignore).prefix)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """An environment that sees no ipykernel."""
    return Path(
        build_environment(EnvironmentRequest("bare", home=tmp_path / "bare", offline=True), ignore).prefix
    )


def processes_of(prefix: Path) -> list[str]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes().decode("utf-8", "replace")
            except OSError:
                continue
            if str(prefix) in command:
                found.append(command)
    return found


def leftovers() -> list[Path]:
    runtime = Path(os.environ["JUPYTER_RUNTIME_DIR"])
    home = Path(os.environ["HOME"])
    return [*(runtime.iterdir() if runtime.exists() else ()), *home.glob(".ipython")]


def test_the_kernel_starts_runs_in_the_prefix_and_leaves_nothing(prefix: Path) -> None:
    request = KernelRequest("lab", prefix)
    path = write_kernel(request)
    assert path.parent.parent == Path(os.environ["JUPYTER_DATA_DIR"]) / "kernels"
    prove_kernel("lab", prefix, ("labsync", "tqdm"))
    assert kernel_state(request) == "ok"
    assert processes_of(prefix) == []
    assert leftovers() == []


def test_a_kernel_is_proven_before_it_replaces_the_old_one(prefix: Path) -> None:
    path = install_kernel(KernelRequest("lab", prefix, "Old"), ("labsync",))
    old = path.read_bytes()
    with pytest.raises(EnvironmentFailedError) as caught:
        install_kernel(KernelRequest("lab", prefix, "New"), ("no_such_module",))
    assert "ModuleNotFoundError: No module named 'no_such_module'" in caught.value.what
    assert caught.value.exit_code == 13
    assert path.read_bytes() == old
    assert processes_of(prefix) == []


def test_a_kernel_of_another_prefix_is_found_out(prefix: Path, tmp_path: Path) -> None:
    write_kernel(KernelRequest("lab", prefix))
    with pytest.raises(EnvironmentFailedError, match="runs in"):
        prove_kernel("lab", tmp_path / "lab-000000000000", ())


def test_a_kernel_whose_python_is_gone_is_stale_and_does_not_start(prefix: Path, tmp_path: Path) -> None:
    gone = tmp_path / "lab-000000000000"
    (gone / "bin").mkdir(parents=True)
    (gone / "bin" / "python").symlink_to(prefix / "bin" / "python")
    request = KernelRequest("lab", gone)
    write_kernel(request)
    (gone / "bin" / "python").unlink()
    assert kernel_state(request) == "stale"
    with pytest.raises(EnvironmentFailedError, match="does not start"):
        prove_kernel("lab", gone, ())


def test_without_ipykernel_the_error_says_what_to_add(bare: Path) -> None:
    with pytest.raises(EnvironmentFailedError, match="No module named ipykernel") as caught:
        install_kernel(KernelRequest("bare", bare), ())
    assert "add `ipykernel`" in caught.value.hint
    assert not (Path(os.environ["JUPYTER_DATA_DIR"]) / "kernels" / "bare").exists()


def test_a_kernel_that_dies_while_importing_does_not_hang(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text(
        "import os, sys\nprint('last words', file=sys.__stderr__, flush=True)\nos._exit(7)\n"
    )
    python = Interpreter.running()
    request = EnvironmentRequest(
        "deadly",
        inherit=True,
        home=tmp_path / "home",
        offline=True,
        python=Interpreter(python.executable, python.version, (*python.site_packages, str(tmp_path))),
    )
    built = Path(build_environment(request, ignore).prefix)
    with pytest.raises(EnvironmentFailedError, match="it died while importing"):
        install_kernel(KernelRequest("deadly", built), ("deadly",))
    assert processes_of(built) == []


def test_a_kernel_that_hangs_is_ended_at_its_limit(prefix: Path) -> None:
    write_kernel(KernelRequest("lab", prefix))
    with pytest.raises(EnvironmentFailedError, match=r"did not answer in time|respond"):
        prove_kernel("lab", prefix, ("time\nwhile True: time.sleep(1)",), timeout=5)
    assert processes_of(prefix) == []


@pytest.mark.parametrize(
    ("sees", "driver", "fails"), [(False, "12.1", True), (True, "12.4", False), (False, "", False)]
)
def test_where_there_is_a_gpu_torch_must_see_it(
    prefix: Path, monkeypatch: pytest.MonkeyPatch, *, sees: bool, driver: str, fails: bool
) -> None:
    monkeypatch.setattr(kernel_proof, "cuda_version", lambda: driver)
    torch = site_packages(prefix) / "torch.py"  # before the inherited one
    torch.write_text(
        f"class version: cuda = '12.4'\nclass cuda: is_available = staticmethod(lambda: {sees})\n"
    )
    write_kernel(KernelRequest("lab", prefix))
    try:
        with pytest.raises(EnvironmentFailedError, match="is for CUDA 12") if fails else nullcontext():
            prove_kernel("lab", prefix, ("torch",))
    finally:
        torch.unlink()


def test_no_kernel_of_that_name(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailedError, match="there is no kernel"):
        prove_kernel("nothing", tmp_path, ())
