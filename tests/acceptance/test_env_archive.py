"""The environment's packages in the mirror: a new box is built from it with every channel down."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.box import Box
from tests.fakes.channel import MINOR, module
from tests.fakes.channel_server import ChannelServer
from tests.fakes.conda_lab import conda_box, evaluate, spec_text
from tests.fakes.git_server import GitRepo
from tests.fakes.s3 import ENV
from tests.fakes.strict_s3.server import strict_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.channel import Channel

PYTHON = f"python={MINOR}"


class World:
    """A channel that can go down, a git repository, a mirror."""

    def __init__(self, root: Path, channel: Channel, mirror: str, env: dict[str, str]) -> None:
        self.root, self.mirror, self.env = root, mirror, env
        self.channel = channel.copy(root / "channel")
        self.channel.add(module("pip", "25.0"))
        self.server = ChannelServer(self.channel.root)
        self.repo = GitRepo(root / "repo")
        setup = b"from setuptools import setup\nsetup(name='extra', version='1.2', packages=['extra'])\n"
        self.repo.commit({"extra/__init__.py": b"ANSWER = 42\n", "setup.py": setup})

    def box(self, name: str) -> Box:
        manifest = (
            f"version: 1\nproject: archived\nmirror: {self.mirror}\n"
            f"libraries:\n  extra: {{origin: 'git+file:{self.repo.folder}@main', install: true}}\n"
            "environment: {name: lab, manager: conda, spec: envs/lab.yaml}\n"
        )
        box = Box(self.root / name, manifest, self.env)
        box.write("envs/lab.yaml", spec_text(self.server.url, PYTHON, "tiny<2", pip=()).encode())
        return box

    def copy_locks(self, box: Box, other: Box) -> None:
        for path in ("envs/lab.yaml", "envs/lab.lock.yaml", "labsync.lock"):
            other.write(path, box.read(path))


@pytest.fixture
def world(channel: Channel, fast_path: Path) -> Iterator[World]:
    made = World(fast_path, channel, str(fast_path / "mirror"), {})
    yield made
    made.server.close()


@pytest.fixture
def s3_world(channel: Channel, fast_path: Path) -> Iterator[World]:
    with strict_server() as s3:
        s3.make_bucket("bucket")
        mirror = json.dumps({"url": "s3://bucket/lab", "endpoint": s3.url})
        made = World(fast_path, channel, mirror, ENV)
        yield made
        made.server.close()


@pytest.mark.parametrize("mirror", ["world", "s3_world"])
def test_a_new_box_is_restored_from_the_mirror_with_every_channel_down(
    mirror: str, request: pytest.FixtureRequest
) -> None:
    world: World = request.getfixturevalue(mirror)
    first = world.box("a")
    assert first.labsync("lock").code == 0
    assert first.labsync("pull").code == 0
    assert first.labsync("env", "lock").code == 0
    planned = first.labsync("env", "archive", "--dry-run")
    assert len(planned.lines) == first.read("envs/lab.lock.yaml").count(b"- name:") + 1
    archived = first.labsync("env", "archive")
    assert archived.code == 0, archived.messages
    locked = first.read("envs/lab.lock.yaml").count(b"- name:")
    assert archived.transferred["files"] == locked + 1  # and the library's wheel
    again = first.labsync("env", "archive")
    assert (again.code, again.transferred["to_mirror"]) == (0, 0), again.messages
    assert not list((first.root / ".labsync" / "packages").glob("*"))

    world.server.close()
    shutil.rmtree(world.repo.folder)
    second = world.box("b")
    world.copy_locks(first, second)
    assert second.labsync("pull").code == 0
    restored = second.labsync("env", "restore")
    assert restored.code == 0, restored.messages
    assert restored.report["environment"]["state"] == "restored"
    assert restored.transferred["from_origin"] == 0
    prefix = restored.report["environment"]["prefix"]
    assert evaluate(prefix, "import tiny, extra; print(tiny.VERSION, extra.ANSWER)") == "1.5 42"
    records = [json.loads(path.read_text()) for path in Path(prefix, "conda-meta").glob("*.json")]
    assert {record["url"].partition("/channel/")[0] for record in records} == {
        world.server.url.removesuffix("/channel")
    }
    code = "import importlib.metadata as m; print(m.distribution('extra').read_text('direct_url.json'))"
    assert json.loads(evaluate(prefix, code))["vcs_info"]["vcs"] == "git"
    assert not list((second.root / ".labsync" / "packages").glob("*"))
    assert second.labsync("env", "build").report["environment"]["state"] == "reused"
    module = Path(prefix, f"lib/python{MINOR}/site-packages/tiny.py")
    module.write_bytes(b"broken, and in the cache as well")
    repaired = second.labsync("verify", "--repair")
    assert repaired.code == 0, repaired.messages
    assert evaluate(prefix, "import tiny; print(tiny.VERSION)") == "1.5"


def test_two_versions_share_what_they_have_in_common(world: World) -> None:
    box = world.box("a")
    box.labsync("lock")
    box.labsync("pull")
    assert box.labsync("env", "archive").code == 3  # not locked yet
    box.labsync("env", "lock")
    whole = box.labsync("env", "archive").transferred["to_mirror"]
    spec = box.read("envs/lab.yaml").replace(b"tiny<2", b"tiny=2")
    box.write("envs/lab.yaml", spec)
    assert box.labsync("env", "lock").code == 0
    more = box.labsync("env", "archive")
    assert more.code == 0, more.messages
    assert 0 < more.transferred["to_mirror"] < whole / 100
    # What the mirror has comes from it, the rest from the channel.
    newer = box.read("envs/lab.yaml").replace(b"tiny=2", b"tiny=1.0")
    box.write("envs/lab.yaml", newer)
    box.labsync("env", "lock")
    shutil.rmtree(Path(box.env["LABSYNC_HOME"]) / "pkgs" / "conda")
    world.server.requests.clear()
    built = box.labsync("env", "build")
    assert built.code == 0, built.messages
    fetched = [path for path in world.server.requests if path.endswith(".conda")]
    assert [path.partition("/")[2][:8] for path in fetched] == ["tiny-1.0"]


def test_without_an_archive_restore_says_so(world: World) -> None:
    box = world.box("a")
    box.labsync("lock")
    box.labsync("pull")
    box.labsync("env", "lock")
    run = box.labsync("env", "restore")
    assert run.code == 6
    assert "labsync env archive" in run.messages


def test_a_mirror_that_does_not_answer_costs_a_warning_and_not_the_build(
    channel: Channel, fast_path: Path
) -> None:
    mirror = json.dumps({"url": "s3://bucket/lab", "endpoint": "http://127.0.0.1:9"})
    box = conda_box(fast_path, channel.root.as_uri(), PYTHON, "tiny<2", mirror=mirror, env=ENV)
    assert box.labsync("env", "lock").code == 0
    built = box.labsync("env", "build")
    assert built.code == 0, built.messages
    archived = box.labsync("env", "archive")
    assert archived.code == 8


def test_a_damaged_archive_is_healed_by_the_next(world: World) -> None:
    box = world.box("a")
    box.labsync("lock")
    box.labsync("pull")
    box.labsync("env", "lock")
    box.labsync("env", "archive")
    (stored,) = Path(world.mirror).glob("environments/lab/*/conda/noarch/tiny-*.conda")
    stored.chmod(0o644)
    stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    other = world.box("b")
    world.copy_locks(box, other)
    other.labsync("pull")
    world.server.requests.clear()
    restored = other.labsync("env", "restore")
    assert restored.code == 0, restored.messages
    assert world.server.asked("tiny-1.5") == 1  # from its channel, for the mirror's copy is wrong
