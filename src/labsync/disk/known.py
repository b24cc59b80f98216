"""What lies in a folder beside what is remembered of it: one pass over both, sorted by path."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from labsync.disk.hashing import AT_ONCE, Digested, Looked, hash_all
from labsync.places import Found
from labsync.snapshot import FileEntry, canonical_line, from_columns, no_collections
from labsync.state import Stat

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from labsync.places import FoundState
    from labsync.report import Skipped
    from labsync.state import Published, Remembered, State

    Locate = Callable[[str], tuple[str, str]]  # from a file's path in its artifact to its place and key

Beside: TypeAlias = "tuple[str, os.stat_result, Remembered | None]"
"""A file's path, its stat, and what is remembered of it; None where that was another stat."""

_INODE = (1 << 63) - 1
_LINES = 1000  # that are hashed together


def beside(files: Iterable[tuple[str, os.stat_result]], rows: Iterator[Remembered]) -> Iterator[Beside]:
    """Yield the files of a walk with what is remembered of each; both come sorted by path."""
    row = next(rows, None)
    for path, stat in files:
        raw = path.encode()
        while row is not None and row[0] < raw:
            row = next(rows, None)
        is_known = (
            row is not None
            and row[0] == raw
            and row[2] == stat.st_mtime_ns
            and row[3] == stat.st_ctime_ns
            and row[1] == stat.st_size
            and row[4] == stat.st_ino & _INODE
        )
        yield path, stat, row if is_known else None


def identify(files: Iterable[Beside]) -> str | None:
    """Return the id of the snapshot of these files, None as soon as one is not known as recorded."""
    digest, lines = hashlib.sha256(), []
    for path, stat, row in files:
        if row is None or not row[6]:
            return None
        lines.append(canonical_line(path, row[5], stat.st_size, bool(stat.st_mode & 0o100)))
        if len(lines) == _LINES:
            digest.update(("\n".join(lines) + "\n").encode())
            lines.clear()
    if lines:
        digest.update(("\n".join(lines) + "\n").encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Look:
    """What lies in a folder, told by stat alone: what is as recorded, and the stat of everything else."""

    recorded: Mapping[str, Found]
    fresh: Mapping[str, os.stat_result]
    skipped: tuple[Skipped, ...] = ()
    exists: bool = True


def sort_out(files: Iterable[Beside]) -> tuple[dict[str, Found], dict[str, os.stat_result]]:
    """Return what of the files is as recorded, and the stat of the others; nothing is read."""
    recorded, fresh = {}, {}
    for path, stat, row in files:
        if row is None or not row[6]:
            fresh[path] = stat
        else:
            entry = FileEntry(path, row[5], stat.st_size, bool(stat.st_mode & 0o100))
            recorded[path] = Found(entry, "recorded")
    return recorded, fresh


def found_files(files: Iterable[Beside], locate: Locate, state: State) -> dict[str, Found]:
    """Return what each file is against its record, by path in order; what is not known is read."""
    paths: list[str] = []
    digests: list[str] = []
    sizes: list[int] = []
    executables: list[bool] = []
    states: list[FoundState] = []
    unsure: list[tuple[str, Stat, str]] = []
    judged: dict[str, Found] = {}
    for path, stat, row in files:
        if row is None or row[6] == 0:
            unsure.append((path, Stat.of(stat), row[5] if row else ""))
            if len(unsure) == AT_ONCE:
                judged.update(_judged(unsure, locate, state))
                unsure.clear()
            continue
        paths.append(path)
        digests.append(row[5])
        sizes.append(stat.st_size)
        executables.append(bool(stat.st_mode & 0o100))
        states.append("recorded" if row[6] else "changed")
    with no_collections():
        entries = from_columns(FileEntry, paths, digests, sizes, executables)
        found = dict(zip(paths, from_columns(Found, entries, states), strict=True))
    judged.update(_judged(unsure, locate, state))
    return dict(sorted({**found, **judged}.items())) if judged else found


def _judged(unsure: list[tuple[str, Stat, str]], locate: Locate, state: State) -> Iterator[tuple[str, Found]]:
    looked = {path: Looked(*locate(path), stat) for path, stat, _ in unsure}
    published = state.publications(item.key for item in looked.values())
    to_read = [path for path, _, sha256 in unsure if not sha256]
    read = dict(zip(to_read, hash_all([looked[path] for path in to_read], state), strict=True))
    for path, stat, sha256 in unsure:
        digest = Digested(sha256, stat) if sha256 else read[path]
        if digest is not None:
            entry = FileEntry(path, digest.sha256, digest.stat.size, bool(digest.stat.mode & 0o100))
            yield path, Found(entry, judge(digest, published.get(looked[path].key)))


def judge(digest: Digested, published: Published | None) -> FoundState:
    """Say what a file is against its record, as `places.Found` defines the words."""
    if published is None:
        return "changed"
    if digest.sha256 == published.sha256:
        return "recorded"
    return "damaged" if published.is_untouched(digest.stat) else "changed"


def unrecorded(
    files: Iterable[Beside], wanted: Mapping[str, FileEntry], locate: Locate, state: State
) -> Iterator[tuple[str, Stat, str]]:
    """Yield key, stat and digest of the files that have the wanted bytes and are not on record as they are.

    What is not known is read.
    """
    unsure: list[tuple[FileEntry, Looked]] = []
    for path, stat, row in files:
        entry = wanted.get(path)
        if entry is None:
            continue
        if row is None:
            unsure.append((entry, Looked(*locate(path), Stat.of(stat))))
            if len(unsure) == AT_ONCE:
                yield from _proven(unsure, state)
                unsure.clear()
        elif row[5] == entry.sha256 and not (row[6] and row[7] == row[2]):
            yield locate(path)[1], Stat.of(stat), entry.sha256
    yield from _proven(unsure, state)


def _proven(unsure: list[tuple[FileEntry, Looked]], state: State) -> Iterator[tuple[str, Stat, str]]:
    published = state.publications(looked.key for _, looked in unsure)
    unread = [item for item in unsure if not _is_recorded(*item, published.get(item[1].key))]
    digests = hash_all([looked for _, looked in unread], state)
    for (entry, looked), digest in zip(unread, digests, strict=True):
        if digest is not None and digest.sha256 == entry.sha256:
            yield looked.key, digest.stat, digest.sha256


def _is_recorded(entry: FileEntry, looked: Looked, published: Published | None) -> bool:
    return published is not None and published.sha256 == entry.sha256 and published.is_untouched(looked.stat)
