"""Files held fast under a second name: what the trainer does to the first one does not matter."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from labsync.disk import pins
from labsync.disk.hashing import hash_file
from labsync.disk.pins import Holder, PinnedHome, Wish, sample, sweep
from labsync.disk.tree import TreeHome
from labsync.manifest.model import Artifact
from labsync.snapshot import Snapshot
from labsync.state import State

if TYPE_CHECKING:
    from labsync.disk.pins import Manner

OLD = 1_600_000_000


class Place:
    """A folder of checkpoints with a state of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = State(root / ".labsync" / "state.sqlite")
        artifact = Artifact("checkpoints", "tuned", path="tuned")
        self.home = TreeHome(root, artifact, self.state, root / ".labsync")

    def write(self, path: str, data: bytes, mtime: int = OLD) -> Path:
        target = self.root / "tuned" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        os.utime(target, (mtime, mtime))
        return target

    def wish(self, path: str, manner: Manner = "link", before: tuple[int, str] | None = None) -> Wish:
        found = (self.root / "tuned" / path).stat()
        seen = sample(self.root / "tuned" / path, found.st_size)
        return Wish(path, found.st_size, found.st_mtime_ns, found.st_ino, manner, seen, before)

    def hold(self, *wishes: Wish, spare: float = float("inf")) -> PinnedHome:
        return PinnedHome(self.home, self.home.look(), wishes, self.state, Holder("labsync", spare))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / ".labsync").mkdir()
    return Place(tmp_path)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.fault(37)
def test_rotation_takes_the_name_and_not_the_bytes(place: Place) -> None:
    place.write("step-1/w", b"weights")
    with place.hold(place.wish("step-1/w")) as held:
        shutil.rmtree(place.root / "tuned/step-1")
        entry = held.inventory(rehash=False).files["step-1/w"].entry
        assert entry.sha256 == digest(b"weights")
        assert held.source("step-1/w").read_bytes() == b"weights"
    assert not list((place.root / ".labsync/stage/pins/labsync").iterdir())


def test_what_was_pushed_is_known_afterwards_and_never_read_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = place.write("step-1/w", b"weights")
    with place.hold(place.wish("step-1/w")) as held:
        mine = Snapshot.of(found.entry for found in held.inventory(rehash=False).files.values())
        held.finish(mine)
        assert target.stat().st_nlink == 2
    assert target.stat().st_nlink == 1
    monkeypatch.setattr("labsync.disk.known.hash_all", lambda *_: pytest.fail("it was read again"))
    assert place.home.identity() == mine.id


def test_a_file_that_was_not_pushed_stays_unknown(place: Place) -> None:
    place.write("step-1/w", b"weights")
    with place.hold(place.wish("step-1/w")):
        pass
    assert set(place.home.look().fresh) == {"step-1/w"}


def test_a_write_while_it_is_held_is_not_recorded(place: Place) -> None:
    target = place.write("step-1/w", b"weights")
    with place.hold(place.wish("step-1/w")) as held:
        mine = Snapshot.of(found.entry for found in held.inventory(rehash=False).files.values())
        held.finish(mine)
        target.write_bytes(b"WEIGHTS")
    assert set(place.home.look().fresh) == {"step-1/w"}
    assert place.home.identity() is None


@pytest.mark.parametrize("manner", ["link", "copy"])
def test_another_file_than_the_one_that_was_seen_is_lost(place: Place, manner: Manner) -> None:
    place.write("a", b"one")
    place.write("b", b"one")
    wishes = [place.wish("a", manner), place.wish("b", manner)]
    place.write("a", b"two", OLD + 1)
    (place.root / "tuned/b").unlink()
    with place.hold(*wishes) as held:
        assert held.lost == {"a", "b"}
        assert held.inventory(rehash=False).files == {}


def test_a_file_written_anew_between_holding_and_hashing_is_lost(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = place.write("w", b"weights")
    wish = place.wish("w")

    def late(path: str, key: str) -> object:
        target.write_bytes(b"half of the n")
        return hash_file(path, key)

    monkeypatch.setattr(pins, "hash_file", late)
    with place.hold(wish) as held:
        assert held.lost == {"w"}
        assert held.inventory(rehash=False).files == {}


def test_a_copy_does_not_change_with_the_file(place: Place) -> None:
    target = place.write("w", b"weights")
    with place.hold(place.wish("w", "copy")) as held:
        target.write_bytes(b"another")
        assert held.source("w").read_bytes() == b"weights"
        assert held.inventory(rehash=False).files["w"].entry.sha256 == digest(b"weights")


def test_a_copy_for_which_there_is_no_room_is_not_made(place: Place) -> None:
    place.write("a", b"12345")
    place.write("b", b"12345")
    with place.hold(place.wish("a", "copy"), place.wish("b", "copy"), spare=9) as held:
        assert held.lost == {"b"}


def test_where_there_are_no_links_the_file_is_copied(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    target = place.write("w", b"weights")
    monkeypatch.setattr(pins, "_link", lambda original, pin: False)
    with place.hold(place.wish("w")) as held:
        assert target.stat().st_nlink == 1
        assert held.source("w").read_bytes() == b"weights"
        held.finish(Snapshot.of(found.entry for found in held.inventory(rehash=False).files.values()))


def test_of_a_file_that_grows_its_beginning_is_held(place: Place) -> None:
    target = place.write("log", b"line 1\n")
    wish = place.wish("log", "beginning", (4, digest(b"line")))
    with target.open("ab") as log:
        log.write(b"line 2\n")
    with place.hold(wish) as held:
        assert held.source("log").read_bytes() == b"line 1\n"
        mine = Snapshot.of(found.entry for found in held.inventory(rehash=False).files.values())
        assert [(entry.size, entry.sha256) for entry in mine] == [(7, digest(b"line 1\n"))]
        held.finish(mine)
    assert set(place.home.look().fresh) == {"log"}


def test_what_was_written_anew_is_no_beginning(place: Place) -> None:
    target = place.write("log", b"line 1\n")
    wish = place.wish("log", "beginning")
    target.write_bytes(b"other bytes, and more of them\n")
    with place.hold(wish) as held:
        assert held.lost == {"log"}


def test_a_file_that_lost_what_the_mirror_has_of_it_does_not_grow(place: Place) -> None:
    place.write("log", b"line 1\n")
    with place.hold(place.wish("log", "beginning", (4, digest(b"LINE")))) as held:
        assert held.lost == {"log"}
    with place.hold(place.wish("log", "beginning", (40, digest(b"x" * 40)))) as held:
        assert held.lost == {"log"}


def test_a_change_between_the_two_readings_of_a_beginning_is_noticed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    middle = pins.SAMPLE + 5
    target = place.write("log", bytes(3 * pins.SAMPLE))
    wish = place.wish("log", "beginning")
    copy = pins._copy

    def then_changed(original: Path, pin: Path, wish: Wish, *, whole: bool) -> bool:
        held = copy(original, pin, wish, whole=whole)
        with target.open("r+b") as file:
            file.seek(middle)
            file.write(b"x")
        return held

    monkeypatch.setattr(pins, "_copy", then_changed)
    with place.hold(wish) as held:
        assert held.lost == {"log"}


def test_what_a_killed_guard_held_is_swept(place: Place) -> None:
    target = place.write("w", b"weights")
    held = place.hold(place.wish("w"))
    held.__enter__()
    assert target.stat().st_nlink == 2
    sweep(place.home.stage, "another")
    assert target.stat().st_nlink == 2
    sweep(place.home.stage, "labsync")
    assert target.stat().st_nlink == 1
