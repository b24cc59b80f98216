"""Killed with SIGKILL at any point, a command leaves only whole things, and running it again ends it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from labsync.steps.uploads import FLUSH_FILES
from tests.fakes.box import Box
from tests.fakes.http_faults import Fault
from tests.fakes.hub import Hub
from tests.fakes.live import assert_sound, assert_whole, data_files, parts, start, stop, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KIB = 1024
OLD = {f"part-{n:02}.bin": bytes([n]) * (KIB * (n + 1)) for n in range(12)} | {"sub/notes.txt": b"old"}
NEW = (
    OLD
    | {f"part-{n:02}.bin": bytes([n + 100]) * (KIB * (n + 1)) for n in range(4, 9)}
    | {"sub/more.txt": b"more"}
)
CHANGED = sum(len(data) for path, data in NEW.items() if OLD.get(path) != data)

MANIFEST = """
version: 1
project: killed
mirror: ./mirror
datasets:
  frames: {origin: "hf://datasets/lab/frames@main"}
results:
  runs: {path: outputs}
checkpoints:
  tuned: {path: tuned}
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        hub.add_repo("datasets", "lab/frames", OLD, lfs=("*.bin",))
        yield hub


@pytest.fixture
def box(tmp_path: Path, hub: Hub) -> Box:
    manifest = MANIFEST.replace('main"', 'main", path: frames')
    return Box(tmp_path / "box", manifest, {"HF_ENDPOINT": hub.url})


def _stall_at(hub: Hub, path: str, after: int) -> Fault:
    """Let the next read of a file stop after some bytes, for ever."""
    fault = Fault("*", times=1, stall_after=after)
    if path.endswith(".bin"):
        sha256 = next(file for file in hub.repos["datasets", "lab/frames"].commits.values())[path].sha256
        fault.path = f"/lfs/{sha256}"
        hub.cdn.fault(fault)
    else:
        fault.path = f"/api/resolve-cache/*/{path}"
        hub.fault(fault)
    return fault


def _killed(box: Box, happened: Callable[[], bool], *args: str) -> None:
    child = start(box, *args)
    until(happened, child)
    stop(child, signal.SIGKILL)


STOPS = [("part-00.bin", 0), ("part-05.bin", 1), ("part-11.bin", 11 * KIB), ("sub/notes.txt", 1)]


@pytest.mark.fault(1)
@pytest.mark.parametrize(("path", "after"), STOPS)
def test_a_first_pull(box: Box, hub: Hub, path: str, after: int) -> None:
    assert box.labsync("lock").code == 0
    for fetched in (box.root / ".labsync" / "fetched").glob("*"):
        fetched.unlink()  # what `lock` has read already would not be read again
    fault = _stall_at(hub, path, after)
    _killed(box, lambda: fault.times == 0, "pull", "frames", "-j", "1")
    assert_whole(box.root / "frames", OLD)
    assert_sound(box.root / "mirror")
    visible = box.tree("frames") if (box.root / "frames").exists() else {}
    there = sum(map(len, visible.values()))
    stored = sum(file.stat().st_size for file in data_files(box.root / "mirror"))
    if visible:
        assert box.labsync("status", "frames").artifacts["datasets/frames"]["disk"] == "incomplete"

    again = box.labsync("pull", "frames")
    assert again.code == 0, again.messages
    assert again.artifacts["datasets/frames"]["disk"] == "ok"
    assert again.artifacts["datasets/frames"]["mirror"] == "ok"
    whole = sum(map(len, OLD.values()))
    assert again.transferred["from_origin"] <= whole - there
    assert whole - stored <= again.transferred["to_mirror"] <= whole
    _is_finished(box, OLD)
    assert len(data_files(box.root / "mirror")) == len(OLD)


