"""How a directory mirror makes a file visible: staged whole under `.labsync/stage/`, then named once.

The stage is outside the data folders, for whatever reads those takes every file in them. A staged file
is locked (flock) for as long as it is written: what a killed run has left there is unlocked, and the
next to write removes it at once. Network mounts may keep locks to the box that took them, so the files
of another box, and all where locks do not work, are removed only when they got no byte for a day.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import platform
import secrets
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.atomic import disk_errors, fsync_dir, make_dirs, refuse_links
from labsync.digest import sha256_bytes
from labsync.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

STAGE = ".labsync/stage"
ABANDONED = 24 * 3600.0  # seconds without a byte: an upload under way moves its file's mtime
# EPERM is what link(2) says on Linux where the file system has no hard links.
NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP}


class Placer:
    """Creates files below `root` that are never replaced. Safe for several threads and boxes."""

    def __init__(self, root: Path, *, single_writer: bool) -> None:
        self._root = root
        self._single_writer = single_writer
        self._swept = False
        self._mutex = threading.Lock()

    def create(self, path: Path, fill: Callable[[BinaryIO], None]) -> bool:
        """Create a whole, durable file at `path`; False, and no change, when something is there.

        What `fill` raises is raised as it is: it translates the errors of the file it is given.
        """
        stage = self._root / STAGE
        with disk_errors(path):
            refuse_links(self._root, f"{STAGE}/any")
            make_dirs(stage)
            self._sweep_once(stage)
            make_dirs(path.parent)
        with _staged(stage, path) as (staged, file):
            fill(file)
            with disk_errors(path):
                file.flush()
                os.fsync(file.fileno())
                return self._name(staged, path)

    def _name(self, staged: Path, path: Path) -> bool:
        try:
            os.link(staged, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            self._refuse_without_links()
            if os.path.lexists(path):
                return False
            os.rename(staged, path)
        fsync_dir(path.parent)
        return True

    def _refuse_without_links(self) -> None:
        if not self._single_writer:
            raise RefusedError(
                f"the file system of `{self._root}` has no hard links: two boxes could overwrite each other",
                safe="nothing was published",
                hint=f"if only one box writes: `mirror: {{url: file://{self._root}, single_writer: true}}`",
            )

    def _sweep_once(self, stage: Path) -> None:
        """Remove what was abandoned; failing to is no reason not to write."""
        with self._mutex:
            if self._swept:
                return
            self._swept = True
        with contextlib.suppress(OSError):
            for left in list(os.scandir(stage)):
                with contextlib.suppress(OSError):
                    _sweep(left)


@contextlib.contextmanager
def _staged(stage: Path, path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Open a new file of the stage, locked until the block has ended; it loses its name then."""
    with disk_errors(path):
        staged, file = _locked(stage)
    try:
        yield staged, file
    finally:
        with contextlib.suppress(OSError):  # who sweeps next removes it
            staged.unlink(missing_ok=True)
        with contextlib.suppress(
            OSError
        ):  # a full disk's unwritten bytes; the first error is the one to tell
            file.close()


def _locked(stage: Path) -> tuple[Path, BinaryIO]:
    while True:
        staged = stage / f"{_box()}-{secrets.token_hex(16)}"
        file = staged.open("x+b")
        # Whoever sweeps may have found the file before it was locked.
        if _lock(file.fileno()) is not False and staged.exists():
            return staged, file
        file.close()


def _lock(fd: int) -> bool | None:
    """Lock the file without waiting; False when somebody else has it, None where locks do not work."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _sweep(left: os.DirEntry[str]) -> None:
    """Remove the file if nobody writes it any more."""
    is_old = left.stat(follow_symlinks=False).st_mtime < time.time() - ABANDONED
    if not is_old and not left.name.startswith(f"{_box()}-"):
        return
    # Some network file systems lock only what is open for writing.
    fd = os.open(left.path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        locked = _lock(fd)
        if locked or (locked is None and is_old):
            os.unlink(left.path)
    finally:
        os.close(fd)


@functools.cache
def _box() -> str:
    """Return what tells this running system from every other: only its own locks are seen for certain."""
    try:
        running = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        running = platform.node()
    return sha256_bytes(running.encode())[:16]
