"""What an older labsync remembered is not lost."""

from __future__ import annotations

import sqlite3
import zlib
from typing import TYPE_CHECKING

from labsync.snapshot import EMPTY, FileEntry, Snapshot
from labsync.state import Stat, State, Uploaded

if TYPE_CHECKING:
    from pathlib import Path

SHA = "a" * 64
OTHER = "b" * 64
STAT = Stat(5, 1_700_000_000_000_000_001, 1_700_000_000_000_000_002, 7, 0o100644)
VERSION_1 = (
    """CREATE TABLE seen (
        path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL, ctime INTEGER NOT NULL,
        inode INTEGER NOT NULL, sha256 TEXT NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE published (
        path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL, sha256 TEXT NOT NULL
        ) WITHOUT ROWID""",
    "CREATE TABLE base (artifact TEXT PRIMARY KEY, lines BLOB NOT NULL)",
    "CREATE TABLE cache (kind TEXT, key TEXT, value BLOB NOT NULL, PRIMARY KEY (kind, key))",
    """CREATE TABLE batch (
        artifact TEXT, snapshot TEXT, batch TEXT NOT NULL UNIQUE, PRIMARY KEY (artifact, snapshot))""",
    """CREATE TABLE upload (
        batch TEXT, sha256 TEXT, key TEXT NOT NULL, PRIMARY KEY (batch, sha256)) WITHOUT ROWID""",
)


def test_a_memory_of_version_1_is_carried_over(tmp_path: Path) -> None:
    path = tmp_path / ".labsync" / "labsync.sqlite"
    snapshot = Snapshot.of([FileEntry("ñ.txt", SHA, 3), FileEntry("run.sh", OTHER, 0, executable=True)])
    lines = zlib.compress("".join(f"{entry.canonical()}\n" for entry in snapshot).encode())
    path.parent.mkdir()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    for statement in VERSION_1:
        connection.execute(statement)
    connection.execute("INSERT INTO seen VALUES (?, ?, ?, ?, ?, ?)", (b"out/a", *STAT[:4], SHA))
    connection.execute("INSERT INTO published VALUES (?, ?, ?, ?)", (b"out/a", 5, STAT.mtime_ns, SHA))
    connection.execute("INSERT INTO base VALUES (?, ?)", ("results/runs", lines))
    connection.execute("INSERT INTO cache VALUES ('head', 'k', ?)", (b"1",))
    connection.execute("INSERT INTO batch VALUES ('results/runs', ?, 'batch-1')", (SHA,))
    connection.execute("INSERT INTO upload VALUES ('batch-1', ?, 'key')", (OTHER,))
    connection.execute("PRAGMA user_version=1")
    connection.close()
    state = State(path)
    assert list(state.remembered("out")) == [(b"a", *STAT[:4], SHA, 1, STAT.mtime_ns)]
    assert (state.base("results/runs"), state.base_id("results/runs")) == (snapshot, snapshot.id)
    assert state.get("head", "k") == b"1"
    assert state.open_batch("results/runs", SHA, lambda: "batch-2") == "batch-1"
    assert state.uploaded_of("results/runs") == (Uploaded(OTHER, "key"),)
    state.set_base("results/runs", EMPTY)
    assert state.base_id("results/runs") == EMPTY.id
    state.multipart("results/runs").begin("key", SHA, "id", 8)
    assert list(path.parent.glob("*.corrupt-*")) == []