@pytest.mark.fault(1)
def test_an_update_of_the_disk(box: Box, hub: Hub) -> None:
    assert box.labsync("lock").code == 0
    assert box.labsync("pull", "frames").code == 0
    hub.commit("lab/frames", NEW, kind="datasets")
    assert box.labsync("lock", "--upgrade").code == 0
    sha256 = next(reversed(hub.repos["datasets", "lab/frames"].commits.values()))["part-07.bin"].sha256
    fault = Fault(f"/lfs/{sha256}", times=1, stall_after=100)
    hub.cdn.fault(fault)
    _killed(box, lambda: fault.times == 0, "pull", "frames", "-j", "1")
    assert_whole(box.root / "frames", OLD, NEW)
    assert_sound(box.root / "mirror")
    stood = box.labsync("status", "frames").artifacts["datasets/frames"]
    assert (stood["disk"], stood["mirror"]) != ("ok", "ok")
    assert box.labsync("verify", "frames").code != 0

    again = box.labsync("pull", "frames")
    assert again.code == 0, again.messages
    _is_finished(box, NEW)
    assert len(data_files(box.root / "mirror")) == len(set(OLD.values()) | set(NEW.values()))
    assert again.transferred["resent"] == 0


@pytest.mark.fault(1, 2)
@pytest.mark.parametrize(("path", "after"), STOPS)
def test_filling_the_mirror(box: Box, hub: Hub, path: str, after: int) -> None:
    assert box.labsync("lock").code == 0
    for fetched in (box.root / ".labsync" / "fetched").glob("*"):
        fetched.unlink()
    fault = _stall_at(hub, path, after)
    _killed(box, lambda: fault.times == 0, "mirror", "frames", "-j", "1")
    assert_sound(box.root / "mirror")
    assert {file.read_bytes() for file in data_files(box.root / "mirror")} <= set(OLD.values())
    assert box.labsync("status", "frames").artifacts["datasets/frames"]["mirror"] == "missing"

    again = box.labsync("mirror", "frames")
    assert again.code == 0, again.messages
    assert len(data_files(box.root / "mirror")) == len(OLD)
    assert not (box.root / "frames").exists()
    assert parts(box) == []
    hub.close()
    assert box.labsync("pull", "frames").code == 0
    _is_finished(box, OLD)


@pytest.mark.fault(3)
@pytest.mark.parametrize("after", [0, 1])
def test_locking(box: Box, hub: Hub, after: int) -> None:
    hub.add_repo("datasets", "lab/frames", NEW, lfs=())
    fault = Fault("/api/resolve-cache/*/part-06.bin", times=1, stall_after=after)
    hub.fault(fault)
    _killed(box, lambda: fault.times == 0, "lock", "-j", "1")
    assert not (box.root / "labsync.lock").exists()
    assert box.labsync("lock").code == 0
    assert box.labsync("lock", "--check").code == 0
    assert parts(box) == []
    assert box.labsync("pull", "frames").code == 0
    _is_finished(box, NEW)
    fetched = box.root / ".labsync" / "fetched"
    assert list(fetched.glob("*")) == []


@pytest.mark.fault(3)
def test_locking_again_keeps_the_old_lock(box: Box, hub: Hub) -> None:
    assert box.labsync("lock").code == 0
    before = box.read("labsync.lock")
    hub.commit("lab/frames", {"sub/notes.txt": b"newer"}, kind="datasets")
    fault = Fault("/api/resolve-cache/*/notes.txt", times=1, stall_after=1)
    hub.fault(fault)
    _killed(box, lambda: fault.times == 0, "lock", "--upgrade")
    assert box.read("labsync.lock") == before
    assert box.labsync("lock", "--upgrade").code == 0
    assert box.read("labsync.lock") != before


RUNS = {f"run/{n:03}.json": b"%03d" % n * 50 for n in range(60)}


