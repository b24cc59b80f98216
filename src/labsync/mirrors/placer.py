"""How a directory mirror makes a file visible: staged whole under `.labsync/stage/`, then named once.

The stage is outside the data folders, for whatever reads those takes every file in them. What a killed
run has left there is removed by the next to write (see `staging`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from typing import TYPE_CHECKING

from labsync.atomic import disk_errors, fsync_dir, make_dirs, refuse_links
from labsync.errors import RefusedError
from labsync.staging import open_staged, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

STAGE = ".labsync/stage"
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
        sweep(stage)


@contextlib.contextmanager
def _staged(stage: Path, path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Open a new file of the stage, locked until the block has ended; it loses its name then."""
    with disk_errors(path):
        staged, fd = open_staged(stage)
        file = os.fdopen(fd, "w+b")
    try:
        yield staged, file
    finally:
        with contextlib.suppress(OSError):  # who sweeps next removes it
            staged.unlink(missing_ok=True)
        with contextlib.suppress(
            OSError
        ):  # a full disk's unwritten bytes; the first error is the one to tell
            file.close()
