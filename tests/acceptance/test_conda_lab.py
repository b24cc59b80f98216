"""A lab whose environment is conda's, from the manifest to a proven kernel, as a person types it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from labsync import process
from tests.fakes.channel_server import ChannelServer
from tests.fakes.conda_lab import conda_box

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fakes.box import Box, Run
    from tests.fakes.channel import Channel


class Booted:
    """A box after its first bootstrap, and the server that it came from."""

    def __init__(self, box: Box, server: ChannelServer, run: Run) -> None:
        self.box, self.server, self.run = box, server, run
        self.prefix = Path(run.report["environment"]["prefix"])


@pytest.fixture(scope="module")
def booted(channel: Channel, fast_disk: Path) -> Iterator[Booted]:
    with ChannelServer(channel.root) as server:
        box = conda_box(fast_disk / "conda-lab", server.url)
        yield Booted(box, server, box.labsync("bootstrap"))


def test_bootstrap_locks_builds_and_proves(booted: Booted) -> None:
    run = booted.run
    assert run.code == 0, run.messages + run.stderr
    assert run.report["environment"]["state"] == "built"
    assert (run.report["kernel"]["state"], run.report["kernel"]["prefix"]) == ("proven", str(booted.prefix))
    text = booted.box.read("envs/lab.lock.yaml").decode()
    assert booted.server.url in text
    home = Path(booted.box.env["HOME"])
    assert (home / ".conda" / "envs" / "lab").resolve() == booted.prefix
    kernel = json.loads((Path(booted.box.env["JUPYTER_DATA_DIR"]) / "kernels/lab/kernel.json").read_text())
    assert kernel["argv"][0] == f"{booted.prefix}/bin/python"
    assert kernel["env"]["CONDA_PREFIX"] == str(booted.prefix)


def test_a_second_bootstrap_asks_nobody(booted: Booted) -> None:
    booted.server.requests.clear()
    again = booted.box.labsync("bootstrap")
    assert again.code == 0, again.messages
    assert again.report["environment"]["state"] == "reused"
    assert booted.server.requests == []


def test_the_lock_fits_the_spec_until_the_spec_changes(booted: Booted) -> None:
    checked = booted.box.labsync("env", "lock", "--check")
    assert (checked.code, checked.lines[0]["state"]) == (0, "unchanged")
    assert booted.box.labsync("env", "lock").lines[0]["state"] == "unchanged"
    path = booted.box.root / "envs" / "lab.yaml"
    before = path.read_text()
    path.write_text(before.replace("tiny<2", "tiny=2"))
    checked = booted.box.labsync("env", "lock", "--check")
    assert checked.code == 3
    assert "was changed" in checked.messages
    assert booted.box.labsync("env", "build").code == 3
    path.write_text(before)


@contextlib.contextmanager
def started(booted: Booted) -> Iterator[Callable[[str, str], str]]:
    """Start the registered kernel as Jupyter does; gives what runs code and evaluates an expression."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import KernelManager

    kernels = str(Path(booted.box.env["JUPYTER_DATA_DIR"]) / "kernels")
    manager = KernelManager(kernel_name="lab", kernel_spec_manager=KernelSpecManager(kernel_dirs=[kernels]))
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()

    def run(code: str, expression: str) -> str:
        asked = {"value": expression}
        reply = client.execute(code, user_expressions=asked, reply=True, timeout=60)
        value: str = reply["content"]["user_expressions"]["value"]["data"]["text/plain"]
        return value

    try:
        client.wait_for_ready(timeout=60)
        yield run
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_kernel_of_it_runs_code(booted: Booted) -> None:
    with started(booted) as run:
        assert run("", "1 + 1") == "2"
        assert run("import tiny", "tiny.VERSION") == "'1.5'"
        assert run("import shutil", "shutil.which('python')") == f"'{booted.prefix}/bin/python'"


def test_the_environment_is_a_python_for_everybody(booted: Booted) -> None:
    done = process.run([f"{booted.prefix}/bin/python", "-m", "ipykernel", "--version"])
    assert done.returncode == 0, done.error_text


def evaluate(booted: Booted, code: str) -> str:
    link = Path(booted.box.env["HOME"]) / ".conda" / "envs" / "lab"
    done = process.run([f"{link}/bin/python", "-c", code])
    assert done.returncode == 0, done.error_text
    return done.stdout.decode().strip()


def kernel_prefix(booted: Booted) -> str:
    path = Path(booted.box.env["JUPYTER_DATA_DIR"]) / "kernels/lab/kernel.json"
    prefix: str = json.loads(path.read_text())["metadata"]["labsync"]["prefix"]
    return prefix


