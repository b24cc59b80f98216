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
    deleted is made again. A file of a newer version raises InvalidError and is left alone. What sqlite
    cannot write raises DiskError, a file that others hold for a minute LockedError.
    """

    def __init__(self, path: Path, schema: Sequence[str], version: int) -> None:
        self._path = path
        self._schema = schema
        self._version = version
        self._mutex = threading.RLock()
        self._inode = 0
        if str(path) != MEMORY:
            with disk_errors(path):
                make_dirs(path.parent)
        self._connection = self._guarded(self._open)

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` reads."""
        with self._mutex:
            return self._guarded(lambda: self._healed(lambda: work(self._connection)))

    def write(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        """Run `work` in one transaction; with `durable` it is on the disk when this returns.

        `work` may be called twice, so it must depend on the database alone.
        """
        with self._mutex:
            return self._guarded(lambda: self._healed(lambda: self._commit(work, durable=durable)))

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
        with disk_errors(self._path):
            make_dirs(self._path.parent)
        self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
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
        connection = sqlite3.connect(
            str(self._path), timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
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
        except FileNotFoundError:
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


def _is_corrupt(error: sqlite3.DatabaseError) -> bool:
    # SQLITE_CORRUPT and SQLITE_NOTADB come as DatabaseError itself, everything else as a subclass;
    # `sqlite_errorcode` would say it outright, but only from Python 3.11 on.
    # A table that is not there although the version says so is damage as well.
    return type(error) is sqlite3.DatabaseError or "no such " in str(error)
