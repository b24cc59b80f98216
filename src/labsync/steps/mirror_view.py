"""The mirror as one command sees it: one listing of the heads, and what is cached behind their marks."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from labsync.digest import sha256_bytes
from labsync.mirrors.base import CONFLICT, Head, HeadName, Index
from labsync.mirrors.records import head_bytes, index_bytes, parse_head, parse_index

if TYPE_CHECKING:
    from collections.abc import Iterator

    from labsync.mirrors.base import Mirror
    from labsync.names import ArtifactName
    from labsync.places import Ref
    from labsync.state import State


class MirrorView:
    """Heads are listed once; a head or an index that has not changed is never fetched again."""

    def __init__(self, mirror: Mirror, state: State) -> None:
        self.mirror = mirror
        self._state = state

    @cached_property
    def _marks(self) -> dict[HeadName, str]:
        return dict(self.mirror.heads())

    def list_heads(self) -> None:
        """Ask for the heads now, so that a mirror that cannot be reached is known at once."""
        _ = self._marks

    def refresh(self) -> None:
        """Forget the listing, so that the next question asks the mirror again."""
        self.__dict__.pop("_marks", None)

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
        """Return an index, fetched once in the life of this disk: it never changes."""
        cached = self._state.get("index", index_id)
        if cached is not None:
            # What another version of zstandard makes of a parsed index need not have the id of the original.
            return parse_index(cached, sha256_bytes(cached))
        index = self.mirror.index(index_id)
        self._state.put("index", index_id, index_bytes(index))
        return index

    def newest(self, artifact: ArtifactName) -> Head | None:
        """Return the head of a made artifact."""
        return self.head(HeadName(artifact))

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
        for head in starts:
            index_id = head.index if head else ""
            while index_id and index_id not in seen:
                seen.add(index_id)
                index = self.index(index_id)
                yield index_id, index
                index_id = index.parent
