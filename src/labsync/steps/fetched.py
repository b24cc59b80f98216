"""Bytes that `lock` has to read to know their digest; `pull` takes them before it asks the origin again.

```
.labsync/fetched/<sha256>           read once, whole, and waiting for `pull`, which takes it away
.labsync/fetched/<file>-….part      being read, see `arriving.py`
```
"""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsync import atomic
from labsync.artifact_locks import hold
from labsync.digest import git_blob_id, is_sha256, sha256_file
from labsync.disk.budget import measure
from labsync.errors import (
    DiskError,
    IntegrityError,
    InterruptedRunError,
    LabsyncError,
    LockedError,
    UnavailableError,
)
from labsync.names import escape
from labsync.places import NoRangesError, Ref
from labsync.snapshot import FileEntry
from labsync.steps.arriving import Arriving
from labsync.transfer.retry import ATTEMPTS, RetryBudget, backoff, roll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from io import FileIO
    from pathlib import Path

    from labsync.manifest.model import Artifact
    from labsync.origins.base import Listed
    from labsync.places import Advance, Blocks, Found, Reader
    from labsync.plan import Plan
    from labsync.steps.lab import Lab


def movable(folder: Path, target: Path, plan: Plan) -> int:
    """Return how many bytes the plan moves from `folder` to `target`, which take no new room there."""
    if not folder.is_dir() or measure(folder).device != measure(target).device:
        return 0
    here = set(os.listdir(folder))
    afar = (r.entry for r in plan.routes if r.publications and r.sources[0].place != "disk")
    return sum(entry.size for entry in afar if entry.sha256 in here)


def drop(folder: Path, entries: Iterable[FileEntry]) -> None:
    """Remove fetched bytes that have found their place."""
    here = set(os.listdir(folder)) if folder.is_dir() else set()
    for entry in entries:
        if entry.sha256 in here:
            (folder / entry.sha256).unlink(missing_ok=True)


def make_room(lab: Lab) -> None:
    """Remove fetched bytes that nothing waits for, unless a `lock` is filling the folder just now."""
    if lab.options.dry_run or not lab.fetched_dir.is_dir():
        return
    with contextlib.suppress(LockedError), hold(lab.manifest.state_dir, "lock", "write"):
        drop_spare(lab)


def drop_spare(lab: Lab) -> None:
    """Remove fetched bytes that nothing waits for: the lock does not name them, or the disk has them."""
    waiting = {path.name: path for path in lab.fetched_dir.glob("*") if is_sha256(path.name)}
    if not waiting or lab.lock is None:
        return
    needed: set[str] = set()
    for artifact in lab.manifest.artifacts:
        locked = lab.lock.artifacts.get(artifact.name)
        mine = [entry for entry in locked.snapshot if entry.sha256 in waiting] if locked else []
        if mine:
            disk = _files(lab, artifact)
            needed |= {e.sha256 for e in mine if e.path not in disk or disk[e.path].entry != e}
    for sha256, path in waiting.items():
        if sha256 not in needed:
            path.unlink(missing_ok=True)


def _files(lab: Lab, artifact: Artifact) -> Mapping[str, Found]:
    try:
        return lab.home(artifact).inventory(rehash=False).files
    except LabsyncError:  # what cannot be looked at is needed still; who uses it will say why it cannot
        return {}


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
                    pool.submit(self._fetch_one, Ref(origin, revision, file.path), file, run)
                    for file in files
                ]
                return [future.result() for future in futures]
            except BaseException:
                run.stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _fetch_one(self, ref: Ref, listed: Listed, run: _Run) -> FileEntry:
        part = Arriving(self.folder, ref, listed)
        if listed.size - part.durable > self.room():
            raise DiskError(
                f"`{escape(listed.path)}` has {listed.size:,} bytes and does not fit into the free space",
                path=listed.path,
                hint="`labsync du` shows what takes room",
            )
        try:
            self._read(listed, part, run)
            entry = _checked(listed, part.path)
            if self.room() - entry.size > self.keep_above:
                with atomic.disk_errors(part.path):  # not made durable: it is verified when it is used
                    part.path.replace(self.folder / entry.sha256)
        except (UnavailableError, InterruptedRunError):
            if not part.durable:
                part.path.unlink(missing_ok=True)
            raise
        except BaseException:
            part.path.unlink(missing_ok=True)
            raise
        part.path.unlink(missing_ok=True)
        run.budget.give_back()
        return entry

    def _read(self, listed: Listed, part: Arriving, run: _Run) -> None:
        entry = FileEntry(listed.path, "", listed.size, listed.executable)
        if part.durable:
            run.moved(part.durable)
        with atomic.disk_errors(part.path), part.opened() as file:
            for attempt in range(ATTEMPTS):
                try:
                    self._continue(entry, file, part, run)
                    return
                except UnavailableError as error:
                    delay = error.retry_after + backoff(attempt, roll())
                    if attempt == ATTEMPTS - 1 or not run.budget.take(delay):
                        raise
                run.wait(delay)

    def _continue(self, entry: FileEntry, file: FileIO, part: Arriving, run: _Run) -> None:
        """Read on from what has arrived, or from the beginning where the place can only give the whole."""
        arrived = file.tell() if entry.size >= 0 else 0
        try:
            self._append(self.reader.read(part.ref, entry, arrived), file, arrived, part, run)
        except NoRangesError:
            part.forget_version()
            self._append(self.reader.read(part.ref, entry), file, 0, part, run)

    @staticmethod
    def _append(blocks: Blocks, file: FileIO, start: int, part: Arriving, run: _Run) -> None:
        part.go_to(file, start)
        with contextlib.closing(blocks):
            for block in blocks:
                rest = memoryview(block)
                while rest:
                    rest = rest[file.write(rest) :]
                part.note(file)
                run.moved(len(block))


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
