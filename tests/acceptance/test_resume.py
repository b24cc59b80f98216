"""Killed in the middle of a large file, a transfer goes on where it was, from whatever place."""

from __future__ import annotations

import random
import secrets
import signal
from typing import TYPE_CHECKING

import pytest

from labsync.disk.budget import Room
from labsync.transfer.parts import arrived, held
from tests.fakes.box import Box
from tests.fakes.hub import Hub
from tests.fakes.live import digest, parts, start, stop, until
from tests.fakes.s3 import ENV, MotoServer, moto_server
from tests.fakes.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
SIZE = 48 * MIB + 12_345
BIG = random.Random(48).randbytes(SIZE)
TWICE_AT_MOST = 8 * MIB
OVERHEAD = 256 * 1024  # requests, headers, records

MANIFEST = """
version: 1
project: large
mirror: {url: "s3://%s/lab", endpoint: "%s"}
models:
  big: {origin: "hf://lab/big@main", path: big}
checkpoints:
  tuned: {path: tuned}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[MotoServer]:
    with moto_server() as server:
        yield server


@pytest.fixture
def bucket(server: MotoServer) -> str:
    name = f"bucket-{secrets.token_hex(4)}"
    server.make_bucket(name)
    return name


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        hub.add_repo("models", "lab/big", {"model.bin": BIG}, lfs=("*.bin",))
        yield hub


def _box(root: Path, hub: Hub, bucket: str, endpoint: str) -> Box:
    return Box(root, MANIFEST % (bucket, endpoint), {"HF_ENDPOINT": hub.url, **ENV})


def _kill(box: Box, wire: Wire, direction: str, after: int, *args: str) -> None:
    """Kill a transfer once so many bytes have passed; of a pull all but 8 MiB must be journalled then."""
    wire.hold(direction, after)  # type: ignore[arg-type]
    child = start(box, *args)
    until(wire.held.is_set, child)
    if direction == "down":
        stage, sha256 = box.root / ".labsync/stage", digest(BIG)
        until(lambda: arrived(stage, sha256) >= after - TWICE_AT_MOST - OVERHEAD, child)
    assert child.poll() is None, child.communicate()
    stop(child, signal.SIGKILL)
    wire.release()


def _leave_room_for_the_rest(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk have just the room that the part file, at its full length from the start, left."""
    left = SIZE - held(box.root / ".labsync/stage", digest(BIG))
    room = Room(1, (1 << 30) + left + 4096, 1 << 31)
    monkeypatch.setattr("labsync.steps.room.measure", lambda path: room)


@pytest.mark.fault(1, 8)
@pytest.mark.parametrize("after", [3 * MIB, 20 * MIB, 47 * MIB])
def test_a_pull_from_the_mirror(
    tmp_path: Path, server: MotoServer, bucket: str, hub: Hub, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _box(tmp_path / "first", hub, bucket, server.url)
    assert first.labsync("lock").code == 0
    assert first.labsync("pull", "big").code == 0
    with Wire(server.url) as wire:
        box = _box(tmp_path / "box", hub, bucket, wire.url)
        box.write("labsync.lock", first.read("labsync.lock"))
        hub.close()
        _kill(box, wire, "down", after, "pull", "big")
        before = wire.counts["down"]
        assert not (box.root / "big/model.bin").exists()
        _leave_room_for_the_rest(box, monkeypatch)
        again = box.labsync("pull", "big")
        assert again.code == 0, again.messages
        assert box.tree("big") == {"model.bin": BIG}
        assert wire.counts["down"] <= SIZE + TWICE_AT_MOST + OVERHEAD
        assert again.transferred["from_mirror"] <= SIZE - before + TWICE_AT_MOST
        assert parts(box) == []
        assert box.labsync("verify", "big").code == 0


def test_a_pull_goes_on_from_another_place(tmp_path: Path, server: MotoServer, bucket: str, hub: Hub) -> None:
    first = _box(tmp_path / "first", hub, bucket, server.url)
    assert first.labsync("lock").code == 0
    with Wire(hub.url) as wire:
        box = Box(tmp_path / "box", MANIFEST % (bucket, server.url), {"HF_ENDPOINT": wire.url, **ENV})
        box.write("labsync.lock", first.read("labsync.lock"))
        own = hub.cdn.url
        with Wire(own) as cdn:
            hub.cdn.url = cdn.url
            _kill(box, cdn, "down", 30 * MIB, "pull", "big")
        hub.cdn.url = own
        assert first.labsync("pull", "big").code == 0  # another box has filled the mirror meanwhile
        hub.close()
        again = box.labsync("pull", "big")
        assert again.code == 0, again.messages
        assert box.tree("big") == {"model.bin": BIG}
        assert again.transferred["from_origin"] == 0
        assert 0 < again.transferred["from_mirror"] <= SIZE - 30 * MIB + TWICE_AT_MOST + OVERHEAD


@pytest.mark.fault(2, 8)
@pytest.mark.parametrize("after", [1 * MIB, 26 * MIB, 44 * MIB])
def test_a_push(tmp_path: Path, server: MotoServer, bucket: str, hub: Hub, after: int) -> None:
    with Wire(server.url) as wire:
        box = _box(tmp_path / "box", hub, bucket, wire.url)
        box.write("tuned/epoch-1/model.bin", BIG)
        box.write("tuned/epoch-1/trainer_state.json", b"{}")
        server.app.parts.clear()
        _kill(box, wire, "up", after, "push", "tuned")
        assert not any(key.startswith("lab/.labsync/heads/checkpoints/tuned") for key in server.keys(bucket))
        stored = {part for part, body in list(server.app.parts.items()) if body in BIG}
        server.app.log.clear()
        again = box.labsync("push", "tuned")
        assert again.code == 0, again.messages
        sent = [seen.part for seen in server.app.log if seen.part]
        in_journal = len(stored) - 4  # a part whose answer was on its way is not known of
        assert len(set(sent)) <= 7 - max(in_journal, 0)
        assert again.transferred["resent"] < MIB, "no part twice"
        assert server.uploads(bucket) == []
    other = _box(tmp_path / "other", hub, bucket, server.url)
    assert other.labsync("pull", "tuned").code == 0
    assert digest(other.read("tuned/epoch-1/model.bin")) == digest(BIG)


def test_filling_the_mirror_keeps_nothing_on_the_disk(
    tmp_path: Path, server: MotoServer, bucket: str, hub: Hub
) -> None:
    box = _box(tmp_path / "box", hub, bucket, server.url)
    assert box.labsync("lock").code == 0
    moved = box.labsync("mirror", "big")
    assert moved.code == 0, moved.messages
    assert moved.transferred["from_origin"] == moved.transferred["to_mirror"] == SIZE
    here = sum(path.stat().st_size for path in box.root.rglob("*") if path.is_file())
    assert here < MIB
    hub.close()
    assert box.labsync("pull", "big").code == 0
    assert box.tree("big") == {"model.bin": BIG}
