"""The memory of a disk: what it may be trusted for, and that losing it is never a crash."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labsync import process
from labsync.database import Database
from labsync.errors import DiskError, InvalidError, LockedError
from labsync.places import StoredPart
from labsync.snapshot import EMPTY, FileEntry, Snapshot
from labsync.state import TICK, Observed, Published, Stat, State, Uploaded, path_key

if TYPE_CHECKING:
    pass

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
) -> Stat:
    return Stat(size, mtime, ctime, inode, 0o100644)


def remember(state: State, key: str, stat: Stat, since: int = NOW) -> None:
    state.remember_all([Observed(key, stat, SHA, since)])


def known(state: State, key: str, stat: Stat) -> str | None:
    (digest,) = state.known([(key, stat)])
    return digest


def test_a_digest_holds_while_the_stat_is_unchanged(state: State) -> None:
    remember(state, "a", stat_of())
    assert known(state, "a", stat_of()) == SHA
    assert state.known([("b", stat_of()), ("a", stat_of()), ("a", stat_of(size=1))]) == [None, SHA, None]


@pytest.mark.parametrize(
    "changed",
    [stat_of(size=6), stat_of(mtime=NOW), stat_of(ctime=NOW), stat_of(inode=8)],
    ids=["size", "mtime", "ctime", "inode"],
)
def test_any_change_of_the_stat_forgets_the_digest(state: State, changed: Stat) -> None:
    remember(state, "a", stat_of())
    assert known(state, "a", changed) is None


def test_a_file_written_while_its_reading_began_proves_nothing(state: State) -> None:
    young = stat_of(mtime=NOW - TICK + 1, ctime=NOW - TICK + 1)
    remember(state, "a", young)
    assert known(state, "a", young) is None
    remember(state, "a", young, NOW + 10**9)
    assert known(state, "a", young) == SHA


@pytest.mark.fault(31)
def test_a_file_system_of_whole_seconds_has_a_wider_racy_window(state: State) -> None:
    coarse = stat_of(mtime=NOW - 10**10, ctime=NOW - 10**9)
    remember(state, "a", coarse)
    assert known(state, "a", coarse) is None
    remember(state, "a", coarse, NOW + 2 * 10**9)
    assert known(state, "a", coarse) == SHA


def test_an_old_file_renamed_a_tick_ago_is_trusted_and_one_renamed_just_now_is_not() -> None:
    assert not Observed("a", stat_of(ctime=NOW - TICK - 1), SHA, NOW).is_racy
    assert Observed("a", stat_of(ctime=NOW - TICK + 1), SHA, NOW).is_racy


def test_a_stat_is_what_the_file_has(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    file.chmod(0o755)
    found = file.stat()
    assert Stat.of(found) == (5, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, 0o100755)


def test_a_whole_folder_is_one_question_and_its_neighbours_are_not_in_it(state: State) -> None:
    for key in ("out/b.txt", "out/b/deep", "out2/c", "out", "out-x", "out/ñ"):
        remember(state, key, stat_of())
    state.record_all([("out/b.txt", stat_of(mtime=3), SHA), ("out/b/deep", stat_of(), OTHER)])
    state.record_all([("out/never-hashed", stat_of(), SHA)])
    stat = stat_of()
    assert list(state.remembered("out")) == [
        (b"b.txt", *stat[:4], SHA, 1, 3),
        (b"b/deep", *stat[:4], SHA, 0, stat.mtime_ns),
        ("ñ".encode(), *stat[:4], SHA, None, None),
    ]
    assert list(state.remembered("nothing")) == []


def test_a_folder_of_many_files_is_read_in_pages(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labsync.state._PAGE", 3)
    for count in range(9):
        if count:
            remember(state, f"out/{count}", stat_of())
        assert [row[0] for row in state.remembered("out")] == [b"%d" % n for n in range(1, count + 1)]


def test_one_file_is_remembered_under_the_name_of_its_entry(state: State) -> None:
    remember(state, "checkpoints/sam.pth", stat_of())
    (row,) = state.remembered_file("checkpoints/sam.pth", "sam h.pth")
    assert row == (b"sam h.pth", *stat_of()[:4], SHA, None, None)
    assert list(state.remembered_file("checkpoints/other.pth", "x")) == []


def test_keys_may_hold_any_bytes_of_a_folder_name(state: State) -> None:
    folder = os.fsdecode(b"/mnt/caf\xe9")
    remember(state, f"{folder}/a", stat_of())
    assert [row[0] for row in state.remembered(folder)] == [b"a"]


def test_inode_numbers_of_64_bits_are_kept(state: State, tmp_path: Path) -> None:
    fields = list(tmp_path.stat()[:10])
    fields[1] = 2**64 - 1
    huge = Stat.of(os.stat_result(fields, {"st_mtime_ns": 1, "st_ctime_ns": 1}))
    remember(state, "a", huge)
    assert known(state, "a", huge) == SHA


def test_the_ledger_keeps_the_last_publication(state: State) -> None:
    assert state.publications(["a"]) == {}
    state.record_all([("a", stat_of(), SHA), ("b", stat_of(), SHA)])
    state.record_all([("a", stat_of(size=9), OTHER)])
    assert state.publications(["a", "c"]) == {"a": Published(OTHER, 9, NOW - 10**10)}


def test_record_and_digests_are_kept_together_or_not_at_all(state: State) -> None:
    sure = ("a", stat_of(mtime=NOW, ctime=NOW), SHA)
    state.record_all([("a", stat_of(), SHA)], [sure])
    assert known(state, "a", sure[1]) == SHA
    broken: Any = [("c", stat_of(), None)]
    with pytest.raises(DiskError):
        state.record_all([("c", stat_of(), SHA)], broken)
    assert state.publications(["c"]) == {}


def test_the_base_survives_a_new_process(state: State, path: Path) -> None:
    assert state.base("results/runs") is None
    snapshot = Snapshot.of([FileEntry("ñ.txt", SHA, 3), FileEntry("run.sh", OTHER, 0, executable=True)])
    state.set_base("results/runs", snapshot)
    state.set_base("results/none", EMPTY)
    again = State(path)
    assert again.base("results/runs") == snapshot
    assert again.base("results/none") == EMPTY
    assert again.base_id("results/runs") == snapshot.id
    assert again.base_id("results/none") == EMPTY.id
    assert again.base_id("results/other") is None


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
    state.record_uploads("batch-1", [Uploaded(OTHER, "results/runs/batch-1/a")])
    again = State(path)
    assert again.open_batch("results/runs", SHA, lambda: "batch-2") == "batch-1"
    assert again.uploaded_of("results/runs") == (Uploaded(OTHER, "results/runs/batch-1/a"),)
    assert again.open_batch("results/runs", OTHER, lambda: "batch-3") == "batch-3"


def test_closed_batches_are_forgotten_with_their_uploads(state: State) -> None:
    state.open_batch("results/runs", SHA, lambda: "batch-1")
    state.open_batch("results/others", SHA, lambda: "batch-2")
    for batch in ("batch-1", "batch-2"):
        state.record_uploads(batch, [Uploaded(OTHER, "key"), Uploaded(SHA, "pack", 512, 4096)])
    state.close_batches("results/runs")
    assert state.uploaded_of("results/runs") == ()
    assert state.open_batch("results/runs", SHA, lambda: "batch-9") == "batch-9"
    assert set(state.uploaded_of("results/others")) == {
        Uploaded(OTHER, "key"), Uploaded(SHA, "pack", 512, 4096)
    }  # fmt: skip


@pytest.mark.fault(4)
def test_what_must_outlive_a_crash_is_on_the_disk_before_it_is_used(state: State) -> None:
    connection = state._database._connection
    modes: list[int] = []
    connection.set_trace_callback(
        lambda sql: (
            modes.append(connection.execute("PRAGMA synchronous").fetchone()[0])
            if sql.startswith("COMMIT")
            else None
        )
    )
    state.open_batch("results/runs", SHA, lambda: "batch")
    state.multipart("results/runs").begin("key", SHA, "id", 8)
    state.put("head", "k", b"1")
    state.multipart("results/runs").add("key", StoredPart(1, "e", SHA))
    assert modes == [2, 2, 1, 1]


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


@pytest.mark.fault(3)
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


def check_unwritable(state: State) -> None:
    """Check that what must last is refused, and everything else merely forgotten or kept for now."""
    with pytest.raises(DiskError):
        state.set_base("results/runs", EMPTY)
    with pytest.raises(DiskError):
        state.record_all([("b", stat_of(), SHA)])
    with pytest.raises(DiskError):
        state.open_batch("results/runs", SHA, lambda: "batch")
    remember(state, "b", stat_of())
    state.put("head", "other", b"1")
    assert state.publications(["b"]) == {}
    assert state.base("results/runs") is None


def test_a_memory_whose_folder_cannot_be_made_is_empty_until_it_can(tmp_path: Path) -> None:
    path = tmp_path / "file" / "labsync.sqlite"
    path.parent.write_bytes(b"")
    state = State(path)
    assert known(state, "a", stat_of()) is None
    check_unwritable(state)
    path.parent.unlink()
    state.set_base("results/runs", EMPTY)
    state.put("head", "k", b"1")
    again = State(path)
    assert (again.base("results/runs"), again.get("head", "k")) == (EMPTY, b"1")


def test_a_folder_in_place_of_the_memory_is_a_memory_that_cannot_be_written(path: Path) -> None:
    path.mkdir(parents=True)
    check_unwritable(State(path))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_memory_that_goes_where_none_can_be_made_is_empty(state: State, path: Path) -> None:
    state.put("head", "k", b"1")
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    path.parent.write_bytes(b"")
    assert state.get("head", "k") is None
    check_unwritable(state)


WITHOUT_ROOM = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
sys.path.insert(0, sys.argv[2])
from test_state import SHA, check_unwritable, known, remember, stat_of
from labsync.state import State
state = State(Path(sys.argv[1]))
print(known(state, "a", stat_of()), state.get("head", "k"), [*state.publications(["a"])])
check_unwritable(state)
"""


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "in-use"])
def test_on_a_full_disk_what_is_remembered_is_read_and_what_must_last_is_refused(
    state: State, path: Path, *, closed: bool
) -> None:
    remember(state, "a", stat_of())
    state.put("head", "k", b"1")
    state.record_all([("a", stat_of(), SHA)])
    if closed:
        state.close()
    end = process.run([sys.executable, "-c", WITHOUT_ROOM, str(path), str(Path(__file__).parent)])
    assert (end.returncode, end.error_text) == (0, "")
    assert end.stdout.decode() == f"{SHA} b'1' ['a']\n"


