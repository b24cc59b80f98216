"""A lab whose environment is conda's, from the manifest to a proven kernel, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from labsync import process
from tests.fakes.channel_server import ChannelServer
from tests.fakes.conda_lab import conda_box

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    assert run.report["kernel"] == {"name": "lab", "prefix": str(booted.prefix), "state": "proven"}
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
    assert booted.box.labsync("env", "lock", "--check").code == 0
    path = booted.box.root / "envs" / "lab.yaml"
    before = path.read_text()
    path.write_text(before.replace("tiny<2", "tiny=2"))
    checked = booted.box.labsync("env", "lock", "--check")
    assert checked.code == 3
    assert "was changed" in checked.messages
    assert booted.box.labsync("env", "build").code == 3
    path.write_text(before)


def test_a_kernel_of_it_runs_code(booted: Booted) -> None:
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import KernelManager

    kernels = str(Path(booted.box.env["JUPYTER_DATA_DIR"]) / "kernels")
    manager = KernelManager(kernel_name="lab", kernel_spec_manager=KernelSpecManager(kernel_dirs=[kernels]))
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        code = "import tiny, shutil"
        asked = {"sum": "1 + 1", "python": "shutil.which('python')", "tiny": "tiny.VERSION"}
        reply = client.execute(code, user_expressions=asked, reply=True, timeout=60)
        values = reply["content"]["user_expressions"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    found = {name: value["data"]["text/plain"] for name, value in values.items()}
    assert found == {"sum": "2", "python": f"'{booted.prefix}/bin/python'", "tiny": "'1.5'"}


def test_the_environment_is_a_python_for_everybody(booted: Booted) -> None:
    done = process.run([f"{booted.prefix}/bin/python", "-m", "ipykernel", "--version"])
    assert done.returncode == 0, done.error_text
