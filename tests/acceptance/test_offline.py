"""`--offline` sends nothing; a mirror that does not answer is asked once, and only where it is needed."""

from __future__ import annotations

import shutil
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tests.fakes.box import Box
from tests.fakes.hub import Hub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANIFEST = """
version: 1
project: offline
mirror: {mirror}
models:
  hub: {{origin: 'hf://org/m', path: hub}}
checkpoints:
  near: {{origin: 'file:../near.bin', path: near.bin}}
datasets:
  far: {{origin: '{url}/far.bin', path: far.bin}}
results:
  runs: {{path: outputs}}
"""
DEAD = "{url: 's3://bucket/p', endpoint: 'http://127.0.0.1:9', region: us-east-1}"
KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        hub.add_repo("models", "org/m", {"config.json": b"{}"})
        yield hub


def _box(folder: Path, hub: Hub, mirror: str = "./mirror") -> Box:
    (folder / "near.bin").write_bytes(b"near")
    text = MANIFEST.format(mirror=mirror, url=hub.url)
    return Box(folder / "box", text, {"HF_ENDPOINT": hub.url, **KEYS})


@pytest.mark.parametrize("command", ["lock", "bootstrap"])
def test_without_a_lock_only_what_lies_here_is_locked_and_nothing_is_sent(
    tmp_path: Path, hub: Hub, command: str
) -> None:
    box = _box(tmp_path, hub)
    done = box.labsync(command, "--offline")
    assert done.code == 2
    assert {e["artifact"]: e["code"] for e in done.errors} == {"models/hub": 2, "datasets/far": 2}
    assert len(done.errors) == 2
    assert all("--offline" in e["message"] and e["hint"] for e in done.errors)
    assert list(hub.requests) == []
    lock = (box.root / "labsync.lock").read_text()
    assert "checkpoints/near" in lock
    assert "models/hub" not in lock
    if command == "bootstrap":
        assert box.read("near.bin") == b"near"


def test_a_library_that_cannot_be_brought_is_told_once(tmp_path: Path) -> None:
    text = (
        "version: 1\nproject: lab\n"
        "libraries:\n  far: {origin: 'git+https://127.0.0.1:9/far', install: true}\n"
        "environment: {name: lab, manager: venv, inherit: true}\n"
    )
    done = Box(tmp_path / "box", text).labsync("bootstrap", "--offline")
    assert (done.code, [e["artifact"] for e in done.errors]) == (2, ["libraries/far"])
    assert done.report["environment"]["state"] == "failed"


def test_bootstrap_with_the_network_fills_what_the_one_without_left_open(tmp_path: Path, hub: Hub) -> None:
    box = _box(tmp_path, hub)
    box.manifest.write_text(box.manifest.read_text().replace(f"{hub.url}/far.bin", "file:../near.bin"))
    assert box.labsync("bootstrap", "--offline").code == 2
    done = box.labsync("bootstrap")
    assert done.code == 0, done.messages
    assert box.read("hub/config.json") == b"{}"


@pytest.mark.parametrize("command", ["log", "url"])
def test_what_needs_the_mirror_is_2(tmp_path: Path, hub: Hub, command: str) -> None:
    box = _box(tmp_path, hub, "{url: 's3://bucket/p', endpoint: '" + hub.url + "', region: us-east-1}")
    done = box.labsync(command, "runs", "--offline")
    assert (done.code, len(done.errors)) == (2, 1)
    assert "--offline" in done.messages
    assert list(hub.requests) == []


def test_a_directory_mirror_is_there_without_the_network(tmp_path: Path, hub: Hub) -> None:
    box = _box(tmp_path, hub)
    box.write("outputs/a.json", b"1")
    assert box.labsync("push").code == 0
    assert len(box.labsync("log", "runs", "--offline").lines) == 2


class Silent:
    """Accepts connections and never answers."""

    def __init__(self) -> None:
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)

    def close(self) -> None:
        self._socket.close()
        for connection in self._open:
            connection.close()


@pytest.mark.fault(53)
@pytest.mark.parametrize("command", [["verify"], ["du"], ["path"], ["smoke"], ["lock", "--check"]])
def test_what_looks_at_the_disk_alone_never_asks_the_mirror(
    tmp_path: Path, hub: Hub, command: list[str]
) -> None:
    box = _box(tmp_path, hub)
    box.manifest.write_text(box.manifest.read_text().replace(f"{hub.url}/far.bin", "file:../near.bin"))
    box.write("outputs/a.json", b"1")
    assert box.labsync("lock").code == 0
    assert box.labsync("pull").code == 0
    assert box.labsync("push").code == 0
    silent = Silent()
    mirror = "{url: 's3://bucket/p', endpoint: '" + silent.url + "', region: us-east-1}"
    box.manifest.write_text(box.manifest.read_text().replace("./mirror", mirror))
    try:
        done = box.labsync(*command)
        assert done.code == 0, done.messages
        assert silent.connections == 0
        if command == ["verify"]:
            states = {name: (a["disk"], a["mirror"]) for name, a in done.artifacts.items()}
            assert set(states.values()) <= {("ok", "off"), ("ahead", "off")}
    finally:
        silent.close()


def test_verify_still_names_what_is_wrong_without_the_mirror(tmp_path: Path, hub: Hub) -> None:
    box = _box(tmp_path, hub)
    box.manifest.write_text(box.manifest.read_text().replace(f"{hub.url}/far.bin", "file:../near.bin"))
    box.write("outputs/a.json", b"1")
    assert [box.labsync(command).code for command in ("lock", "pull", "push")] == [0, 0, 0]
    shutil.rmtree(tmp_path / "box" / "mirror")
    (box.root / "outputs/a.json").unlink()
    (box.root / "near.bin").unlink()
    done = box.labsync("verify")
    assert done.code == 6
    assert {e["artifact"] for e in done.errors} == {"results/runs", "checkpoints/near"}
    assert done.artifacts["results/runs"]["disk"] == "missing"


@pytest.mark.parametrize("command", [["log"], ["url"], ["push"], ["mirror"], ["pull"], ["status"]])
def test_a_dead_mirror_is_one_error(tmp_path: Path, hub: Hub, command: list[str]) -> None:
    box = _box(tmp_path, hub)
    box.manifest.write_text(box.manifest.read_text().replace(f"{hub.url}/far.bin", "file:../near.bin"))
    box.write("outputs/a.json", b"1")
    assert box.labsync("lock").code == 0
    assert box.labsync("pull").code == 0
    box.manifest.write_text(box.manifest.read_text().replace("./mirror", DEAD))
    done = box.labsync(*command)
    assert (done.code, [e["code"] for e in done.errors]) == (8, [8]), done.messages
