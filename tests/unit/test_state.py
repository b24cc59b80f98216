"""The memory of a disk: what it may be trusted for, and that losing it is never a crash."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from labsync import process
from labsync.database import Database
from labsync.errors import DiskError, InvalidError, LockedError
from labsync.snapshot import EMPTY, FileEntry, Snapshot
from labsync.state import Observed, State, path_key

if TYPE_CHECKING:
    from collections.abc import Callable

SHA = "a" * 64
OTHER = "b" * 64
NOW = 1_700_000_000_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".labsync" / "labsync.sqlite"


@pytest.fixture
def state(path: Path) -> State:
    return State(path)


def stat_of(
    *, size: int = 5, mtime: int = NOW - 10**10, ctime: int = NOW - 10**10 + 1, inode: int = 7
) -> os.stat_result:
    fields = (0o100644, inode, 1, 1, 0, 0, size, 0, mtime // 10**9, ctime // 10**9)
    exact = {"st_atime_ns": 0, "st_mtime_ns": mtime, "st_ctime_ns": ctime}
    return os.stat_result(fields, exact)


def test_a_digest_holds_while_the_stat_is_unchanged(state: State) -> None:
    state.remember("a", stat_of(), SHA, NOW)
    assert state.known("a", stat_of()) == SHA


@pytest.mark.parametrize(
    "changed",
    [stat_of(size=6), stat_of(mtime=NOW), stat_of(ctime=NOW), stat_of(inode=8)],
    ids=["size", "mtime", "ctime", "inode"],
)
def test_any_change_of_the_stat_forgets_the_digest(state: State, changed: os.stat_result) -> None:
    state.remember("a", stat_of(), SHA, NOW)
    assert state.known("a", changed) is None


def test_a_file_written_while_its_reading_began_proves_nothing(state: State) -> None:
    young = stat_of(mtime=NOW - 10**7 + 1, ctime=NOW - 10**7 + 1)
    state.remember("a", young, SHA, NOW)
    assert state.known("a", young) is None
    state.remember("a", young, SHA, NOW + 10**9)
    assert state.known("a", young) == SHA


def test_a_file_system_of_whole_seconds_has_a_wider_racy_window(state: State) -> None:
    coarse = stat_of(mtime=NOW - 10**9, ctime=NOW - 10**9)
    state.remember("a", coarse, SHA, NOW)
    assert state.known("a", coarse) is None
    state.remember("a", coarse, SHA, NOW + 2 * 10**9)
    assert state.known("a", coarse) == SHA


def test_an_old_file_renamed_just_now_is_trusted() -> None:
    assert not Observed("a", stat_of(ctime=NOW - 1), SHA, NOW).is_racy


def test_a_whole_folder_is_one_question_and_its_neighbours_are_not_in_it(state: State) -> None:
    for key in ("out/a", "out/deep/b", "out2/c", "out", "out-x"):
        state.remember(key, stat_of(), SHA, NOW)
        state.record(key, stat_of(), SHA)
    assert sorted(state.known_under("out")) == ["out/a", "out/deep/b"]
    assert sorted(state.publications_under("out")) == ["out/a", "out/deep/b"]


def test_keys_may_hold_any_bytes_of_a_folder_name(state: State) -> None:
    key = os.fsdecode(b"/mnt/caf\xe9/a")
    state.remember(key, stat_of(), SHA, NOW)
    assert list(state.known_under(os.fsdecode(b"/mnt/caf\xe9"))) == [key]


def test_inode_numbers_of_64_bits_are_kept(state: State) -> None:
    huge = stat_of(inode=2**64 - 1)
    state.remember("a", huge, SHA, NOW)
    assert state.known("a", huge) == SHA


def test_the_ledger_keeps_the_last_publication(state: State) -> None:
    assert state.publication("a") is None
    state.record("a", stat_of(), SHA)
    state.record("a", stat_of(size=9), OTHER)
    published = state.publication("a")
    assert published is not None
    assert (published.sha256, published.size, published.mtime_ns) == (OTHER, 9, NOW - 10**10)


def test_the_base_survives_a_new_process(state: State, path: Path) -> None:
    assert state.base("results/runs") is None
    snapshot = Snapshot.of([FileEntry("ñ.txt", SHA, 3), FileEntry("run.sh", OTHER, 0, executable=True)])
    state.set_base("results/runs", snapshot)
    state.set_base("results/none", EMPTY)
    again = State(path)
    assert again.base("results/runs") == snapshot
    assert again.base("results/none") == EMPTY


def test_records_of_the_mirror_are_kept_replaced_and_forgotten(state: State) -> None:
    state.put("head", "k", b"1")
    state.put("index", "k", b"other")
    state.put("head", "k", b"\x002")
    assert (state.get("head", "k"), state.get("index", "k")) == (b"\x002", b"other")
    state.delete("head", "k")
    state.delete("head", "k")
    assert state.get("head", "k") is None


def test_an_upload_continues_in_the_batch_that_was_journalled(state: State, path: Path) -> None:
    assert state.open_batch("results/runs", SHA, lambda: "batch-1") == "batch-1"
    state.record_upload("batch-1", OTHER, "results/runs/batch-1/a")
    again = State(path)
    assert again.open_batch("results/runs", SHA, lambda: "batch-2") == "batch-1"
    assert again.uploaded("batch-1") == {OTHER: "results/runs/batch-1/a"}
    assert again.open_batch("results/runs", OTHER, lambda: "batch-3") == "batch-3"


@pytest.mark.parametrize(
    "close", [lambda s: s.close_batch("batch-1"), lambda s: s.close_batches("results/runs")]
)
def test_a_closed_batch_is_forgotten_with_its_uploads(state: State, close: Callable[[State], None]) -> None:
    state.open_batch("results/runs", SHA, lambda: "batch-1")
    state.open_batch("results/others", SHA, lambda: "batch-2")
    state.record_upload("batch-1", OTHER, "key")
    state.record_upload("batch-2", OTHER, "key")
    close(state)
    assert state.uploaded("batch-1") == {}
    assert state.open_batch("results/runs", SHA, lambda: "batch-9") == "batch-9"
    assert state.uploaded("batch-2") == {OTHER: "key"}


def test_a_batch_is_synced_to_the_disk_before_it_is_used(state: State) -> None:
    connection = state._database._connection
    modes: list[int] = []

    def make() -> str:
        return "batch"

    connection.set_trace_callback(
        lambda sql: (
            modes.append(connection.execute("PRAGMA synchronous").fetchone()[0])
            if sql.startswith("COMMIT")
            else None
        )
    )
    state.open_batch("results/runs", SHA, make)
    state.put("head", "k", b"1")
    assert modes == [2, 1]


def test_a_deleted_memory_is_made_anew(state: State, path: Path) -> None:
    state.put("head", "k", b"1")
    for file in path.parent.iterdir():
        file.unlink()
    assert state.get("head", "k") is None
    state.put("head", "k", b"2")
    assert State(path).get("head", "k") == b"2"


def test_a_deleted_folder_is_made_anew(state: State, path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    state.put("head", "k", b"2")
    assert State(path).get("head", "k") == b"2"


def test_a_broken_memory_is_renamed_aside_at_the_start(state: State, path: Path) -> None:
    state.close()
    path.write_bytes(b"this was a database once" * 100)
    again = State(path)
    again.put("head", "k", b"1")
    assert again.get("head", "k") == b"1"
    assert [f.read_bytes()[:4] for f in path.parent.glob("*.corrupt-*")] == [b"this"]


def test_a_memory_that_breaks_while_in_use_is_renamed_aside(state: State, path: Path) -> None:
    state.put("index", "big", bytes(200_000))
    state.close()
    again = State(path)
    data = path.read_bytes()
    path.write_bytes(data[:4096] + bytes(len(data) - 4096))
    again.put("head", "k", b"1")
    assert again.get("index", "big") is None
    assert again.get("head", "k") == b"1"
    assert len(list(path.parent.glob("*.corrupt-*"))) == 1


def test_a_memory_of_a_newer_version_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(InvalidError, match="version 99"):
        State(path)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DiskError):
        State(tmp_path / "file" / "labsync.sqlite")


def test_a_folder_in_place_of_the_memory_is_a_disk_error(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(DiskError):
        State(path)


def test_a_memory_that_others_hold_is_reported_as_locked(
    state: State, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labsync.database.BUSY_SECONDS", 0.01)
    other = State(path)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(LockedError):
        other.put("head", "k", b"1")
    holder.execute("ROLLBACK")
    holder.close()
    other.put("head", "k", b"1")


def test_a_failed_write_changes_nothing(path: Path) -> None:
    database = Database(path, ["CREATE TABLE t (a)"], 1)

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (1)")
        raise InvalidError("no")

    with pytest.raises(InvalidError):
        database.write(fail)
    assert database.read(lambda c: c.execute("SELECT * FROM t").fetchall()) == []


def test_threads_share_one_memory(state: State) -> None:
    def work(number: int) -> None:
        for i in range(30):
            state.put("head", f"{number}-{i}", b"x")
            state.record(f"{number}/{i}", stat_of(), SHA)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(len(state.publications_under(str(number))) for number in range(8)) == 240


def test_processes_share_one_memory(state: State, path: Path) -> None:
    code = """
