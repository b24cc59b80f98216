"""Bytes that `lock` has to read to know their digest; `pull` takes them before it asks the origin again.

```
.labsync/fetched/<sha256>           read once, whole, and waiting for `pull`
.labsync/fetched/<16 hex>.part      being read
```
"""

from __future__ import annotations

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsync import atomic
from labsync.digest import BLOCK, git_blob_id, sha256_file
from labsync.errors import DiskError, IntegrityError, InterruptedRunError, UnavailableError
from labsync.names import escape
from labsync.places import Ref
from labsync.snapshot import FileEntry
from labsync.transfer.retry import ATTEMPTS, RetryBudget, backoff, roll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from labsync.origins.base import Listed
    from labsync.places import Advance, Reader


class FetchedFirst:
    """A reader that looks into the folder of fetched bytes before it asks its origin.

    What lies there was read from the origin once; like everything it is verified by the engine.
    """

    def __init__(self, origin: Reader, folder: Path) -> None:
        self._origin = origin
        self._folder = folder

    def read(self, ref: Ref, entry: FileEntry, into: Path, start: int, advance: Advance) -> None:
        """Fulfil the contract of `Reader.read`."""
        fetched = self._folder / entry.sha256
        if not fetched.is_file() or fetched.stat().st_size != entry.size:
            self._origin.read(ref, entry, into, start, advance)
            return
        mode = "r+b" if start else "wb"
        with atomic.disk_errors(into), fetched.open("rb") as source, into.open(mode) as target:
            source.seek(start)
            target.seek(start)
            for block in iter(lambda: source.read(BLOCK), b""):
                target.write(block)
                advance(len(block))


def drop(folder: Path, entries: Iterable[FileEntry]) -> None:
    """Remove fetched bytes that have found their place."""
    for entry in entries:
        (folder / entry.sha256).unlink(missing_ok=True)


class _Run:
    """What the reads of one call share: the retries, and that they end when one of them fails."""

    def __init__(self, advance: Advance) -> None:
        self.budget = RetryBudget()
        self.stop = threading.Event()
        self._advance = advance

    def moved(self, count: int) -> None:
        """Say that bytes arrived; raises InterruptedRunError when the run is to end."""
        if self.stop.is_set():
            raise InterruptedRunError("the run was stopped")
        self._advance(count)

    def wait(self, seconds: float) -> None:
        """Wait before a retry, but not longer than the run goes on."""
        self.stop.wait(seconds)
        self.moved(0)


@dataclass(frozen=True)
class Fetcher:
    """Reads files once to know their digests: `jobs` at a time, retried, each with room on the disk.

    `room` tells how many bytes may still be written. Bytes stay in `folder` while more than
    `keep_above` would remain; otherwise only their digest is kept.
    """

    reader: Reader
    folder: Path
    jobs: int
    room: Callable[[], int]
    keep_above: int
    advance: Advance

    def fetch(self, origin: str, revision: str, files: Sequence[Listed]) -> list[FileEntry]:
        """Return the entries of the files, in their order.

        Raises IntegrityError when bytes are not those that the origin announced, DiskError (9) when
        a file does not fit, and what the reader raises once the retries are spent.
        """
        with atomic.disk_errors(self.folder):
            atomic.make_dirs(self.folder)
        run = _Run(self.advance)
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                futures = [
                    pool.submit(self._fetch_one, Ref(origin, revision=revision, path=file.path), file, run)
                    for file in files
                ]
                return [future.result() for future in futures]
            except BaseException:
                run.stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _fetch_one(self, ref: Ref, listed: Listed, run: _Run) -> FileEntry:
        if listed.size > self.room():
            raise DiskError(
                f"`{escape(listed.path)}` has {listed.size:,} bytes and does not fit into the free space",
                path=listed.path,
                hint="`labsync du` shows what takes room",
            )
        staged = self.folder / f"{secrets.token_hex(8)}.part"
        try:
            self._read(ref, listed, staged, run)
            entry = _checked(listed, staged)
            if self.room() - entry.size > self.keep_above:
                with atomic.disk_errors(staged):
                    atomic.fsync_file(staged)
                    atomic.rename(staged, self.folder / entry.sha256)
        finally:
            staged.unlink(missing_ok=True)
        run.budget.give_back()
        return entry

    def _read(self, ref: Ref, listed: Listed, staged: Path, run: _Run) -> None:
        entry = FileEntry(listed.path, "", listed.size, listed.executable)
        for attempt in range(ATTEMPTS):
            try:
                self.reader.read(ref, entry, staged, 0, run.moved)
                return
            except UnavailableError as error:
                delay = error.retry_after + backoff(attempt, roll())
                if attempt == ATTEMPTS - 1 or not run.budget.take(delay):
                    raise
            run.wait(delay)


def sweep(folder: Path) -> None:
    """Remove what killed runs left half read; call it while no other `lock` runs."""
    for part in folder.glob("*.part"):
        part.unlink(missing_ok=True)


def _checked(listed: Listed, staged: Path) -> FileEntry:
    """Return the entry of the bytes that arrived; IntegrityError when they are not the announced ones."""
    with atomic.disk_errors(staged):
        sha256, size = sha256_file(staged)
        with staged.open("rb") as file:
            blob = git_blob_id(file, size) if listed.oid and not listed.lfs else listed.oid
    if listed.size not in (size, -1) or blob != listed.oid or listed.sha256 not in (sha256, ""):
        raise IntegrityError(
            f"the bytes of `{escape(listed.path)}` are not the ones that were announced",
            path=listed.path,
            hint="run it again; if it stays, the origin is damaged",
        )
    return FileEntry(listed.path, sha256, size, listed.executable)
