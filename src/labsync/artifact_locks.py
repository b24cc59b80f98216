"""Locks per artifact and step: `flock` on `.labsync/locks/<kind>.<name>.<step>`, which dies with its process.

The files stay where they are: removing one would let two processes lock two files of the same name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.atomic import disk_errors, make_dirs
from labsync.errors import LockedError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Some network file systems have no locks (flock(2)). Correctness does not rest on them: every file is
# staged under its own name and renamed.
_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_MAX_NOTE = 4096


@contextlib.contextmanager
def hold(state_dir: Path, artifact_name: str, step: str) -> Iterator[None]:
    """Hold the lock of one step on one artifact for the block; never waits.

    Raises LockedError (10) naming the other's process and command, be it another process or another
    thread of this one.
    """
    path = _path(state_dir, artifact_name, step)
    with disk_errors(path):
        make_dirs(path.parent)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        with disk_errors(path):
            if not _try_lock(fd):
                raise _held_by_other(fd, artifact_name)
            _write_note(fd)
        yield
    finally:
        os.close(fd)


def holder(state_dir: Path, artifact_name: str, step: str) -> str:
    """Return who holds, or held last, the lock: the process and its command."""
    try:
        note = _path(state_dir, artifact_name, step).read_bytes()
    except OSError:
        note = b""
    return _who(note)


def locks_work(state_dir: Path) -> bool:
    """Say whether the file system keeps two holders of one lock apart, by trying."""
    try:
        with hold(state_dir, "self", "test"), hold(state_dir, "self", "test"):
            return False
    except LockedError:
        return True


def _path(state_dir: Path, artifact_name: str, step: str) -> Path:
    return state_dir / "locks" / f"{artifact_name.replace('/', '.')}.{step}"


def _who(note: bytes) -> str:
    pid, _, command = note.decode("utf-8", "replace").partition("\n")[0].partition(" ")
    return f"process {pid} (`{command}`)" if pid.isdigit() else "another labsync"


def _try_lock(fd: int) -> bool:
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
    return True


def _write_note(fd: int) -> None:
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    note = f"{os.getpid()} {command}\n".encode("utf-8", "replace")[:_MAX_NOTE]
    os.pwrite(fd, note, 0)
    os.ftruncate(fd, len(note))


def _held_by_other(fd: int, artifact_name: str) -> LockedError:
    who = _who(os.pread(fd, _MAX_NOTE, 0))
    return LockedError(
        f"{who} is working on `{artifact_name}`",
        artifact=artifact_name,
        hint="run it again when that has ended",
    )
