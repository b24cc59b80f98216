"""A snapshot: the immutable listing of an artifact's content, identified by its own digest."""

from __future__ import annotations

import contextlib
import gc
import hashlib
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from json.encoder import encode_basestring
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

from labsync.names import check_paths

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

T = TypeVar("T")
ABBREVIATION = 12
_AT_ONCE = 1000  # lines that are hashed together


def canonical_line(path: str, sha256: str, size: int, executable: bool) -> str:
    """Return the canonical line of a file, without its line feed; `sha256` is hex."""
    x = ',"x":true' if executable else ""
    return f'{{"path":{encode_basestring(path)},"sha256":"{sha256}","size":{size}{x}}}'


@dataclass(frozen=True, slots=True, order=True)
class FileEntry:
    """One file of a snapshot: its relative POSIX path, SHA-256, size in bytes, executable bit."""

    path: str
    sha256: str
    size: int
    executable: bool = False

    def canonical(self) -> str:
        """Return the entry's canonical line, without its line feed."""
        return canonical_line(self.path, self.sha256, self.size, self.executable)


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
    """Let the garbage collector rest in the block: it would look at the same values again and again.

    For making very many values that are in no cycle.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def from_columns(kind: type[T], *columns: Sequence[object]) -> list[T]:
    """Return instances of a frozen dataclass with slots, made from one column for each of its fields.

    They are what its constructor would make of the rows, in a third of the time.
    """
    count = len(columns[0])
    fields: tuple[str, ...] = kind.__slots__  # type: ignore[attr-defined]
    assert [len(column) for column in columns] == [count] * len(fields)
    made = list(map(object.__new__, repeat(kind, count)))
    for field, column in zip(fields, columns, strict=True):
        deque(map(getattr(kind, field).__set__, made, column), maxlen=0)
    return made


@dataclass(frozen=True)
class Snapshot:
    """File entries sorted by UTF-8 path; equal content has an equal id everywhere.

    The id is the SHA-256 of the canonical lines, each ended by LF. No mtime, key, layout or empty
    folder counts; `x` is the executable bit. Build one with `Snapshot.of`, which sorts and checks.
    """

    entries: tuple[FileEntry, ...]

    @classmethod
    def of(cls, entries: Iterable[FileEntry]) -> Snapshot:
        """Return the snapshot of these entries; raises RefusedError (12) for a refused name."""
        # The order of code points is that of their UTF-8 bytes.
        ordered = tuple(sorted(entries, key=attrgetter("path")))
        check_paths(map(attrgetter("path"), ordered))
        return cls(ordered)

    @cached_property
    def id(self) -> str:
        """The snapshot's full id, 64 hex digits."""
        digest = hashlib.sha256()
        for start in range(0, len(self.entries), _AT_ONCE):
            lines = [
                canonical_line(entry.path, entry.sha256, entry.size, entry.executable)
                for entry in self.entries[start : start + _AT_ONCE]
            ]
            digest.update(("\n".join(lines) + "\n").encode())
        return digest.hexdigest()

    @property
    def short_id(self) -> str:
        """The first twelve digits of the id: for people and head names, never for checking."""
        return self.id[:ABBREVIATION]

    @cached_property
    def by_path(self) -> Mapping[str, FileEntry]:
        """The entries by path."""
        return {entry.path: entry for entry in self.entries}

    @property
    def size(self) -> int:
        """The total size in bytes."""
        return sum(entry.size for entry in self.entries)

    def __iter__(self) -> Iterator[FileEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


EMPTY = Snapshot(())