@pytest.mark.fault(2)
@pytest.mark.parametrize("seen", [1, 20, 59, "index", "head"])
def test_pushing_results(box: Box, seen: int | str) -> None:
    for path, data in RUNS.items():
        box.write(f"outputs/{path}", data)
    mirror = box.root / "mirror"
    watched = {"index": mirror / ".labsync/index", "head": mirror / ".labsync/heads/results"}

    def happened() -> bool:
        if isinstance(seen, int):
            return len(data_files(mirror)) >= seen
        return any(not name.name.startswith(".") for name in watched[seen].glob("*"))

    _killed(box, happened, "push", "results", "-j", "1")
    assert_sound(mirror)
    assert {file.read_bytes() for file in data_files(mirror)} <= set(RUNS.values())
    there = len(data_files(mirror))

    again = box.labsync("push", "results")
    assert again.code == 0, again.messages
    assert again.artifacts["results/runs"]["disk"] == "ok"
    assert again.artifacts["results/runs"]["mirror"] == "ok"
    assert again.transferred["to_mirror"] <= (len(RUNS) - there + 1) * 150
    assert len(data_files(mirror)) == len(RUNS)
    assert_sound(mirror)
    assert box.labsync("push", "results").requests == {"LIST": 1}
    assert parts(box) == []
    assert box.labsync("verify", "results").code == 0
    assert _elsewhere(box, "results").tree("outputs") == RUNS


@pytest.mark.fault(2)
def test_pushing_results_that_grow_after_the_kill_sends_nothing_twice(box: Box) -> None:
    for path, data in RUNS.items():
        box.write(f"outputs/{path}", data)
    mirror = box.root / "mirror"
    _killed(box, lambda: len(data_files(mirror)) >= 20, "push", "results", "-j", "1")
    there = len(data_files(mirror))
    box.write("outputs/run/new.json", b"one more")
    again = box.labsync("push", "results")
    assert again.code == 0, again.messages
    assert again.requests["LIST"] <= 3, "the heads, and one for what the batch has, not one for each file"
    assert "HEAD" not in again.requests
    # What was stored and not yet journalled when the process died is the one thing that may travel twice.
    assert len(data_files(mirror)) <= len(RUNS) + 1 + FLUSH_FILES
    assert again.transferred["to_mirror"] <= (len(RUNS) - there + FLUSH_FILES) * 150 + len(b"one more")


@pytest.mark.fault(2)
@pytest.mark.parametrize("seen", [1, 5, 8])
def test_pushing_checkpoints(box: Box, seen: int) -> None:
    for step in range(3):
        for name in ("a.bin", "b.bin", "trainer_state.json"):
            box.write(f"tuned/checkpoint-{step}/{name}", f"{step} {name}".encode())
    mirror = box.root / "mirror"
    _killed(box, lambda: len(data_files(mirror)) >= seen, "push", "tuned", "-j", "1")
    assert_sound(mirror)
    again = box.labsync("push", "tuned")
    assert again.code == 0, again.messages
    assert len(data_files(mirror)) == 9
    assert [line["files"] for line in box.labsync("log", "tuned").lines[:-1]] == [3, 3, 3]
    assert box.labsync("status", "tuned").code == 0
    assert set(_elsewhere(box, "tuned").tree("tuned")) == {
        f"checkpoint-2/{name}" for name in ("a.bin", "b.bin", "trainer_state.json")
    }


def _elsewhere(box: Box, selector: str) -> Box:
    """Return another box that has pulled the same from the same mirror."""
    manifest = box.manifest.read_text().replace("./mirror", str(box.root / "mirror"))
    other = Box(box.root.parent / "other", manifest)
    pulled = other.labsync("pull", selector)
    assert pulled.code == 0, pulled.messages
    return other


def _is_finished(box: Box, wanted: dict[str, bytes]) -> None:
    assert box.tree("frames") == wanted
    assert_sound(box.root / "mirror")
    assert parts(box) == []
    assert box.labsync("status", "frames").code == 0
    assert box.labsync("verify", "frames").code == 0
