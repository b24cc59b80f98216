"""One sqlite file that may vanish or break at any time: then it begins anew and is never a crash."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from datetime import datetime, timezone
from typing import TYPE_CHECKING, TypeVar

from labsync.atomic import disk_errors, make_dirs
from labsync.errors import DiskError, InvalidError, LockedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

T = TypeVar("T")
MEMORY = ":memory:"
BUSY_SECONDS = 60.0
COMPANIONS = ("-wal", "-shm", "-journal")


class Database:
    """A versioned sqlite file, safe for several threads and processes.

    A file that sqlite cannot read is renamed aside and an empty one takes its place; a file that was
    deleted is made again. A file of a newer version raises InvalidError and is left alone. On a disk
    that is full or read-only the file can be read as far as it is there, and is empty otherwise; only
    `write` raises DiskError then. A file that others hold for a minute raises LockedError.
    """

    def __init__(self, path: Path, schema: Sequence[str], version: int) -> None:
        self._path = path
        self._schema = schema
        self._version = version
        self._mutex = threading.RLock()
        self._inode = 0
        self._unwritable: DiskError | None = None
        self._connection = self._open_or_freeze()

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` reads."""
        with self._mutex:
            return self._guarded(lambda: self._healed(lambda: work(self._connection)))

    def write(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        """Run `work` in one transaction; with `durable` it is on the disk when this returns.

        `work` may be called twice, so it must depend on the database alone.
        """

        def commit() -> T:
            if (error := self._unwritable) is not None:
                raise DiskError(error.what, hint=error.hint, path=error.path)
            return self._commit(work, durable=durable)

        with self._mutex:
            if self._unwritable is not None:  # the disk may have been mended since
                self._reopen()
            return self._guarded(lambda: self._healed(commit))

    def try_write(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Run `work` as `write` does, or not at all where the disk cannot be written."""
        with self._mutex, contextlib.suppress(DiskError):
            self._guarded(lambda: self._healed(lambda: self._commit(work, durable=False)))

    def close(self) -> None:
        """Close the file."""
        with self._mutex:
            self._connection.close()

    def _commit(self, work: Callable[[sqlite3.Connection], T], *, durable: bool) -> T:
        connection = self._connection
        if durable:
            connection.execute("PRAGMA synchronous=FULL")
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.rollback()
                raise
            return result
        finally:
            if durable:
                connection.execute("PRAGMA synchronous=NORMAL")

    def _healed(self, work: Callable[[], T]) -> T:
        """Run `work`, a second time on a fresh file when the first one is broken or gone."""
        if self._unwritable is not None:
            return work()
        if self._is_gone():
            self._reopen()
        try:
            return work()
        except sqlite3.DatabaseError as error:
            if not _is_corrupt(error):
                raise
            self._set_aside()
            self._reopen()
            return work()

    def _reopen(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
        self._connection = self._open_or_freeze()

    def _open_or_freeze(self) -> sqlite3.Connection:
        try:
            connection = self._guarded(self._open)
        except DiskError as error:
            self._unwritable = error
            return self._open_frozen()
        self._unwritable = None
        return connection

    def _open_frozen(self) -> sqlite3.Connection:
        """Return the file as it can be read without writing anything, else an empty one in memory."""
        # Where sqlite cannot have its shared memory it reads a file only when told that nobody changes
        # it, and then overlooks the log: https://www.sqlite.org/wal.html#read_only_databases
        has_log = False
        with contextlib.suppress(OSError):
            has_log = self._path.with_name(f"{self._path.name}-wal").stat().st_size > 0
        for how in ("mode=ro",) if has_log else ("mode=ro", "immutable=1"):
            connection = None
            with contextlib.suppress(sqlite3.Error):
                connection = _connect(f"{self._path.absolute().as_uri()}?{how}", uri=True)
                if self._found_version(connection) == self._version:
                    return connection
            if connection is not None:
                connection.close()
        connection = _connect(MEMORY)
        self._prepare(connection)
        return connection

    def _open(self) -> sqlite3.Connection:
        if str(self._path) != MEMORY:
            with disk_errors(self._path):
                make_dirs(self._path.parent)
        connection = self._connect()
        try:
            self._prepare(connection)
        except sqlite3.DatabaseError as error:
            connection.close()
            if not _is_corrupt(error):
                raise
            self._set_aside()
            connection = self._connect()
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = _connect(str(self._path))
        if str(self._path) != MEMORY:
            self._inode = self._path.stat().st_ino
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        found = self._found_version(connection)
        # Where shared memory does not work (network file systems) sqlite stays with its rollback
        # journal, which is slower and as safe: https://www.sqlite.org/wal.html
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        if found == self._version:
            return
        connection.execute("BEGIN IMMEDIATE")
        for statement in self._schema:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={self._version}")
        connection.execute("COMMIT")

    def _found_version(self, connection: sqlite3.Connection) -> int:
        found = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if found > self._version:
            raise InvalidError(
                f"`{self._path}` has version {found}, this labsync knows {self._version}",
                path=str(self._path),
                hint="update labsync; the file is only a memory, so deleting it is safe as well",
            )
        return found

    def _is_gone(self) -> bool:
        if str(self._path) == MEMORY:
            return False
        try:
            return self._path.stat().st_ino != self._inode
        except OSError:
            return True

    def _set_aside(self) -> None:
        """Rename a broken file, unless another process has replaced it by a good one already."""
        if self._is_gone():
            return
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
        with disk_errors(self._path):
            os.replace(self._path, self._path.with_name(f"{self._path.name}.corrupt-{stamp}"))
            for suffix in COMPANIONS:
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (sqlite3.Error, OSError) as error:
            where = str(self._path)
            if "locked" in str(error):
                raise LockedError(
                    f"another program holds `{where}`", path=where, hint="run it again when that has ended"
                ) from error
            raise DiskError(
                f"`{where}` cannot be used: {error}", path=where, hint="check the disk with `labsync du`"
            ) from error


def _connect(address: str, *, uri: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(
        address, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=uri
    )


def _is_corrupt(error: sqlite3.DatabaseError) -> bool:
    # SQLITE_CORRUPT and SQLITE_NOTADB come as DatabaseError itself, everything else as a subclass;
    # `sqlite_errorcode` would say it outright, but only from Python 3.11 on.
    # A table that is not there although the version says so is damage as well.
    return type(error) is sqlite3.DatabaseError or "no such " in str(error)
