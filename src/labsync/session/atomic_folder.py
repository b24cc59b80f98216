"""Checkpoint folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = ".labsync-complete"
"""An empty file in a folder that `saving` made; it is newer than every file that was saved."""

# linux/fs.h; https://man7.org/linux/man-pages/man2/rename.2.html
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextlib.contextmanager
def saving(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the block an empty folder to save a checkpoint into, which then appears as `path`, whole.

    What was at `path` before is there until the new folder takes its place, and is removed after that.
    A block that raises, or a process that is killed, leaves `path` as it was. What is saved is durable
    and, to `labsync push` and the guard, finished. Raises OSError.
    """
    target = Path(path).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    staged = target.with_name(f".labsync-saving-{target.name}-{os.getpid()}-{secrets.token_hex(4)}")
    staged.mkdir()
    try:
        yield staged
        _make_durable(staged)
        (staged / MARK).touch()
        _fsync(staged)
        _take_place(staged, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def is_saved(folder: Path) -> bool:
    """Say whether `saving` made this folder and nothing was written to its files since."""
    try:
        marked = (folder / MARK).stat().st_mtime_ns
        return all(file.stat().st_mtime_ns <= marked for file in folder.rglob("*") if file.is_file())
    except OSError:
        return False


def _sweep(target: Path) -> None:
    """Remove what killed processes left of this folder."""
    for left in target.parent.glob(f".labsync-saving-{target.name}-*-????????"):
        pid = left.name.rsplit("-", 2)[1]
        if pid != str(os.getpid()) and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(left, ignore_errors=True)


def _make_durable(folder: Path) -> None:
    for parent, folders, files in os.walk(folder):
        for name in (*files, *folders):
            if not os.path.islink(os.path.join(parent, name)):
                _fsync(Path(parent, name))


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _take_place(staged: Path, target: Path) -> None:
    """Give `staged` the name `target`; a folder of that name gets the name of `staged`."""
    if not target.is_dir():
        staged.rename(target)
    elif not _exchange(staged, target):
        aside = staged.with_name(f"{staged.name[:-8]}{secrets.token_hex(4)}")
        target.rename(aside)
        staged.rename(target)
        shutil.rmtree(aside, ignore_errors=True)
    _fsync(target.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system cannot."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    if (number := ctypes.get_errno()) in {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}:
        return False
    raise OSError(number, os.strerror(number), str(other))
