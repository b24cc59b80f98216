"""What every home must do when many files are published at once; see test_homes.py."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labsync import atomic
from labsync.digest import sha256_bytes
from labsync.disk.base import Staged
from labsync.errors import ConflictError, DiskError, RefusedError
from labsync.snapshot import FileEntry
from tests.contracts.home_contract import ODD, Bench, MakeHome, new_bench, no_space

if TYPE_CHECKING:
    from collections.abc import Iterable


class HomeBatchContract:
    """Subclass it with a fixture `make_home`."""

    @pytest.fixture
    def bench(self, tmp_path: Path, make_home: MakeHome) -> Bench:
        return new_bench(tmp_path, make_home)

    def test_a_batch_names_what_failed_and_publishes_the_rest(self, bench: Bench) -> None:
        bench.home.source("empty.txt").mkdir(parents=True)
        batch = bench.batch(["config.json", "empty.txt", ODD[0], ODD[1]])
        outside = FileEntry("../outside", batch[2].entry.sha256, batch[2].entry.size)
        batch[2] = Staged(outside, batch[2].path, "nothing")
        gone = Staged(bench.entry(ODD[2]), bench.root / "gone", "nothing")
        answers = bench.home.publish([*batch, gone])
        assert [type(answer) for answer in answers] == [
            type(None), ConflictError, RefusedError, type(None), DiskError,
        ]  # fmt: skip
        assert [file.path.exists() for file in batch] == [False, True, True, False]
        assert bench.home.source("config.json").read_bytes() == bench.contents["config.json"]
        assert bench.home.source(ODD[1]).read_bytes() == bench.contents[ODD[1]]

    def test_a_thousand_files_are_published_in_one_call(self, bench: Bench) -> None:
        bench.contents = {f"folder-{i % 7}/deep/{i}.bin": b"%d" % i for i in range(1000)}
        bench.fill()
        assert set(bench.states().items()) == {(path, "recorded") for path in bench.contents}
        assert bench.home.identity() == bench.snapshot.id
        assert list(bench.home.stage.iterdir()) == []

    def test_bytes_are_durable_before_names_and_names_before_the_record(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[str] = []
        batch, home = bench.batch(["config.json", "empty.txt"]), bench.home
        home.source("config.json").parent.mkdir(parents=True, exist_ok=True)
        fsync, rename, record = os.fsync, atomic.rename_new, bench.state.record_all

        def note_fsync(fd: int) -> None:
            calls.append("folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "file")
            fsync(fd)

        def note_rename(staged: Path, target: str) -> bool:
            calls.append("rename")
            return rename(staged, target)

        def note_record(*rows: Iterable[Any]) -> None:
            calls.append("record")
            record(*rows)

        monkeypatch.setattr(os, "fsync", note_fsync)
        monkeypatch.setattr(atomic, "rename_new", note_rename)
        monkeypatch.setattr(bench.state, "record_all", note_record)
        assert home.publish(batch) == [None, None]
        assert calls == ["file", "file", "rename", "rename", "folder", "record"]

    def test_bytes_that_could_not_be_made_durable_are_not_published(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batch, fsync = bench.batch(["config.json", "empty.txt"]), os.fsync
        broken = batch[0].path.stat().st_ino

        def fail(fd: int) -> None:
            if os.fstat(fd).st_ino == broken:
                raise OSError(5, "Input/output error")
            fsync(fd)

        monkeypatch.setattr(os, "fsync", fail)
        answers = bench.home.publish(batch)
        assert [type(answer) for answer in answers] == [DiskError, type(None)]
        assert list(bench.states()) == ["empty.txt"]

    def test_a_name_that_could_not_be_made_durable_is_reported_and_not_recorded(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batch = bench.batch(["config.json", "weights/part-1.safetensors"])
        monkeypatch.setattr(atomic, "fsync_dir", no_space)
        monkeypatch.setattr(atomic, "make_dirs", lambda folder: folder.mkdir(parents=True, exist_ok=True))
        assert [type(answer) for answer in bench.home.publish(batch)] == [DiskError, DiskError]
        assert bench.state.publications(["outputs/runs/config.json"]) == {}

    def test_a_run_that_died_before_the_record_is_healed_by_finish(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench.home.begin()
        batch, home = bench.batch(bench.contents), bench.home
        with monkeypatch.context() as patch:
            patch.setattr(bench.state, "record_all", _die)
            with pytest.raises(KeyboardInterrupt):
                home.publish(batch)
        inventory = bench.home.inventory(rehash=False)
        assert {path: found.entry for path, found in inventory.files.items()} == bench.snapshot.by_path
        assert not inventory.complete
        bench.home.finish(bench.snapshot)
        assert set(bench.states().values()) == {"recorded"}
        assert bench.home.inventory(rehash=False).complete

    @pytest.mark.parametrize("restores_mtime", [False, True])
    def test_a_write_between_publishing_and_finish_is_never_taken_for_ours(
        self, bench: Bench, *, restores_mtime: bool
    ) -> None:
        home = bench.home
        home.begin()
        home.publish(bench.batch(bench.contents))
        if restores_mtime:
            wrong = bench.flip("config.json")
        else:
            wrong = b"!" * len(bench.contents["config.json"])
            home.source("config.json").write_bytes(wrong)
        home.finish(bench.snapshot)
        assert home.identity() is None
        assert home.inventory(rehash=False).files["config.json"].entry.sha256 == sha256_bytes(wrong)

    @pytest.mark.parametrize("sets_mtime", [False, True])
    def test_a_write_right_behind_the_rename_is_never_taken_for_ours(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, *, sets_mtime: bool
    ) -> None:
        batch, home, real = bench.batch(bench.contents), bench.home, atomic.rename_new
        wrong = b"!" * len(bench.contents["config.json"])

        def rename(staged: Path, target: str) -> bool:
            renamed = real(staged, target)
            if staged == batch[0].path:
                Path(target).write_bytes(wrong)
                if sets_mtime:
                    os.utime(target, ns=(1, 1))
            return renamed

        home.begin()
        monkeypatch.setattr(atomic, "rename_new", rename)
        assert not any(home.publish(batch))
        home.finish(bench.snapshot)
        assert home.identity() is None
        assert home.inventory(rehash=False).files["config.json"].entry.sha256 == sha256_bytes(wrong)

    def test_an_mtime_of_the_future_is_put_right(self, bench: Bench) -> None:
        batch, home, later = bench.batch(bench.contents), bench.home, time.time_ns() + 10**12
        for file in batch:
            os.utime(file.path, ns=(later, later))
        assert not any(home.publish(batch))
        home.finish(bench.snapshot)
        assert home.identity() == bench.snapshot.id

    def test_where_no_mtime_can_be_set_the_files_are_read_once_more(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batch, home, later = bench.batch(bench.contents), bench.home, time.time_ns() + 10**12
        for file in batch:
            os.utime(file.path, ns=(later, later))

        def refuse(*_: object, **__: object) -> None:
            raise OSError(1, "Operation not permitted")

        with monkeypatch.context() as patch:
            patch.setattr(os, "utime", refuse)
            assert not any(home.publish(batch))
        home.finish(bench.snapshot)
        assert home.identity() is None
        assert set(bench.states().values()) == {"recorded"}

    def test_when_it_ends_any_later_change_shows(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        slept: list[float] = []
        batch, home = bench.batch(bench.contents), bench.home
        monkeypatch.setattr(time, "sleep", slept.append)
        monkeypatch.setattr(time, "monotonic_ns", lambda: 5 * 10**9)
        home.finish(bench.snapshot)
        assert slept == []
        home.publish(batch)
        home.finish(bench.snapshot)
        assert slept == [0.01]

    def test_the_same_name_twice_in_a_batch_is_published_once(self, bench: Bench) -> None:
        first, _ = batch = bench.batch(["config.json", "config.json"])
        answers = bench.home.publish(batch)
        assert answers[0] is None
        assert not first.path.exists()
        assert bench.states() == {"config.json": "recorded"}

    def test_file_systems_without_a_rename_that_refuses_to_replace(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(atomic, "_renameat2", lambda *_: 22)
        bench.fill()
        assert set(bench.states().values()) == {"recorded"}
        bench.flip("config.json")
        with pytest.raises(ConflictError):
            bench.publish("config.json")


def _die(*_: object) -> None:
    raise KeyboardInterrupt
