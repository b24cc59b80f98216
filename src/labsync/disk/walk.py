"""A walk through a folder: which files count, and what is not carried and why. No link is followed."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from labsync.atomic import NEW, disk_error, disk_errors
from labsync.disk.placing import lstat, refuse_in_the_way
from labsync.errors import RefusedError
from labsync.names import MAX_KEY, escape, fold, path_problem
from labsync.report import Skipped

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from labsync.filters import Filter

OWN = ".labsync"  # `.labsync/`, `.labsync-stage/` and every other name of ours that begins so


class Walk:
    """Yields the regular files of a folder with their stat, in the order of a snapshot.

    A path is relative to the folder; memory is that of the names of one folder at each depth. Links,
    pipes, sockets, devices and names that labsync refuses are left out and stand in `skipped` with the
    reason; files that the filter leaves out are not mentioned. Raises DiskError for a folder that
    cannot be read; one that vanishes meanwhile is absent.
    """

    def __init__(self, root: Path, wanted: Filter) -> None:
        self._root = f"{root}/"
        self._keeps = None if wanted.is_open else wanted.keeps
        self._skipped: list[Skipped] = []
        self._is_refused = False

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What was left out so far, sorted by path."""
        return tuple(sorted(self._skipped, key=lambda item: item.path))

    @property
    def is_refused(self) -> bool:
        """Say whether a snapshot of these files might be refused: two names so far may be taken for one."""
        return self._is_refused

    def __iter__(self) -> Iterator[tuple[str, os.stat_result]]:
        pending = [("", *self._names("", plain=True))]
        while pending:
            prefix, names, plain = pending[-1]
            below = yield from self._files(prefix, names, plain=plain)
            if below is None:
                pending.pop()
            else:
                pending.append((below, *self._names(below, plain=plain)))

    def _files(
        self, prefix: str, names: Iterator[str], *, plain: bool
    ) -> Generator[tuple[str, os.stat_result], None, str | None]:
        """Yield the files of a folder up to its next folder, and return that; None at the end.

        Asking below an open folder spares the kernel the way there.
        """
        keeps, fd = self._keeps, -1
        try:
            for name in names:
                path = prefix + name
                if name[-1] == "/":
                    return path
                if keeps is not None and not keeps(path):
                    continue
                try:
                    fd = fd if fd >= 0 else os.open(self._root + prefix, os.O_RDONLY | os.O_DIRECTORY)
                    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise disk_error(error, self._root + path) from error
                is_sure = plain and len(path) <= MAX_KEY and stat.S_ISREG(found.st_mode)
                if is_sure or not (reason := _refusal(path, found.st_mode)):
                    yield path, found
                else:
                    self._skipped.append(Skipped(escape(path), reason))
        finally:
            if fd >= 0:
                os.close(fd)
        return None

    def _names(self, prefix: str, *, plain: bool) -> tuple[Iterator[str], bool]:
        """Return what lies in a folder, sorted as the paths below are, and whether all names are plain.

        Folders end in a slash. The order of code points is that of their UTF-8 bytes. A plain name has
        printable ASCII characters only; no file is called `.` or `..`.
        """
        try:
            with os.scandir(self._root + prefix) as entries:
                names = [
                    f"{name}/" if entry.is_dir(follow_symlinks=False) else name
                    for entry in entries
                    if not ((name := entry.name).startswith(OWN) or name.endswith(NEW))
                ]
        except FileNotFoundError:
            names = []
        except OSError as error:
            raise disk_error(error, self._root + prefix) from error
        names.sort()
        text = "\n".join(names)
        if not text.isascii() or text != text.lower():
            distinct = {fold(name.rstrip("/")) for name in names}
            self._is_refused = self._is_refused or len(distinct) < len(names)
        plain = plain and text.isascii() and "".join(names).isprintable()
        return iter(names), plain


class OneFile:
    """The walk of an artifact that is one file; it has the name of its entry, whatever its path."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self.skipped: tuple[Skipped, ...] = ()

    @property
    def is_refused(self) -> bool:
        """Say whether a snapshot of the file would be refused."""
        return path_problem(self._name) is not None

    def __iter__(self) -> Iterator[tuple[str, os.stat_result]]:
        with disk_errors(self._path):
            found = lstat(self._path)
        if found is None:
            return
        try:
            refuse_in_the_way(self._path)
        except RefusedError:
            self.skipped = (Skipped(self._name, "is a link"),)
        else:
            yield self._name, found


def _refusal(path: str, mode: int) -> str:
    if problem := path_problem(path):
        return f"its name {problem}"
    return "" if stat.S_ISREG(mode) else _kind(mode)


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "is a link"
    if stat.S_ISFIFO(mode):
        return "is a pipe"
    if stat.S_ISSOCK(mode):
        return "is a socket"
    return "is a device"