def test_on_a_disk_that_is_full_from_the_start_the_memory_is_empty(path: Path) -> None:
    end = process.run([sys.executable, "-c", WITHOUT_ROOM, str(path), str(Path(__file__).parent)])
    assert (end.returncode, end.error_text) == (0, "")
    assert end.stdout.decode() == "None None []\n"
    state = State(path)
    state.put("head", "k", b"1")
    assert state.get("head", "k") == b"1"


def test_a_newer_memory_is_left_alone_on_a_full_disk_too(path: Path) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    code = WITHOUT_ROOM.partition("print")[0]
    end = process.run([sys.executable, "-c", code, str(path), str(Path(__file__).parent)])
    assert "InvalidError" in end.error_text


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
            state.record_all([(f"{number}/{i}", stat_of(), SHA)])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = [f"{number}/{i}" for number in range(8) for i in range(30)]
    assert state.publications(keys).keys() == set(keys)


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


def test_uploads_of_an_artifact_are_known_whatever_batch_they_were_made_in(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    for artifact, snapshot, batch in (("a", SHA, "1"), ("a", OTHER, "2"), ("b", SHA, "3")):
        state.open_batch(artifact, snapshot, lambda batch=batch: batch)  # type: ignore[misc]
    for batch, sha256 in (("1", SHA), ("2", OTHER), ("3", "f" * 64)):
        state.record_uploads(batch, [Uploaded(sha256, f"key-{batch}")])
    assert set(state.uploaded_of("a")) == {Uploaded(SHA, "key-1"), Uploaded(OTHER, "key-2")}
    assert state.uploaded_of("c") == ()
    state.close_batches("a")
    assert state.uploaded_of("a") == ()