def test_a_package_is_added_rolled_back_and_removed(booted: Booted) -> None:
    box = booted.box
    spec, lock = box.read("envs/lab.yaml"), box.read("envs/lab.lock.yaml")
    planned = box.labsync("env", "add", "needs-tiny", "--dry-run")
    assert (planned.code, box.read("envs/lab.yaml")) == (0, spec)
    with started(booted) as old:
        added = box.labsync("env", "add", "needs-tiny")
        assert added.code == 0, added.messages
        with started(booted) as new:
            assert new("import needs_tiny", "needs_tiny.VERSION") == "'1.0'"
        assert old("import wave, tiny", "tiny.VERSION") == "'1.5'", "the old kernel keeps its files"
    assert added.report["environment"]["state"] == "built"
    assert added.report["kernel"]["state"] == "proven"
    assert kernel_prefix(booted) == added.report["environment"]["prefix"] != str(booted.prefix)
    assert box.read("envs/lab.yaml") == spec + b"  - needs-tiny\n"
    changed = set(box.read("envs/lab.lock.yaml").splitlines()) ^ set(lock.splitlines())
    assert {line for line in changed if line.startswith(b"- name")} == {b"- name: needs-tiny"}
    back = box.labsync("env", "rollback")
    rolled = back.report["environment"]
    assert (rolled["state"], rolled["prefix"]) == ("rolled back", str(booted.prefix))
    assert kernel_prefix(booted) == str(booted.prefix)
    removed = box.labsync("env", "remove", "needs-tiny")
    assert (removed.code, removed.report["environment"]["state"]) == (0, "reused")
    assert (box.read("envs/lab.yaml"), box.read("envs/lab.lock.yaml")) == (spec, lock)
    missing = box.labsync("env", "remove", "ipykernl")
    assert missing.code == 6
    assert "did you mean `ipykernel`" in missing.messages


def test_what_cannot_be_built_leaves_spec_and_lock_as_they_were(booted: Booted) -> None:
    box = booted.box
    before = box.read("envs/lab.yaml"), box.read("envs/lab.lock.yaml")
    booted.server.faults["gpulib"] = [404] * 9
    run = box.labsync("env", "add", "gpulib")
    booted.server.faults.clear()
    assert (run.code, run.report["environment"]) == (13, None)
    assert (box.read("envs/lab.yaml"), box.read("envs/lab.lock.yaml")) == before
    assert evaluate(booted, "import tiny; print(tiny.VERSION)") == "1.5"


def test_what_cannot_be_resolved_changes_nothing(booted: Booted) -> None:
    box = booted.box
    before = box.read("envs/lab.yaml"), box.read("envs/lab.lock.yaml")
    run = box.labsync("env", "add", "no-such-package")
    assert run.code == 13
    assert "no-such-package" in run.messages
    assert (box.read("envs/lab.yaml"), box.read("envs/lab.lock.yaml")) == before


def test_status_names_what_was_installed_by_hand_and_verify_repairs(booted: Booted) -> None:
    box = booted.box
    assert box.labsync("status").report["environment"]["state"] == "ok"
    site = next((booted.prefix / "lib").glob("python*/site-packages"))
    by_hand = site / "stray-1.0.dist-info"
    by_hand.mkdir()
    (by_hand / "RECORD").touch()
    found = box.labsync("status").report["environment"]
    assert found["state"] == "modified"
    assert "stray 1.0" in found["reason"]
    (by_hand / "RECORD").unlink()
    by_hand.rmdir()
    assert box.labsync("verify").code == 0
    (site / "tiny.py").unlink()
    damaged = box.labsync("verify")
    assert damaged.code == 5
    assert "`tiny`" in damaged.messages
    assert box.labsync("verify", "--repair").report["environment"]["state"] == "repaired"
    assert box.labsync("verify").report["environment"]["state"] == "ok"
    assert evaluate(booted, "import tiny; print(tiny.VERSION)") == "1.5"


def test_status_says_whose_the_environment_is_and_goes_on(fast_path: Path) -> None:
    box = conda_box(fast_path, "https://channel.example/none")
    (Path(box.env["LABSYNC_HOME"]) / "envs" / "lab" / "bin").mkdir(parents=True)
    status = box.labsync("status")
    assert (status.code, status.report["environment"]["state"]) == (0, "foreign")


def test_a_broken_kernel_is_found_and_repaired(booted: Booted) -> None:
    path = Path(booted.box.env["JUPYTER_DATA_DIR"]) / "kernels/lab/kernel.json"
    path.write_text(path.read_text().replace(str(booted.prefix), "/gone"))
    checks = {line["name"]: line for line in booted.box.labsync("doctor").lines if line["type"] == "check"}
    assert (checks["kernel"]["result"], checks["kernel"]["detail"]) == ("warning", "stale")
    assert booted.box.labsync("kernel").report["kernel"]["state"] == "proven"
    path.write_text('{"argv": [')
    assert booted.box.labsync("kernel").report["kernel"]["state"] == "proven"
    assert kernel_prefix(booted) == str(booted.prefix)
