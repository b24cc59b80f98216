"""The cheap answer to "has anything changed?": never another one than the whole inventory gives."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from labsync.digest import sha256_bytes
from labsync.disk.base import Staged
from labsync.disk.tree import TreeHome
from labsync.manifest.model import Artifact
from labsync.snapshot import FileEntry, Snapshot
from labsync.state import State
from tests.unit.test_walk import PATHS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

RUNS = Artifact("results", "runs", path="out/ñ")
Change = Literal["bytes", "same size", "mode", "added", "removed", "link", "touched"]
TREES = st.dictionaries(PATHS, st.tuples(st.binary(max_size=5), st.booleans()), min_size=1, max_size=12)


@dataclass
class Lab:
    root: Path
    files: Mapping[str, tuple[bytes, bool]]
    state: State = field(default_factory=lambda: State(Path(":memory:")))

    @property
    def home(self) -> TreeHome:
        return TreeHome(self.root, RUNS, self.state, self.root / ".labsync")

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot.of(
            FileEntry(path, sha256_bytes(data), len(data), x) for path, (data, x) in self.files.items()
        )

    def fill(self) -> None:
        home, batch = self.home, []
        for number, entry in enumerate(self.snapshot):
            part = home.stage / str(number)
            part.write_bytes(self.files[entry.path][0])
            batch.append(Staged(entry, part, "nothing"))
        home.begin()
        assert not any(home.publish(batch))
        home.finish(self.snapshot)

    def change(self, change: Change, path: str) -> None:
        place = self.home.source(path)
        data = place.read_bytes()
        match change:
            case "bytes":
                place.write_bytes(data + b"!")
            case "same size":
                place.write_bytes(bytes(255 - byte for byte in data) or b"!")
            case "mode":
                place.chmod(place.stat().st_mode ^ 0o100)
            case "added":
                (place.parent / "new").write_bytes(b"")
            case "removed":
                place.unlink()
            case "link":
                place.rename(self.root / "mine")
                place.symlink_to(self.root / "mine")
            case "touched":
                os.utime(place)


def standing(files: Mapping[str, tuple[bytes, bool]]) -> dict[str, tuple[bytes, bool]]:
    """Return those of the files that can be beside each other: a name is a file or a folder."""
    chosen: dict[str, tuple[bytes, bool]] = {}
    for path, value in sorted(files.items()):
        if not any(other.startswith(f"{path}/") or path.startswith(f"{other}/") for other in chosen):
            chosen[path] = value
    return chosen


@settings(max_examples=40, deadline=None)
@given(TREES)
def test_it_is_the_id_of_what_the_inventory_finds(files: dict[str, tuple[bytes, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), standing(files))
        lab.fill()
        found = lab.home.inventory(rehash=True).files.values()
        assert lab.home.identity() == Snapshot.of(item.entry for item in found).id == lab.snapshot.id


@settings(max_examples=60, deadline=None)
@given(TREES, st.sampled_from(get_args(Change)), st.data())
def test_one_change_anywhere_takes_it_away(
    files: dict[str, tuple[bytes, bool]], change: Change, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), standing(files))
        lab.fill()
        lab.change(change, data.draw(st.sampled_from(sorted(lab.files))))
        identity = lab.home.identity()
        assert identity is None or change == "removed"
        assert identity != lab.snapshot.id


def test_what_was_hashed_but_is_not_on_record_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path, {"a": (b"mine", False)})
    lab.home.path.mkdir(parents=True)
    (lab.home.path / "a").write_bytes(b"mine")
    later = time.time_ns() + 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later)
    assert [found.state for found in lab.home.inventory(rehash=False).files.values()] == ["changed"]
    assert lab.home.identity() is None
    lab.home.finish(lab.snapshot)
    assert lab.home.identity() == lab.snapshot.id


def test_a_touched_file_has_one_again_when_it_was_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path, {"a": (b"one", False), "b": (b"two", True)})
    lab.fill()
    lab.change("touched", "a")
    later = time.time_ns() + 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later)
    assert lab.home.identity() is None
    assert {found.state for found in lab.home.inventory(rehash=False).files.values()} == {"recorded"}
    assert lab.home.identity() == lab.snapshot.id


def test_an_absent_folder_has_none_and_an_empty_one_that_of_nothing(tmp_path: Path) -> None:
    lab = Lab(tmp_path, {})
    assert lab.home.identity() is None
    lab.home.path.mkdir(parents=True)
    assert lab.home.identity() == lab.snapshot.id


def test_more_files_than_are_hashed_together(tmp_path: Path) -> None:
    lab = Lab(tmp_path, {f"f{number % 3}/{number}": (b"%d" % number, False) for number in range(1, 2100)})
    lab.fill()
    assert lab.home.identity() == lab.snapshot.id
