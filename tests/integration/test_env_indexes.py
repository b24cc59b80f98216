"""Wheels from an index of their own, as PyTorch has one: named in either way, asked only when locking."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from labsync.digest import sha256_file
from labsync.env.build import build_environment
from labsync.env.conda_lock import lock_conda
from labsync.env.spec import parse_spec
from labsync.env.tools import Tools
from labsync.events import ignore
from tests.fakes.box import Box
from tests.fakes.channel import MINOR, module
from tests.fakes.channel_server import ChannelServer
from tests.fakes.conda_lab import evaluate, request, spec_text
from tests.fakes.wheels import make_wheel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.channel import Channel

CUDA = "2.1.0+cu121"


@pytest.fixture
def index(fast_path: Path) -> Iterator[ChannelServer]:
    """An index that has one wheel for CUDA, and tells its digest."""
    folder = fast_path / "index" / "demo-torch"
    wheel = make_wheel(folder, "demo_torch", CUDA, {"demo_torch.py": f"VERSION = {CUDA!r}\n"})
    name = wheel.name.replace("+", "%2B")
    (folder / "index.html").write_text(f'<a href="{name}#sha256={sha256_file(wheel)[0]}">{wheel.name}</a>')
    with ChannelServer(fast_path / "index") as served:
        yield served


@pytest.mark.parametrize("way", ["pip-repositories", "--extra-index-url"])
def test_both_ways_to_name_an_index_give_the_same_lock_and_the_build_asks_no_index(
    channel: Channel, fast_path: Path, index: ChannelServer, way: str
) -> None:
    mine = channel.copy(fast_path / "channel")
    mine.add(module("pip", "25.0"))
    pip = ("demo-torch",) if way == "pip-repositories" else ("demo-torch", f"--extra-index-url {index.url}")
    text = spec_text(mine.root.as_uri(), f"python={MINOR}", pip=pip)
    if way == "pip-repositories":
        text = f"pip-repositories: ['{index.url}']\n{text}"
    lock = lock_conda(parse_spec(text, "lab.yaml", "conda"), Tools(fast_path / "lock", fast_path / "log"))
    (wheel,) = lock.of("pip")
    assert (wheel.name, wheel.version) == ("demo-torch", CUDA)
    assert wheel.url == f"{index.url}/demo-torch/demo_torch-2.1.0%2Bcu121-py3-none-any.whl"
    index.requests.clear()
    built = build_environment(request(fast_path, lock, imports=("demo_torch",)), ignore)
    assert evaluate(built.prefix, "import demo_torch; print(demo_torch.VERSION)") == CUDA
    assert {path for path in index.requests if not path.endswith(".whl")} == set()


def test_a_wheel_is_added_to_a_virtual_environment_and_taken_out_again(
    tmp_path: Path, index: ChannelServer
) -> None:
    manifest = (
        "version: 1\nproject: wheels\nenvironment: {name: wheels, manager: venv, spec: envs/wheels.yaml}\n"
    )
    box = Box(tmp_path / "box", manifest)
    spec = f"pip-repositories: ['{index.url}']\ndependencies:\n  - python={MINOR}\n"
    box.write("envs/wheels.yaml", spec.encode())
    assert box.labsync("env", "lock").code == 0
    assert box.labsync("env", "build").code == 0
    added = box.labsync("env", "add", "demo-torch")
    assert added.code == 0, added.messages
    prefix = added.report["environment"]["prefix"]
    assert evaluate(prefix, "import demo_torch; print(demo_torch.VERSION)") == CUDA
    assert box.read("envs/wheels.yaml").decode() == f"{spec}  - pip\n  - pip:\n      - demo-torch\n"
    removed = box.labsync("env", "remove", "demo-torch")
    assert (removed.code, removed.report["environment"]["state"]) == (0, "reused")
    back = box.labsync("env", "rollback")
    assert back.report["environment"]["prefix"] == prefix
