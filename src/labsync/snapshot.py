"""A snapshot: the immutable listing of an artifact's content, identified by its own digest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from labsync.digest import sha256_bytes
from labsync.names import check_paths

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

ABBREVIATION = 12


@dataclass(frozen=True, slots=True, order=True)
class FileEntry:
    """One file of a snapshot: its relative POSIX path, SHA-256, size in bytes, executable bit."""

    path: str
    sha256: str
    size: int
    executable: bool = False

    def canonical(self) -> str:
        """Return the entry's canonical line, without its line feed."""
        fields: dict[str, str | int | bool] = {
            "path": self.path,
            "sha256": self.sha256,
            "size": self.size,
        }
        if self.executable:
            fields["x"] = True
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


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
        ordered = tuple(sorted(entries, key=lambda entry: entry.path.encode("utf-8", "surrogatepass")))
        check_paths(entry.path for entry in ordered)
        return cls(ordered)

    @cached_property
    def id(self) -> str:
        """The snapshot's full id, 64 hex digits."""
        return sha256_bytes("".join(f"{entry.canonical()}\n" for entry in self.entries).encode())

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
