"""Publishing many files at once: bytes durable, then names, then folders, then the record, at shared cost.

What was published is remembered with its digest too, so that the next look need not read it. File
systems stamp changes by a clock that ticks every few milliseconds, so care is taken that a change by
somebody else never hides behind what is remembered:

- a file gets an mtime some ticks before its rename, so that any write after that shows in the mtime;
- publishing has not ended before the tick of the last rename has (`settle`), so that any change after
  that shows in the ctime.

Only who writes within the tick of the rename and sets the mtime back to the nanosecond goes unseen.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from labsync import atomic
from labsync.errors import DiskError, LabsyncError, LockedError
from labsync.state import COARSE_WINDOW, FINE_WINDOW, TICK, Stat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from labsync.disk.base import Staged
    from labsync.state import State

    Answers = list[LabsyncError | None]
    Aim = Callable[[Staged], "Target"]
    MakeWay = Callable[[Staged, "Target"], bool]

GROUP = 32  # files that are open at once
EXECUTABLE = 0o755
PLAIN = 0o644


class Target(NamedTuple):
    """Where a file goes: its path, its key in the state, its mode."""

    path: str
    key: str
    mode: int


@dataclass(slots=True)
class _Item:
    """A file under way, open; its stat before the rename and after."""

    index: int
    file: Staged
    target: Target
    fd: int
    staged: Stat
    placed: Stat


class Publisher:
    """Publishes for one home. Safe for several threads.

    With `on_record` the digests of published files go into the ledger.
    """

    def __init__(self, state: State, *, on_record: bool) -> None:
        self._state = state
        self._on_record = on_record
        self._ended = 0

    def publish(self, files: Sequence[Staged], aim: Aim, make_way: MakeWay) -> Answers:
        """Publish, as `disk.base.Home.publish` says.

        `aim` says where a file goes and makes its folder, or raises. `make_way` is asked where the name
        is taken: True when the file may be renamed over what is there, False when that has the same
        bytes, and it raises where neither holds.
        """
        answers: Answers = [None] * len(files)
        renamed: list[_Item] = []
        for start in range(0, len(files), GROUP):
            opened: list[_Item] = []
            try:
                _open_all(enumerate(files[start : start + GROUP], start), aim, opened, answers)
                _fsync_all(opened, answers)
                durable = [item for item in opened if answers[item.index] is None]
                renamed += [item for item in durable if self._rename(item, make_way, answers)]
            finally:
                for item in opened:
                    os.close(item.fd)
        _fsync_folders(renamed, answers)
        self._ended = time.monotonic_ns()
        self._record([item for item in renamed if answers[item.index] is None], answers)
        return answers

    def settle(self) -> None:
        """Return when any change of what was published so far is sure to show: after a tick at most."""
        rest = self._ended + TICK - time.monotonic_ns()
        if self._ended and rest > 0:
            time.sleep(rest / 1e9)

    def _rename(self, item: _Item, make_way: MakeWay, answers: Answers) -> bool:
        """Give the file its name; False where that was not to be done."""
        staged, target = item.file.path, item.target
        try:
            if not atomic.rename_new(staged, target.path):
                if not make_way(item.file, target):
                    staged.unlink()
                    return False
                os.replace(staged, target.path)
            item.placed = Stat.of(os.fstat(item.fd))
        except (OSError, LabsyncError) as error:
            answers[item.index] = _told(error, target.path)
            return False
        return True

    def _record(self, renamed: list[_Item], answers: Answers) -> None:
        known = [(item.target.key, item.staged, item.file.entry.sha256) for item in renamed]
        seen = [(i.target.key, i.placed, i.file.entry.sha256) for i in renamed if _is_telling(i)]
        try:
            self._state.record_all(known if self._on_record else (), seen)
        except (DiskError, LockedError) as error:
            for item in renamed if self._on_record else ():
                answers[item.index] = error


def _is_telling(item: _Item) -> bool:
    """Say whether the stat after the rename is of the bytes that were staged, and of no later ones."""
    before, after = item.staged, item.placed
    tick = COARSE_WINDOW if after.is_coarse else TICK
    is_same = (after.size, after.mtime_ns) == (before.size, before.mtime_ns)
    return is_same and after.mtime_ns <= after.ctime_ns - tick


def _open_all(files: Iterable[tuple[int, Staged]], aim: Aim, opened: list[_Item], answers: Answers) -> None:
    """Open the staged files as they are to be seen, and let the kernel begin to write their bytes."""
    for index, file in files:
        try:
            target = aim(file)
            fd = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                stat = _prepare(fd, target.mode)
            except BaseException:
                os.close(fd)
                raise
            opened.append(_Item(index, file, target, fd, stat, stat))
        except (OSError, LabsyncError) as error:
            answers[index] = _told(error, file.path)
    for item in opened:
        atomic.start_writing(item.fd)


def _prepare(fd: int, mode: int) -> Stat:
    """Give a staged file its mode, and an mtime that lies some ticks back; return its stat."""
    found = os.fstat(fd)
    if found.st_mode & 0o7777 != mode:
        os.fchmod(fd, mode)
    stat = Stat.of(found)
    window = COARSE_WINDOW if stat.is_coarse else FINE_WINDOW
    now = time.time_ns()
    if stat.mtime_ns <= now - window:
        return stat
    with contextlib.suppress(OSError):  # not every file system lets one; then the file is read once more
        os.utime(fd, ns=(found.st_atime_ns, min(stat.mtime_ns, now) - window))
    return Stat.of(os.fstat(fd))


def _fsync_all(opened: list[_Item], answers: Answers) -> None:
    for item in opened:
        try:
            os.fsync(item.fd)
        except OSError as error:
            answers[item.index] = _told(error, item.file.path)


def _fsync_folders(renamed: list[_Item], answers: Answers) -> None:
    folders: dict[str, list[_Item]] = {}
    for item in renamed:
        folders.setdefault(os.path.dirname(item.target.path), []).append(item)
    for folder, items in folders.items():
        try:
            atomic.fsync_dir(folder)
        except OSError as error:
            for item in items:
                answers[item.index] = _told(error, folder)


def _told(error: OSError | LabsyncError, path: str | os.PathLike[str]) -> LabsyncError:
    if isinstance(error, LabsyncError):
        return error
    told = atomic.disk_error(error, path)
    told.__cause__ = error
    return told
