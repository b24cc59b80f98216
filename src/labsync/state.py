"""What this disk remembers: digests by stat, what labsync published, bases, the mirror's records, uploads.

All of it may be lost: then files are hashed again, heads read again, and unfinished uploads begin a new
batch. Paths are keyed by `path_key`. Rows of the tables:

```
seen       path → size, mtime_ns, ctime_ns, inode, sha256   a digest that holds while the stat does
published  path → size, mtime_ns, sha256                    what labsync published, or took note of as known
base       artifact → canonical lines                       the snapshot last pulled or pushed
base_id    artifact → snapshot                              its id
cache      kind, key → bytes                                heads and indexes as read
batch      artifact, snapshot → batch                       uploads under way, durable before their first byte
upload     batch, sha256 → key                              a content that the mirror has under a key
packed     batch, sha256 → key, position, size              one that it has inside a pack of that size
multipart  mirror and artifact, key → sha256, upload id, part size    an upload in parts that was begun
part       mirror and artifact, key, number → etag, prefix            a part of it that the server has
```
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from labsync.database import Database
from labsync.digest import sha256_bytes
from labsync.places import Ref, StoredPart, UnfinishedUpload
from labsync.snapshot import FileEntry, Snapshot

if TYPE_CHECKING:
    import os
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

VERSION = 2
SCHEMA = (
    """CREATE TABLE IF NOT EXISTS seen (
        path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL, ctime INTEGER NOT NULL,
        inode INTEGER NOT NULL, sha256 TEXT NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS published (
        path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL, sha256 TEXT NOT NULL
        ) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS base (artifact TEXT PRIMARY KEY, lines BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS base_id (artifact TEXT PRIMARY KEY, snapshot TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS cache (kind TEXT, key TEXT, value BLOB NOT NULL, PRIMARY KEY (kind, key))",
    """CREATE TABLE IF NOT EXISTS batch (
        artifact TEXT, snapshot TEXT, batch TEXT NOT NULL UNIQUE, PRIMARY KEY (artifact, snapshot))""",
    """CREATE TABLE IF NOT EXISTS upload (
        batch TEXT, sha256 TEXT, key TEXT NOT NULL, PRIMARY KEY (batch, sha256)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS packed (
        batch TEXT, sha256 TEXT, key TEXT NOT NULL, position INTEGER NOT NULL, size INTEGER NOT NULL,
        PRIMARY KEY (batch, sha256)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS multipart (
        artifact TEXT, key TEXT, sha256 TEXT NOT NULL, id TEXT NOT NULL, part_size INTEGER NOT NULL,
        PRIMARY KEY (artifact, key)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS part (
        artifact TEXT, key TEXT, number INTEGER, etag TEXT NOT NULL, prefix TEXT NOT NULL,
        PRIMARY KEY (artifact, key, number)) WITHOUT ROWID""",
)
TICK = 10_000_000  # ns; the clock that kernels stamp files by moves on at least this often
FINE_WINDOW = 100_000_000  # ns; some ticks
COARSE_WINDOW = 2_000_000_000  # ns; FAT and some network file systems keep two whole seconds
_SECOND = 1_000_000_000
_INODE = (1 << 63) - 1  # sqlite's integers are signed
_PAGE = 4096  # rows
_REMEMBERED = """SELECT substr(path, ?), seen.size, seen.mtime, ctime, inode, seen.sha256,
    seen.sha256 = published.sha256, published.mtime FROM seen LEFT JOIN published USING (path)"""

Remembered: TypeAlias = "tuple[bytes, int, int, int, int, str, int | None, int | None]"
"""What `State.remembered` gives of a file: its path in the folder, as UTF-8; the size, mtime, ctime and
inode that its digest holds for; the digest; whether that is the published one; the published mtime."""


class Stat(NamedTuple):
    """What of a file's stat tells whether it changed, and its mode: a tenth of an `os.stat_result`."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    mode: int

    @classmethod
    def of(cls, found: os.stat_result) -> Stat:
        """Return the stat in small."""
        inode = found.st_ino & _INODE
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, inode, found.st_mode)

    @property
    def is_coarse(self) -> bool:
        """Say whether the file system seems to keep whole seconds only."""
        return self.ctime_ns % _SECOND == 0


class Published(NamedTuple):
    """A file as labsync published it, or took note of it as known."""

    sha256: str
    size: int
    mtime_ns: int

    def is_untouched(self, stat: Stat) -> bool:
        """Say whether size and mtime are the recorded ones."""
        return self.size == stat.size and self.mtime_ns == stat.mtime_ns


class Observed(NamedTuple):
    """A digest just computed: of which path and stat, and when its reading began (Unix time in ns)."""

    path_key: str
    stat: Stat
    sha256: str
    since: int

    @property
    def is_racy(self) -> bool:
        """Say whether a later write could leave the stat as it is, so that it proves nothing.

        As in git (https://git-scm.com/docs/racy-git): a file that was written in the tick of the
        clock in which its reading began may be written again in that same tick. A file system whose
        ctime has no fraction of a second counts as having ticks of two seconds. What moved the ctime
        alone, a rename for one, need not lie as far back: only who sets the mtime back afterwards
        could hide behind it, and not for longer than a tick.
        """
        window, tick = (COARSE_WINDOW, COARSE_WINDOW) if self.stat.is_coarse else (FINE_WINDOW, TICK)
        newest = min(self.stat.mtime_ns, self.stat.ctime_ns)
        return newest > self.since - window or self.stat.ctime_ns > self.since - tick


class Uploaded(NamedTuple):
    """A content in the mirror that no index names yet; `offset` and `pack_size` where it is in a pack."""

    sha256: str
    key: str
    offset: int | None = None
    pack_size: int | None = None

    @property
    def ref(self) -> Ref:
        """Where it lies."""
        return Ref(self.key, offset=self.offset)


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

    def known(self, files: Iterable[tuple[str, Stat]]) -> list[str | None]:
        """Return the digest of each file whose stat is unchanged since it was hashed, else None."""
        sql = "SELECT sha256 FROM seen WHERE path = ? AND size = ? AND mtime = ? AND ctime = ? AND inode = ?"
        keys = [(_raw(key), *stat[:4]) for key, stat in files]

        def work(connection: sqlite3.Connection) -> list[str | None]:
            rows = [connection.execute(sql, key).fetchone() for key in keys]
            return [row and row[0] for row in rows]

        return self._database.read(work)

    def remembered(self, folder_key: str) -> Iterator[Remembered]:
        """Yield all that is remembered of the files in a folder, sorted by path, in bounded memory."""
        sql = f"{_REMEMBERED} WHERE path > ? AND path < ? ORDER BY path LIMIT {_PAGE}"
        folder = _raw(folder_key)
        after, end = folder + b"/", folder + b"0"  # the byte after the slash
        while True:
            page = self._all(sql, len(folder) + 2, after, end)
            yield from page
            if len(page) < _PAGE:
                return
            after = folder + b"/" + page[-1][0]

    def remembered_file(self, path_key: str, name: str) -> Iterator[Remembered]:
        """Yield what is remembered of one file, if anything, as of a file in a folder named `name`."""
        for row in self._all(f"{_REMEMBERED} WHERE path = ?", 1, _raw(path_key)):
            yield (_raw(name), *row[1:])

    def remember_all(self, observed: Iterable[Observed]) -> None:
        """Keep digests; one whose stat proves nothing (`Observed.is_racy`) is not kept."""
        self.record_all((), ((i.path_key, i.stat, i.sha256) for i in observed if not i.is_racy))

    # What labsync published.

    def publications(self, keys: Iterable[str]) -> dict[str, Published]:
        """Return those files, by key, that labsync published or took note of, as it last did."""
        sql = "SELECT sha256, size, mtime FROM published WHERE path = ?"
        asked = [(key, (_raw(key),)) for key in keys]

        def work(connection: sqlite3.Connection) -> dict[str, Published]:
            rows = ((key, connection.execute(sql, raw).fetchone()) for key, raw in asked)
            return {key: Published._make(row) for key, row in rows if row}

        return self._database.read(work)

    def record_all(
        self, files: Iterable[tuple[str, Stat, str]], seen: Iterable[tuple[str, Stat, str]] = ()
    ) -> None:
        """Take note that these digests are known at these paths, and keep digests that are sure to hold.

        It is one transaction; nothing is written for nothing. A disk that cannot be written raises
        DiskError for `files` alone: digests of `seen` are then only not kept.
        """
        known = [(_raw(key), stat.size, stat.mtime_ns, sha256) for key, stat, sha256 in files]
        sure = [(_raw(key), *stat[:4], sha256) for key, stat, sha256 in seen]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR REPLACE INTO published VALUES (?, ?, ?, ?)", known)
            connection.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?, ?)", sure)

        if known:
            self._database.write(work)
        elif sure:
            self._database.try_write(work)

    # Made artifacts.

    def base(self, name: str) -> Snapshot | None:
        """Return the snapshot that this disk last pulled or pushed of a made artifact."""
        row = self._one("SELECT lines FROM base WHERE artifact = ?", name)
        if row is None:
            return None
        return Snapshot.of(map(_entry, zlib.decompress(row[0]).decode().splitlines()))

    def base_id(self, name: str) -> str | None:
        """Return the id of that snapshot without looking at its files."""
        if row := self._one("SELECT snapshot FROM base_id WHERE artifact = ?", name):
            return str(row[0])
        # Kept by a version that had no column for it: the canonical lines are what the id is made of.
        row = self._one("SELECT lines FROM base WHERE artifact = ?", name)
        return sha256_bytes(zlib.decompress(row[0])) if row else None

    def set_base(self, name: str, snapshot: Snapshot) -> None:
        """Keep the snapshot just pulled or pushed."""
        lines = zlib.compress("".join(f"{entry.canonical()}\n" for entry in snapshot).encode())

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO base VALUES (?, ?)", (name, lines))
            connection.execute("INSERT OR REPLACE INTO base_id VALUES (?, ?)", (name, snapshot.id))

        self._database.write(work, durable=True)

    # The mirror's records.

    def get(self, kind: str, key: str) -> bytes | None:
        """Return a kept value."""
        row = self._one("SELECT value FROM cache WHERE kind = ? AND key = ?", kind, key)
        return bytes(row[0]) if row else None

    def put(self, kind: str, key: str, value: bytes) -> None:
        """Keep a value, in place of the one before, where the disk can be written."""
        sql = "INSERT OR REPLACE INTO cache VALUES (?, ?, ?)"
        self._database.try_write(lambda c: c.execute(sql, (kind, key, value)))

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

    def uploaded_of(self, artifact: str) -> tuple[Uploaded, ...]:
        """Return what was written so far in every open batch of an artifact."""
        sql = """
            SELECT sha256, key, NULL, NULL FROM upload JOIN batch USING (batch) WHERE artifact = ?
            UNION ALL
            SELECT sha256, key, position, size FROM packed JOIN batch USING (batch) WHERE artifact = ?"""
        rows = self._database.read(lambda c: c.execute(sql, (artifact, artifact)).fetchall())
        return tuple(map(Uploaded._make, rows))

    def record_uploads(self, batch: str, uploaded: Iterable[Uploaded]) -> None:
        """Take note of contents that lie whole in the mirror."""
        rows = list(uploaded)
        plain = [(batch, row.sha256, row.key) for row in rows if row.offset is None]
        packed = [(batch, *row) for row in rows if row.offset is not None]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR REPLACE INTO upload VALUES (?, ?, ?)", plain)
            connection.executemany("INSERT OR REPLACE INTO packed VALUES (?, ?, ?, ?, ?)", packed)

        self._database.write(work)

    def close_batches(self, artifact: str) -> None:
        """Forget the artifact's uploads: an index names their keys now."""

        def work(connection: sqlite3.Connection) -> None:
            mine = "SELECT batch FROM batch WHERE artifact = ?"
            for table in ("upload", "packed"):
                connection.execute(f"DELETE FROM {table} WHERE batch IN ({mine})", (artifact,))  # noqa: S608  constant
            connection.execute("DELETE FROM batch WHERE artifact = ?", (artifact,))

        self._database.write(work)

    def multipart(self, artifact: str) -> MultipartMemory:
        """Return the journal of an artifact's uploads in parts."""
        return MultipartMemory(self._database, artifact)

    def _one(self, sql: str, *key: str | bytes) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._database.read(lambda c: c.execute(sql, key).fetchone())
        return row

    def _all(self, sql: str, *values: int | bytes) -> list[Remembered]:
        return self._database.read(lambda c: c.execute(sql, values).fetchall())


class MultipartMemory:
    """The uploads in parts of one artifact to one mirror: a `places.UploadJournal`."""

    def __init__(self, database: Database, artifact: str) -> None:
        self._database = database
        self._artifact = artifact

    def unfinished(self, key: str) -> UnfinishedUpload | None:
        """Return the upload that was begun under the key, if any."""
        mine = (self._artifact, key)

        def work(connection: sqlite3.Connection) -> UnfinishedUpload | None:
            sql = "SELECT id, part_size FROM multipart WHERE artifact = ? AND key = ?"
            row = connection.execute(sql, mine).fetchone()
            if row is None:
                return None
            sql = "SELECT number, etag, prefix FROM part WHERE artifact = ? AND key = ? ORDER BY number"
            parts = tuple(StoredPart(*part) for part in connection.execute(sql, mine))
            return UnfinishedUpload(row[0], row[1], parts)

        return self._database.read(work)

    def keys(self) -> Mapping[str, str]:
        """Return the keys under which an upload was begun, by the SHA-256 of the content."""
        sql = "SELECT sha256, key FROM multipart WHERE artifact = ? AND sha256 != ''"
        return dict(self._database.read(lambda c: c.execute(sql, (self._artifact,)).fetchall()))

    def begin(self, key: str, sha256: str, upload_id: str, part_size: int) -> None:
        """Take note of a new upload, durably."""

        def work(connection: sqlite3.Connection) -> None:
            _forget_upload(connection, self._artifact, key)
            row = (self._artifact, key, sha256, upload_id, part_size)
            connection.execute("INSERT INTO multipart VALUES (?, ?, ?, ?, ?)", row)

        self._database.write(work, durable=True)

    def add(self, key: str, part: StoredPart) -> None:
        """Take note of a part that the server has."""
        row = (self._artifact, key, part.number, part.etag, part.prefix)
        self._database.write(lambda c: c.execute("INSERT OR REPLACE INTO part VALUES (?, ?, ?, ?, ?)", row))

    def end(self, key: str) -> None:
        """Forget the upload."""
        self._database.write(lambda c: _forget_upload(c, self._artifact, key))


def _forget_upload(connection: sqlite3.Connection, artifact: str, key: str) -> None:
    connection.execute("DELETE FROM part WHERE artifact = ? AND key = ?", (artifact, key))
    connection.execute("DELETE FROM multipart WHERE artifact = ? AND key = ?", (artifact, key))


def _raw(key: str) -> bytes:
    # A folder's name may be any bytes, and sqlite's text must be UTF-8.
    return key.encode("utf-8", "surrogateescape")


def _entry(line: str) -> FileEntry:
    fields = json.loads(line)
    return FileEntry(fields["path"], fields["sha256"], fields["size"], fields.get("x", False))