import sys
from pathlib import Path
from labsync.state import State
state = State(Path(sys.argv[1]))
for i in range(100):
    state.put("head", f"{sys.argv[2]}-{i}", b"x")
"""
    ends: list[process.Completed] = []
    threads = [
        threading.Thread(
            target=lambda n=n: ends.append(process.run([sys.executable, "-c", code, str(path), str(n)]))
        )
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [end.returncode for end in ends] == [0, 0, 0], [end.error_text for end in ends]
    assert all(state.get("head", f"{n}-99") == b"x" for n in range(3))


def test_the_memory_in_memory_needs_no_folder() -> None:
    state = State(Path(":memory:"))
    state.put("head", "k", b"1")
    assert state.get("head", "k") == b"1"
    assert not Path(":memory:").exists()


def test_keys_are_relative_inside_the_manifests_folder_and_absolute_outside(tmp_path: Path) -> None:
    assert path_key(tmp_path / "a" / "b", tmp_path) == "a/b"
    assert path_key(Path("/elsewhere/b"), tmp_path) == "/elsewhere/b"


def test_remembering_without_a_time_takes_now(state: State, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    old = time.time_ns() - 10**11
    os.utime(file, ns=(old, old))
    state.remember("file", file.stat(), SHA)
    assert state.known("file", file.stat()) == SHA


def test_uploads_of_an_artifact_are_known_whatever_batch_they_were_made_in(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    for artifact, snapshot, batch in (("a", SHA, "1"), ("a", OTHER, "2"), ("b", SHA, "3")):
        state.open_batch(artifact, snapshot, lambda batch=batch: batch)  # type: ignore[misc]
    state.record_upload("1", SHA, "one")
    state.record_upload("2", OTHER, "two")
    state.record_upload("3", "f" * 64, "three")
    assert state.uploaded_of("a") == {SHA: "one", OTHER: "two"}
    assert state.uploaded_of("c") == {}
    state.close_batches("a")
    assert state.uploaded_of("a") == {}
