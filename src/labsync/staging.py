"""Files under way: locked (flock) for as long as they are written, so that what a killed run left is known.

What is unlocked has no writer any more, and the next to write there removes it at once. Network mounts
may keep locks to the box that took them, so the files of another box, and all where locks do not work,
are removed only when they got no byte for a day.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import platform
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.digest import sha256_bytes

if TYPE_CHECKING:
    from os import PathLike

ABANDONED = 24 * 3600.0  # seconds without a byte: whoever writes moves the file's mtime


def open_staged(folder: Path, mode: int = 0o644, *, prefix: str = "", suffix: str = "") -> tuple[Path, int]:
    """Create a file in `folder`, locked until its descriptor is closed; raises OSError as `os.open`."""
    while True:
        staged = folder / f"{prefix}{_box()}-{secrets.token_hex(16)}{suffix}"
        fd = os.open(staged, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        # Whoever sweeps may have found the file before it was locked.
        if _lock(fd) is not False and staged.exists():
            return staged, fd
        os.close(fd)


def sweep(folder: str | PathLike[str], *, prefix: str = "", suffix: str = "") -> None:
    """Remove the files of that name in `folder` that nobody writes any more; failing to is no matter."""
    with contextlib.suppress(OSError):
        for left in list(os.scandir(folder)):
            if left.name.startswith(prefix) and left.name.endswith(suffix):
                with contextlib.suppress(OSError):
                    _sweep(left, is_mine=left.name.startswith(f"{prefix}{_box()}-"))


def _sweep(left: os.DirEntry[str], *, is_mine: bool) -> None:
    is_old = left.stat(follow_symlinks=False).st_mtime < time.time() - ABANDONED
    if not is_old and not is_mine:
        return
    # Some network file systems lock only what is open for writing.
    fd = os.open(left.path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        locked = _lock(fd)
        if locked or (locked is None and is_old):
            os.unlink(left.path)
    finally:
        os.close(fd)


def _lock(fd: int) -> bool | None:
    """Lock the file without waiting; False when somebody else has it, None where locks do not work."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@functools.cache
def _box() -> str:
    """Return what tells this running system from every other: only its own locks are seen for certain."""
    try:
        running = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        running = platform.node()
    return sha256_bytes(running.encode())[:16]
