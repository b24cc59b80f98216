"""Making staged bytes visible: old or new at every instant, and what stood in the way is never lost."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from labsync import atomic
from labsync.errors import ConflictError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from labsync.places import Replace

# What `link` answers where it cannot make a second name: another file system, or one without links.
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}


class Ways:
    """The folders on the way to the files of one call, looked at and made once each.

    `root` may be a link, it is the user's own choice; nothing below may.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._checked: set[str] = set()
        self._made: set[str] = set()

    def check(self, path: str) -> bool:
        """Say whether the folders on the way to the relative `path` are known to be there.

        Raises RefusedError for a link among them, ConflictError for a file.
        """
        folder = path.rpartition("/")[0]
        if folder in self._checked:
            return folder in self._made
        if not self._checked and self._root.exists() and not self._root.is_dir():
            where = str(self._root)
            raise ConflictError(
                f"`{where}` is a file where a folder must go", path=where, hint="move it away"
            )
        if atomic.refuse_links(self._root, path) and folder:
            self._made.add(folder)
        self._checked.add(folder)
        return folder in self._made

    def open(self, path: str) -> None:
        """Check the way to the relative `path`, and make its folder where it is missing."""
        if not self.check(path):
            folder = path.rpartition("/")[0]
            atomic.make_dirs(self._root / folder)
            self._made.add(folder)


def make_way(
    target: Path, replace: Replace, *, is_recorded: Callable[[], bool], aside: Callable[[], object]
) -> None:
    """Return when what stands at `target` may be renamed over, as `replace` says.

    `is_recorded` is asked right before a recorded file is replaced, `aside` keeps any other one first.
    Raises ConflictError and RefusedError as `disk.base.Home.publish` says, OSError for the disk's own.
    """
    refuse_in_the_way(target)
    if replace == "nothing":
        raise ConflictError(f"`{target}` appeared meanwhile", path=str(target))
    if replace == "recorded" and not is_recorded():
        raise ConflictError(
            f"`{target}` changed meanwhile", path=str(target), hint="run the same command again"
        )
    if replace == "aside":
        aside()


def refuse_in_the_way(target: Path) -> None:
    """Raise RefusedError for a link, ConflictError for a folder or device; nothing and a file pass."""
    found = lstat(target)
    if found is None or stat.S_ISREG(found.st_mode):
        return
    if stat.S_ISLNK(found.st_mode):
        raise RefusedError(
            f"`{target}` is a link, and what it points to is not labsync's to write",
            path=str(target),
            hint="remove the link",
        )
    what = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
    raise ConflictError(f"`{target}` is {what} where a file must go", path=str(target), hint="move it away")


def set_aside(target: Path, state_dir: Path, relative: str) -> Path:
    """Keep the file at `target` under `.labsync/aside/<UTC time>/<relative>` too, durably; return where.

    The file stays visible: the caller renames the new one over it.
    """
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    for count in itertools.count(1):
        folder = stamp if count == 1 else f"{stamp}-{count}"
        kept = state_dir.joinpath("aside", folder, *relative.split("/"))
        atomic.make_dirs(kept.parent)
        try:
            os.link(target, kept)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            _copy(target, kept)
        atomic.fsync_dir(kept.parent)
        return kept
    raise AssertionError("unreachable: counting never ends")


def _copy(target: Path, kept: Path) -> None:
    try:
        atomic.copy(target, kept)
    except BaseException:
        kept.unlink(missing_ok=True)
        raise


def lstat(path: str | os.PathLike[str]) -> os.stat_result | None:
    """Return the stat of what stands at `path`, links not followed; None for nothing."""
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def device_of(path: Path) -> int:
    """Return the device of `path`, or of its nearest parent that exists."""
    return nearest(path).stat().st_dev


def nearest(path: Path) -> Path:
    """Return `path` or its nearest parent that exists, links resolved."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path.resolve()
