"""What this disk remembers: digests by stat, what labsync published, bases, the mirror's records, uploads.

All of it may be lost: then files are hashed again, heads read again, and unfinished uploads begin a new
batch. Paths are keyed by `path_key`. Rows of the tables:

```
seen       path → size, mtime_ns, ctime_ns, inode, sha256   a digest that holds while the stat does
published  path → size, mtime_ns, sha256                    what labsync published, or took note of as known
base       artifact → canonical lines                       the snapshot last pulled or pushed
cache      kind, key → bytes                                heads and indexes as read
batch      artifact, snapshot → batch                       uploads under way, durable before their first byte
upload     batch, sha256 → key
```
"""

from __future__ import annotations

import json
import time
import zlib
from typing import TYPE_CHECKING, NamedTuple

from labsync.database import Database
from labsync.snapshot import FileEntry, Snapshot

if TYPE_CHECKING:
    import os
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

VERSION = 1
SCHEMA = (
    """CREATE TABLE IF NOT EXISTS seen (
        path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL, ctime INTEGER NOT NULL,
        inode INTEGER NOT NULL, sha256 TEXT NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS published (
        path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL, sha256 TEXT NOT NULL
        ) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS base (artifact TEXT PRIMARY KEY, lines BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS cache (kind TEXT, key TEXT, value BLOB NOT NULL, PRIMARY KEY (kind, key))",
    """CREATE TABLE IF NOT EXISTS batch (
        artifact TEXT, snapshot TEXT, batch TEXT NOT NULL UNIQUE, PRIMARY KEY (artifact, snapshot))""",
    """CREATE TABLE IF NOT EXISTS upload (
        batch TEXT, sha256 TEXT, key TEXT NOT NULL, PRIMARY KEY (batch, sha256)) WITHOUT ROWID""",
)
FINE_WINDOW = 100_000_000  # ns; kernels stamp files by a tick of at most 10 ms
COARSE_WINDOW = 2_000_000_000  # ns; FAT and some network file systems keep two whole seconds
_SECOND = 1_000_000_000
_INODE = (1 << 63) - 1  # sqlite's integers are signed


class Seen(NamedTuple):
    """A digest and the stat it belongs to."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sha256: str

    def matches(self, stat: os.stat_result) -> bool:
        """Say whether the file has the same size, times and inode still."""
        return (
            self.size == stat.st_size
            and self.mtime_ns == stat.st_mtime_ns
            and self.ctime_ns == stat.st_ctime_ns
            and self.inode == stat.st_ino & _INODE
        )


class Published(NamedTuple):
    """A file as labsync published it, or took note of it as known."""

    sha256: str
    size: int
    mtime_ns: int

    def is_untouched(self, stat: os.stat_result) -> bool:
        """Say whether size and mtime are the recorded ones."""
        return self.size == stat.st_size and self.mtime_ns == stat.st_mtime_ns


class Observed(NamedTuple):
    """A digest just computed: of which path and stat, and when its reading began (Unix time in ns)."""

    path_key: str
    stat: os.stat_result
    sha256: str
    since: int

    @property
    def is_racy(self) -> bool:
        """Say whether a later write could leave the stat as it is, so that it proves nothing.

        As in git (https://git-scm.com/docs/racy-git): a file that was written in the tick of the
        clock in which its reading began may be written again in that same tick. A file system whose
        ctime has no fraction of a second counts as having ticks of two seconds. Both times must be
        young: a write moves both, and a renamed file with an old mtime is safe.
        """
        newest = min(self.stat.st_mtime_ns, self.stat.st_ctime_ns)
        window = FINE_WINDOW if self.stat.st_ctime_ns % _SECOND else COARSE_WINDOW
        return newest > self.since - window


def path_key(path: Path, root: Path) -> str:
    """Return the key of a file: relative to the manifest's folder where inside it, else absolute."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return str(path)


class State:
    """The memory of one manifest on one disk; `State(Path(":memory:"))` forgets everything."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, SCHEMA, VERSION)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # Digests by stat.

    def known(self, path_key: str, stat: os.stat_result) -> str | None:
        """Return the digest of a file whose stat is unchanged since it was hashed."""
        seen = self.seen(path_key)
        return seen.sha256 if seen and seen.matches(stat) else None

    def seen(self, path_key: str) -> Seen | None:
        """Return the digest remembered of a file, with the stat that it holds for."""
        sql = "SELECT size, mtime, ctime, inode, sha256 FROM seen WHERE path = ?"
        row = self._one(sql, _raw(path_key))
        return Seen._make(row) if row else None

    def known_under(self, folder_key: str) -> Mapping[str, Seen]:
        """Return all remembered digests of the files in a folder, by path key, in one query."""
        sql = "SELECT path, size, mtime, ctime, inode, sha256 FROM seen WHERE path > ? AND path < ?"
        rows = self._database.read(lambda c: c.execute(sql, _under(folder_key)).fetchall())
        return {_text(row[0]): Seen._make(row[1:]) for row in rows}

    def remember(self, path_key: str, stat: os.stat_result, sha256: str, since: int | None = None) -> None:
        """Keep a digest; `since` is when reading the file began, by default now."""
        self.remember_all([Observed(path_key, stat, sha256, time.time_ns() if since is None else since)])

    def remember_all(self, observed: Iterable[Observed]) -> None:
        """Keep digests; one whose stat proves nothing (`Observed.is_racy`) is not kept."""
        rows = [
            (
                _raw(item.path_key),
                item.stat.st_size,
                item.stat.st_mtime_ns,
                item.stat.st_ctime_ns,
                item.stat.st_ino & _INODE,
                item.sha256,
            )
            for item in observed
            if not item.is_racy
        ]
        if rows:
            sql = "INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?, ?)"
            self._database.write(lambda c: c.executemany(sql, rows))

    # What labsync published.

    def publication(self, path_key: str) -> Published | None:
        """Return the file as labsync last published it or took note of it."""
        row = self._one("SELECT sha256, size, mtime FROM published WHERE path = ?", _raw(path_key))
        return Published._make(row) if row else None

    def publications_under(self, folder_key: str) -> Mapping[str, Published]:
        """Return all publications in a folder, by path key, in one query."""
        sql = "SELECT path, sha256, size, mtime FROM published WHERE path > ? AND path < ?"
        rows = self._database.read(lambda c: c.execute(sql, _under(folder_key)).fetchall())
        return {_text(row[0]): Published._make(row[1:]) for row in rows}

    def record(self, path_key: str, stat: os.stat_result, sha256: str) -> None:
        """Take note that these bytes are known at this path."""
        self.record_all([(path_key, stat, sha256)])

    def record_all(self, files: Iterable[tuple[str, os.stat_result, str]]) -> None:
        """Take note of several files in one transaction; nothing is written for none."""
        rows = [(_raw(key), stat.st_size, stat.st_mtime_ns, sha256) for key, stat, sha256 in files]
        if rows:
            sql = "INSERT OR REPLACE INTO published VALUES (?, ?, ?, ?)"
            self._database.write(lambda c: c.executemany(sql, rows))

    # Made artifacts.

    def base(self, name: str) -> Snapshot | None:
        """Return the snapshot that this disk last pulled or pushed of a made artifact."""
        row = self._one("SELECT lines FROM base WHERE artifact = ?", name)
        if row is None:
            return None
        return Snapshot.of(map(_entry, zlib.decompress(row[0]).decode().splitlines()))

    def set_base(self, name: str, snapshot: Snapshot) -> None:
        """Keep the snapshot just pulled or pushed."""
        lines = zlib.compress("".join(f"{entry.canonical()}\n" for entry in snapshot).encode())
        sql = "INSERT OR REPLACE INTO base VALUES (?, ?)"
        self._database.write(lambda c: c.execute(sql, (name, lines)), durable=True)

    # The mirror's records.

    def get(self, kind: str, key: str) -> bytes | None:
        """Return a kept value."""
        row = self._one("SELECT value FROM cache WHERE kind = ? AND key = ?", kind, key)
        return bytes(row[0]) if row else None

    def put(self, kind: str, key: str, value: bytes) -> None:
        """Keep a value, in place of the one before."""
        sql = "INSERT OR REPLACE INTO cache VALUES (?, ?, ?)"
        self._database.write(lambda c: c.execute(sql, (kind, key, value)))

    def delete(self, kind: str, key: str) -> None:
        """Forget a value; forgetting what is not kept is fine."""
        self._database.write(lambda c: c.execute("DELETE FROM cache WHERE kind = ? AND key = ?", (kind, key)))

    # Uploads under way.

    def open_batch(self, artifact: str, snapshot_id: str, make: Callable[[], str]) -> str:
        """Return the batch journalled for this snapshot, or journal the one that `make` names.

        It is durable when this returns, so before its first byte is sent.
        """
        fresh = make()

        def work(connection: sqlite3.Connection) -> str:
            connection.execute("INSERT OR IGNORE INTO batch VALUES (?, ?, ?)", (artifact, snapshot_id, fresh))
            sql = "SELECT batch FROM batch WHERE artifact = ? AND snapshot = ?"
            return str(connection.execute(sql, (artifact, snapshot_id)).fetchone()[0])

        return self._database.write(work, durable=True)

    def uploaded(self, batch: str) -> Mapping[str, str]:
        """Return the keys written in this batch so far, by SHA-256."""
        sql = "SELECT sha256, key FROM upload WHERE batch = ?"
        return dict(self._database.read(lambda c: c.execute(sql, (batch,)).fetchall()))

    def uploaded_of(self, artifact: str) -> Mapping[str, str]:
        """Return the keys written so far in every open batch of an artifact, by SHA-256."""
        sql = "SELECT sha256, key FROM upload JOIN batch USING (batch) WHERE artifact = ?"
        return dict(self._database.read(lambda c: c.execute(sql, (artifact,)).fetchall()))

    def record_upload(self, batch: str, sha256: str, key: str) -> None:
        """Take note that a content lies whole under `key`."""
        sql = "INSERT OR REPLACE INTO upload VALUES (?, ?, ?)"
        self._database.write(lambda c: c.execute(sql, (batch, sha256, key)))

    def close_batches(self, artifact: str) -> None:
        """Forget the artifact's uploads: an index names their keys now."""

        def work(connection: sqlite3.Connection) -> None:
            mine = "SELECT batch FROM batch WHERE artifact = ?"
            connection.execute(f"DELETE FROM upload WHERE batch IN ({mine})", (artifact,))  # noqa: S608  constant
            connection.execute("DELETE FROM batch WHERE artifact = ?", (artifact,))

        self._database.write(work)

    def close_batch(self, batch: str) -> None:
        """Forget one upload."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM upload WHERE batch = ?", (batch,))
            connection.execute("DELETE FROM batch WHERE batch = ?", (batch,))

        self._database.write(work)

    def _one(self, sql: str, *key: str | bytes) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._database.read(lambda c: c.execute(sql, key).fetchone())
        return row


def _raw(key: str) -> bytes:
    # A folder's name may be any bytes, and sqlite's text must be UTF-8.
    return key.encode("utf-8", "surrogateescape")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _under(folder_key: str) -> tuple[bytes, bytes]:
    folder = _raw(folder_key)
    return folder + b"/", folder + b"0"  # the byte after the slash


def _entry(line: str) -> FileEntry:
    fields = json.loads(line)
    return FileEntry(fields["path"], fields["sha256"], fields["size"], fields.get("x", False))
