"""`lock` as a person uses it: what it says, what it retries, what it may read, what it repairs."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from labsync.disk.budget import measure
from tests.fakes.box import Box
from tests.fakes.http_faults import Fault, FileServer
from tests.fakes.hub import Hub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.box import Run

HEAD = "version: 1\nproject: lock\nmirror: ./mirror\n"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer({"/one.bin": b"one" * 1000, "/two.bin": b"two" * 1000}) as server:
        yield server


def _box(folder: Path, server: FileServer) -> Box:
    text = f"{HEAD}datasets:\n" + "".join(
        f"  {name}: {{origin: '{server.url}/{name}.bin', path: {name}.bin}}\n" for name in ("one", "two")
    )
    return Box(folder / "box", text + "results:\n  runs: {path: outputs}\n")


def _states(run: Run) -> dict[str, str]:
    return {line["artifact"]: line["state"] for line in run.lines if line["type"] == "lock_line"}


def _fetched(box: Box) -> dict[str, bytes]:
    return box.tree(".labsync/fetched")


def test_check_says_how_each_artifact_stands(tmp_path: Path, server: FileServer) -> None:
    box = _box(tmp_path, server)
    missing = box.labsync("lock", "--check")
    assert missing.code == 3
    assert _states(missing) == {
        "datasets/one": "missing", "datasets/two": "missing", "results/runs": "unchanged",
    }  # fmt: skip
    box.labsync("lock")
    fits = box.labsync("lock", "--check")
    assert fits.code == 0
    assert set(_states(fits).values()) == {"unchanged"}
    box.manifest.write_text(box.manifest.read_text().replace("/two.bin'", "/one.bin'"))
    stale = box.labsync("lock", "--check")
    assert stale.code == 3
    assert _states(stale)["datasets/two"] == "stale"
    assert box.labsync("lock", "datasets/one", "--check").code == 0


def test_a_dry_run_reads_no_bytes_and_says_how_many_it_would(tmp_path: Path, server: FileServer) -> None:
    box = _box(tmp_path, server)
    dry = box.labsync("lock", "--dry-run")
    assert dry.code == 0, dry.messages
    lines = {line["artifact"]: line for line in dry.lines[:-1]}
    assert (lines["datasets/one"]["state"], lines["datasets/one"]["bytes"]) == ("to read", 3000)
    assert {request.method for request in server.requests} <= {"HEAD"} or all(
        "range" in request.headers for request in server.requests if request.method == "GET"
    )
    assert not (box.root / "labsync.lock").exists()
    assert not (box.root / ".labsync" / "fetched").exists()
    assert box.labsync("bootstrap", "--dry-run").code == 0
    assert not (box.root / "labsync.lock").exists()


def test_bootstrap_asks_again_for_what_was_unresolved_and_only_for_that(
    tmp_path: Path, server: FileServer
) -> None:
    box = _box(tmp_path, server)
    server.fault(Fault("/two.bin", status=403))
    first = box.labsync("bootstrap")
    assert (first.code, [e["artifact"] for e in first.errors]) == (7, ["datasets/two"])
    assert box.read("one.bin") == b"one" * 1000
    again = box.labsync("bootstrap")
    assert (again.code, len(again.errors)) == (7, 1)
    server.faults.clear()
    asked = len(server.requests)
    done = box.labsync("bootstrap")
    assert done.code == 0, done.messages
    assert {request.path for request in list(server.requests)[asked:]} == {"/two.bin"}
    assert box.read("two.bin") == b"two" * 1000


def test_bootstrap_leaves_a_stale_line_to_the_user(tmp_path: Path, server: FileServer) -> None:
    box = _box(tmp_path, server)
    server.fault(Fault("/two.bin", status=403))
    box.labsync("lock")
    server.faults.clear()
    box.manifest.write_text(box.manifest.read_text().replace("/one.bin'", "/two.bin'"))
    done = box.labsync("bootstrap")
    assert done.code == 3
    assert [e["artifact"] for e in done.errors] == ["datasets/one"]
    assert box.read("two.bin") == b"two" * 1000


@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
def test_a_listing_that_is_lost_is_written_anew(tmp_path: Path, damage: str) -> None:
    origin = tmp_path / "many"
    origin.mkdir()
    for number in range(2001):
        (origin / f"{number:04}.txt").write_bytes(b"x")
    box = Box(tmp_path / "box", f"{HEAD}datasets:\n  many: {{origin: 'file:../many/', path: many}}\n")
    assert box.labsync("lock").code == 0
    before = (box.root / "labsync.lock").read_bytes()
    (listing,) = (box.root / "labsync.lock.d").iterdir()
    if damage == "gone":
        listing.unlink()
    else:
        listing.write_bytes(listing.read_bytes()[:40] if damage == "cut" else b"nothing of the kind")
    assert box.labsync("status").code == 3
    assert box.labsync("lock", "--check").code == 3
    again = box.labsync("lock")
    assert again.code == 0, again.messages
    assert _states(again) == {"datasets/many": "locked"}
    assert (box.root / "labsync.lock").read_bytes() == before
    assert box.labsync("lock", "--check").code == 0


def test_a_damaged_fetched_file_is_met_once(tmp_path: Path, server: FileServer) -> None:
    box = _box(tmp_path, server)
    box.labsync("lock")
    damaged = box.root / ".labsync/fetched" / hashlib.sha256(b"one" * 1000).hexdigest()
    damaged.write_bytes(b"bad" * 1000)
    done = box.labsync("pull")
    assert done.code == 0, done.messages
    assert box.read("one.bin") == b"one" * 1000
    assert _fetched(box) == {}


def test_what_nothing_waits_for_is_dropped(tmp_path: Path, server: FileServer) -> None:
    box = _box(tmp_path, server)
    box.labsync("lock")
    box.labsync("pull", "one")
    assert len(_fetched(box)) == 1
    box.labsync("lock", "--upgrade")
    assert len(_fetched(box)) == 2
    old = box.write(".labsync/fetched/" + "0" * 64, b"of an older revision")
    box.labsync("pull", "one")
    assert not old.exists()
    assert set(_fetched(box)) == {hashlib.sha256(b"two" * 1000).hexdigest()}
    assert box.labsync("pull").code == 0
    assert _fetched(box) == {}


def test_fetched_bytes_are_room_for_the_pull_that_takes_them(
    tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = _box(tmp_path, server)
    box.manifest.write_text(box.manifest.read_text() + "disk: {reserve: 0B}\n")
    box.labsync("lock")
    monkeypatch.setattr("labsync.steps.room.measure", lambda path: measure(path)._replace(free=0))
    pulled = box.labsync("pull", "--no-mirror")
    assert pulled.code == 0, pulled.messages


def test_the_hub_gives_no_file_to_a_dry_run(tmp_path: Path) -> None:
    with Hub() as hub:
        hub.add_repo("models", "org/m", {"config.json": b"{}"})
        text = f"{HEAD}models:\n  m: {{origin: 'hf://org/m', path: m}}\n"
        box = Box(tmp_path / "box", text, {"HF_ENDPOINT": hub.url})
        assert _states(box.labsync("lock", "--dry-run")) == {"models/m": "to read"}
        assert not [request for request in hub.requests if "/resolve" in request.path]
