"""What every home on the disk must do; a home passes by naming how to make one (see test_homes.py)."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import pytest

from labsync.digest import sha256_bytes
from labsync.disk.base import Staged
from labsync.errors import ConflictError, DiskError, RefusedError
from labsync.snapshot import FileEntry, Snapshot
from labsync.state import State

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from labsync.disk.base import Home
    from labsync.places import Replace

ODD = ("-dash.txt", "50%.txt", "trailing. ", "naïve/ñandú.txt", "a b/$(x).bin", "quote'\".json")
CONTENTS = {
    "config.json": b'{"a": 1}',
    "weights/part-1.safetensors": bytes(range(256)) * 5000,
    "empty.txt": b"",
    **{path: path.encode() for path in ODD},
}


class MakeHome(Protocol):
    def __call__(self, root: Path, state: State, contents: dict[str, bytes]) -> Home: ...


@dataclass
class Bench:
    """A home of these contents with all that is needed to fill it."""

    root: Path
    state: State
    make: MakeHome
    contents: dict[str, bytes]

    @property
    def home(self) -> Home:
        return self.make(self.root, self.state, self.contents)

    def entry(self, path: str) -> FileEntry:
        data = self.contents[path]
        return FileEntry(path, sha256_bytes(data), len(data))

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot.of(self.entry(path) for path in self.contents)

    def staged(self, data: bytes) -> Path:
        path = self.home.stage / f"{sha256_bytes(data)}-{threading.get_ident()}.part"
        path.write_bytes(data)
        return path

    def publish(self, path: str, how: Replace = "nothing") -> None:
        publish_one(self.home, self.entry(path), self.staged(self.contents[path]), how)

    def batch(self, paths: Iterable[str], how: Replace = "nothing") -> list[Staged]:
        stage = self.home.stage
        batch = [Staged(self.entry(path), stage / f"{i}.part", how) for i, path in enumerate(paths)]
        for file in batch:
            file.path.write_bytes(self.contents[file.entry.path])
        return batch

    def fill(self) -> None:
        home = self.home
        home.begin()
        assert home.publish(self.batch(self.contents)) == [None] * len(self.contents)
        home.finish(self.snapshot)

    def age(self) -> None:
        """Give every file an mtime of long ago."""
        for path in self.contents:
            os.utime(self.home.source(path), ns=(1, 1))

    def flip(self, path: str) -> bytes:
        """Flip a byte behind an unchanged size and mtime, as a bad disk would; return what is there now."""
        place = self.home.source(path)
        before = place.stat()
        data = bytearray(place.read_bytes())
        data[0] ^= 1
        place.write_bytes(data)
        while (
            place.stat().st_ctime_ns == before.st_ctime_ns or place.stat().st_mtime_ns != before.st_mtime_ns
        ):
            os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
        return bytes(data)

    def states(self, *, rehash: bool = False) -> dict[str, str]:
        return {path: found.state for path, found in self.home.inventory(rehash=rehash).files.items()}

    def aside(self) -> list[bytes]:
        folder = self.root / ".labsync" / "aside"
        return [file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()]


def new_bench(folder: Path, make_home: MakeHome) -> Bench:
    root = folder / "lab"
    root.mkdir()
    return Bench(root, State(root / ".labsync" / "labsync.sqlite"), make_home, dict(CONTENTS))


def publish_one(home: Home, entry: FileEntry, staged: Path, how: Replace = "nothing") -> None:
    (error,) = home.publish([Staged(entry, staged, how)])
    if error is not None:
        raise error


class HomeContract:
    """Subclass it with a fixture `make_home`."""

    @pytest.fixture
    def bench(self, tmp_path: Path, make_home: MakeHome) -> Bench:
        return new_bench(tmp_path, make_home)

    def test_an_absent_artifact_is_absent_and_not_an_error(self, bench: Bench) -> None:
        inventory = bench.home.inventory(rehash=False)
        assert (inventory.exists, inventory.complete, dict(inventory.files)) == (False, True, {})

    def test_what_was_published_is_found_recorded_and_complete(self, bench: Bench) -> None:
        bench.fill()
        inventory = bench.home.inventory(rehash=False)
        assert {path: found.entry for path, found in inventory.files.items()} == bench.snapshot.by_path
        assert set(bench.states().values()) == {"recorded"}
        assert inventory.complete
        assert inventory.exists
        assert {p: bench.home.source(p).read_bytes() for p in bench.contents} == bench.contents

    def test_a_rehash_finds_the_same(self, bench: Bench) -> None:
        bench.fill()
        assert bench.home.inventory(rehash=True) == bench.home.inventory(rehash=False)

    def test_publishing_consumes_what_was_staged(self, bench: Bench) -> None:
        bench.fill()
        assert list(bench.home.stage.iterdir()) == []

    def test_an_unfinished_update_is_incomplete_for_the_next_process(self, bench: Bench) -> None:
        bench.home.begin()
        bench.publish("config.json")
        inventory = bench.home.inventory(rehash=False)
        assert not inventory.complete
        assert list(inventory.files) == ["config.json"]

    def test_finish_twice_writes_nothing_the_second_time(self, bench: Bench) -> None:
        bench.fill()
        before = _tree(bench.root)
        bench.home.finish(bench.snapshot)
        assert _tree(bench.root) == before

    def test_begin_twice_is_once(self, bench: Bench) -> None:
        bench.home.begin()
        bench.home.begin()
        bench.fill()
        assert bench.home.inventory(rehash=False).complete

    def test_a_deleted_file_is_missing_and_can_be_restored(self, bench: Bench) -> None:
        bench.fill()
        bench.home.source("config.json").unlink()
        assert "config.json" not in bench.states()
        bench.publish("config.json")
        bench.home.finish(bench.snapshot)
        assert bench.states()["config.json"] == "recorded"
        assert bench.home.inventory(rehash=False).complete

    def test_wrong_bytes_behind_an_unchanged_mtime_are_damage(self, bench: Bench) -> None:
        bench.fill()
        path = "weights/part-1.safetensors"
        wrong = bench.flip(path)
        found = bench.home.inventory(rehash=False).files[path]
        assert found.state == "damaged"
        assert found.entry == replace(bench.entry(path), sha256=sha256_bytes(wrong))

    def test_damage_is_repaired_and_the_wrong_bytes_are_kept_aside(self, bench: Bench) -> None:
        bench.fill()
        wrong = bench.flip("config.json")
        bench.publish("config.json", "aside")
        assert bench.states(rehash=True)["config.json"] == "recorded"
        assert bench.aside() == [wrong]

    def test_two_files_set_aside_in_one_second_are_both_kept(self, bench: Bench) -> None:
        bench.fill()
        wrong = []
        for _ in range(3):
            wrong.append(bench.flip("config.json"))
            bench.publish("config.json", "aside")
        assert bench.aside() == wrong

    def test_a_reader_sees_old_or_new_and_never_anything_else(self, bench: Bench) -> None:
        bench.fill()
        path = "weights/part-1.safetensors"
        place, good, seen = bench.home.source(path), bench.contents[path], set()
        bad = bench.flip(path)
        done, started = threading.Event(), threading.Event()

        def watch() -> None:
            while not done.is_set():
                seen.add(sha256_bytes(place.read_bytes()))
                started.set()

        reader = threading.Thread(target=watch)
        reader.start()
        started.wait()
        try:
            bench.publish(path, "aside")
        finally:
            done.set()
            reader.join()
        seen.add(sha256_bytes(place.read_bytes()))
        assert seen == {sha256_bytes(bad), sha256_bytes(good)}

    def test_nothing_replaces_nothing(self, bench: Bench) -> None:
        bench.fill()
        wrong = bench.flip("config.json")
        with pytest.raises(ConflictError):
            bench.publish("config.json", "nothing")
        assert bench.home.source("config.json").read_bytes() == wrong

    def test_a_folder_in_the_way_is_a_conflict(self, bench: Bench) -> None:
        bench.home.source("config.json").mkdir(parents=True)
        for how in ("nothing", "recorded", "aside"):
            with pytest.raises(ConflictError):
                bench.publish("config.json", how)

    def test_many_threads_publish_at_once(self, bench: Bench) -> None:
        bench.contents = {f"folder-{i % 5}/{i}.bin": b"%d" % i for i in range(60)}
        threads = [threading.Thread(target=bench.publish, args=(path,)) for path in bench.contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        bench.home.finish(bench.snapshot)
        assert set(bench.states().items()) == {(path, "recorded") for path in bench.contents}

    def test_the_identity_is_the_snapshots_and_unknown_until_all_is_there(self, bench: Bench) -> None:
        home = bench.home
        assert home.identity() is None
        home.begin()
        home.publish(bench.batch(bench.contents))
        assert home.identity() is None
        home.finish(bench.snapshot)
        assert bench.home.identity() == bench.snapshot.id
        home.begin()
        assert bench.home.identity() is None

    @pytest.mark.parametrize("change", ["bytes", "touched", "damaged", "removed", "link", "forgotten"])
    def test_no_change_leaves_the_identity_as_it_was(self, bench: Bench, change: str) -> None:
        bench.fill()
        place = bench.home.source("config.json")
        match change:
            case "bytes":
                place.write_bytes(b'{"a": 2}')
            case "touched":
                os.utime(place, ns=(1, 1))
            case "damaged":
                bench.flip("config.json")
            case "removed":
                place.unlink()
            case "link":
                place.rename(bench.root / "elsewhere")
                place.symlink_to(bench.root / "elsewhere")
            case "forgotten":
                bench.state = State(bench.root / ".labsync" / "another.sqlite")
        assert bench.home.identity() != bench.snapshot.id
        assert bench.home.identity() is None or change == "removed"

    def test_names_that_could_leave_the_home_are_refused(self, bench: Bench) -> None:
        entry = FileEntry("../outside", sha256_bytes(b"x"), 1)
        with pytest.raises(RefusedError):
            publish_one(bench.home, entry, bench.staged(b"x"))
        assert not (bench.root.parent / "outside").exists()

    def test_a_full_disk_is_a_disk_error_and_leaves_the_old_file(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench.fill()
        wrong = bench.flip("config.json")
        staged = bench.staged(bench.contents["config.json"])
        monkeypatch.setattr(os, "replace", no_space)
        with pytest.raises(DiskError, match="no space left"):
            publish_one(bench.home, bench.entry("config.json"), staged, "aside")
        assert bench.home.source("config.json").read_bytes() == wrong

    def test_an_unreadable_file_is_an_error_and_never_absent(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench.fill()
        place, real = str(bench.home.source("config.json")), os.open

        def deny(path: str, flags: int, mode: int = 0o777) -> int:
            if str(path) == place:
                raise PermissionError(13, "Permission denied", path)
            return real(path, flags, mode)

        monkeypatch.setattr(os, "open", deny)
        with pytest.raises(DiskError):
            bench.home.inventory(rehash=True)

    def test_unchanged_files_are_not_read_again(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        bench.fill()
        bench.age()
        later = time.time_ns() + 10**9
        monkeypatch.setattr(time, "time_ns", lambda: later)
        expected = bench.home.inventory(rehash=True)
        bench.home.finish(bench.snapshot)
        monkeypatch.setattr("labsync.disk.hashing.hash_file", _refuse)
        assert bench.home.inventory(rehash=False) == expected

    def test_what_was_verified_and_published_is_not_read_again(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench.fill()
        monkeypatch.setattr("labsync.disk.hashing.hash_file", _refuse)
        assert set(bench.states().values()) == {"recorded"}
        assert bench.home.identity() == bench.snapshot.id

    def test_a_change_of_nothing_but_the_ctime_is_looked_into(self, bench: Bench) -> None:
        bench.fill()
        bench.age()
        bench.home.finish(bench.snapshot)
        assert set(bench.states().values()) == {"recorded"}
        bench.flip("config.json")
        assert bench.states()["config.json"] == "damaged"

    def test_one_can_look_while_the_memory_cannot_be_written(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench.fill()

        def full(observed: object) -> None:
            raise DiskError("no space left")

        monkeypatch.setattr(bench.state, "remember_all", full)
        assert set(bench.states(rehash=True).values()) == {"recorded"}


def _refuse(path: str, key: str) -> None:
    raise AssertionError(f"{path} was read")


def no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


def _tree(root: Path) -> dict[str, tuple[int, int]]:
    """Everything under the root but the memory's own files: inode and ctime."""
    return {
        str(path.relative_to(root)): (path.lstat().st_ino, path.lstat().st_ctime_ns)
        for path in root.rglob("*")
        if ".sqlite" not in path.name and path != root / ".labsync" and path.name != "stage"
    }
