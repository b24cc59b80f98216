"""A walk through a folder: which files count, and what is not carried and why. No link is followed."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from labsync.atomic import disk_errors
from labsync.disk.hashing import Looked
from labsync.names import escape, path_problem
from labsync.report import Skipped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from labsync.filters import Filter

OWN = ".labsync"  # `.labsync/`, `.labsync-stage/` and every other name of ours that begins so
NEW = ".labsync-new"  # what `atomic.write_bytes` stages beside its target


class Walked(NamedTuple):
    """Regular files by relative path, sorted, and what was skipped."""

    files: dict[str, Looked]
    skipped: tuple[Skipped, ...]


def walk(root: Path, root_key: str, wanted: Filter) -> Walked:
    """Return what lies in the folder; files that the filter leaves out are not mentioned.

    Links, pipes, sockets, devices and names that labsync refuses are skipped with the reason. Raises
    DiskError for a folder that cannot be read; one that vanishes meanwhile is absent.
    """
    files: dict[str, Looked] = {}
    skipped: list[Skipped] = []
    for path, entry in _entries(root):
        if not wanted.keeps(path):
            continue
        try:
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if reason := _refusal(path, found.st_mode):
            skipped.append(Skipped(escape(path), reason))
        else:
            files[path] = Looked(entry.path, f"{root_key}/{path}", found)
    ordered = sorted(files.items(), key=lambda item: item[0].encode())
    return Walked(dict(ordered), tuple(sorted(skipped, key=lambda item: item.path)))


def _entries(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield everything but folders, with its relative path."""
    pending = [("", str(root))]
    while pending:
        prefix, folder = pending.pop()
        for entry in _children(folder):
            if entry.name.startswith(OWN) or entry.name.endswith(NEW):
                continue
            path = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                pending.append((path + "/", entry.path))
            else:
                yield path, entry


def _children(folder: str) -> list[os.DirEntry[str]]:
    with disk_errors(Path(folder)):
        try:
            with os.scandir(folder) as entries:
                return list(entries)
        except FileNotFoundError:
            return []


def _refusal(path: str, mode: int) -> str:
    if problem := _problem(path):
        return f"its name {problem}"
    if stat.S_ISREG(mode):
        return ""
    if stat.S_ISLNK(mode):
        return "is a link"
    if stat.S_ISFIFO(mode):
        return "is a pipe"
    if stat.S_ISSOCK(mode):
        return "is a socket"
    return "is a device"


def _problem(path: str) -> str | None:
    # The names of nearly all files need no closer look; no file is called `.` or `..`.
    if len(path) <= 255 and path.isascii() and path.isprintable():
        return None
    return path_problem(path)
