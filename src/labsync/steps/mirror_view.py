"""The mirror as one command sees it: one listing of the heads, and what is cached behind their marks."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from labsync.digest import sha256_bytes
from labsync.errors import IntegrityError, InvalidError, NotFoundError
from labsync.mirrors.base import CONFLICT, HEADS, Head, HeadName, Index
from labsync.mirrors.records import (
    NewerVersionError,
    head_bytes,
    index_bytes,
    index_key,
    parse_head,
    parse_index,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from labsync.mirrors.base import Mirror
    from labsync.names import ArtifactName
    from labsync.places import Ref
    from labsync.state import State


KEPT_FILES = 200_000
"""Indexes read in this command are kept while they have so many files together; the last one always."""


class MirrorView:
    """Heads are listed once; a head or an index that has not changed is never fetched again.

    What was found damaged stays known on this disk, for keys are written once: a run that is stopped
    before the mirror is repaired leaves the repair to the next.
    """

    def __init__(self, mirror: Mirror, state: State) -> None:
        self.mirror = mirror
        self._state = state
        self._unreadable: set[str] = set()
        self._indexes: dict[str, Index] = {}  # the one used last is the last
        self.packs: dict[str, int] = {}  # the sizes of all packs seen so far, by key

    @cached_property
    def _marks(self) -> dict[HeadName, str]:
        return dict(self.mirror.heads())

    def list_heads(self) -> None:
        """Ask for the heads now, so that a mirror that cannot be reached is known at once."""
        _ = self._marks

    def refresh(self) -> None:
        """Forget the listing, so that the next question asks the mirror again."""
        self.__dict__.pop("_marks", None)

    @cached_property
    def damaged(self) -> frozenset[str]:
        """Return the keys that were found to hold no or other bytes than an index says."""
        known = self._state.get("damaged", self.mirror.url) or b""
        return frozenset(known.decode().split("\n")) - {""}

    def condemn(self, keys: frozenset[str]) -> None:
        """Take note of damaged keys, for good."""
        self.__dict__["damaged"] = damaged = self.damaged | keys
        self._state.put("damaged", self.mirror.url, "\n".join(sorted(damaged)).encode())

    def names(self, artifact: ArtifactName) -> tuple[HeadName, ...]:
        """Return the artifact's heads: the newest, the sourced ones, the losers of conflicts."""
        return tuple(sorted(name for name in self._marks if name.artifact == artifact))

    def head(self, name: HeadName) -> Head | None:
        """Return a head, from the cache while its mark is unchanged; None where there is none."""
        mark = self._marks.get(name)
        if mark is None:
            return None
        key = f"{self.mirror.url} {name}"
        cached = self._state.get("head", key)
        if cached is not None:
            seen, _, data = cached.partition(b"\n")
            if seen.decode() == mark:
                return parse_head(data, name, mark)
        head = self.mirror.head(name)
        self.remember(head)
        return head

    def remember(self, head: Head) -> None:
        """Keep a head that was read or published."""
        self._marks[head.name] = head.mark
        self._state.put(
            "head", f"{self.mirror.url} {head.name}", head.mark.encode() + b"\n" + head_bytes(head)
        )

    def index(self, index_id: str) -> Index:
        """Return an index, fetched once in the life of this disk: it never changes.

        One that is lost or damaged raises NotFoundError (6) or IntegrityError (5) with the way out.
        """
        index = self._indexes.pop(index_id, None) or self._read(index_id)
        self._indexes[index_id] = index
        self.packs.update(index.packs)
        files = sum(len(kept.files) for kept in self._indexes.values())
        for oldest in list(self._indexes)[:-1]:
            if files <= KEPT_FILES:
                break
            files -= len(self._indexes.pop(oldest).files)
        return index

    def _read(self, index_id: str) -> Index:
        cached = self._state.get("index", index_id)
        if cached is not None:
            # What another version of zstandard makes of a parsed index need not have the id of the original.
            return parse_index(cached, sha256_bytes(cached))
        try:
            index = self.mirror.index(index_id)
        except (IntegrityError, NotFoundError) as error:
            error.path = error.path or index_key(index_id)
            error.hint = (
                f"bring `{index_key(index_id)}` back from a backup of the mirror; or delete the artifact's "
                f"heads below `{HEADS}` there and `labsync push` from a box that has its files"
            )
            raise
        self._state.put("index", index_id, index_bytes(index))
        return index

    def counts(self, index_id: str) -> tuple[int, int]:
        """Return how many files and bytes an index lists, remembered behind its id."""
        known = self._state.get("counts", index_id)
        if known is None:
            index = self.index(index_id)
            known = f"{len(index.files)} {index.snapshot.size}".encode()
            self._state.put("counts", index_id, known)
        files, size = map(int, known.split())
        return files, size

    def readable(self, head: Head) -> Index | None:
        """Return the index of a sourced head, None where it is lost or damaged: it can be made again.

        Raises NewerVersionError for one that is whole and that a newer labsync wrote.
        """
        if head.index in self._unreadable:
            return None
        try:
            return self.index(head.index)
        except NewerVersionError:
            raise
        except (IntegrityError, NotFoundError, InvalidError):
            self._unreadable.add(head.index)
            return None

    def newest(self, artifact: ArtifactName) -> Head | None:
        """Return the head of a made artifact."""
        return self.head(HeadName(artifact))

    def descends(self, artifact: ArtifactName, index_id: str) -> bool:
        """Say whether the newest head of a made artifact goes back to this index.

        Where it does not, the mirror is not the one that the index was read from. Without a head, or
        before the heads were listed, nothing speaks against it.
        """
        head = self.newest(artifact) if "_marks" in self.__dict__ else None
        if head is None:
            return True
        found = head.index
        try:
            while found and found != index_id:
                found = self._parent(found)
        except (IntegrityError, NotFoundError):
            return False
        return found == index_id

    def _parent(self, index_id: str) -> str:
        known = self._state.get("parent", index_id)
        if known is None:
            known = self.index(index_id).parent.encode()
            self._state.put("parent", index_id, known)
        return known.decode()

    def conflicts(self, artifact: ArtifactName) -> tuple[HeadName, ...]:
        """Return the heads that keep the losers of conflicts."""
        return tuple(name for name in self.names(artifact) if name.label.startswith(CONFLICT))

    def contents(self, artifact: ArtifactName) -> dict[str, Ref]:
        """Return where every content of the artifact lies, by SHA-256, over all its heads."""
        found: dict[str, Ref] = {}
        for name in self.names(artifact):
            if head := self.head(name):
                for located in self.index(head.index).files:
                    found.setdefault(located.entry.sha256, located.ref)
        return found

    def history(self, artifact: ArtifactName) -> Iterator[tuple[str, Index]]:
        """Yield a made artifact's indexes with their ids, the newest first, then the conflicts'."""
        starts = [self.newest(artifact), *(self.head(name) for name in self.conflicts(artifact))]
        seen: set[str] = set()
        for head in filter(None, starts):
            for index_id, index in self._line(head):
                if index_id in seen:
                    break
                seen.add(index_id)
                yield index_id, index

    def _line(self, head: Head) -> Iterator[tuple[str, Index]]:
        """Yield the head's index and those before it."""
        index_id = head.index
        while index_id:
            index = self.index(index_id)
            yield index_id, index
            index_id = index.parent
