"""A mirror in memory: the contract at its shortest, for tests and as a reference."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.digest import BLOCK, sha256_bytes
from labsync.errors import IntegrityError, NotFoundError
from labsync.mirrors.base import HEADS, Head, HeadMovedError, HeadName, Index
from labsync.mirrors.counter import RequestCounter
from labsync.mirrors.ranges import Span, counted
from labsync.mirrors.records import (
    head_bytes,
    head_key,
    index_bytes,
    index_key,
    new_head,
    parse_head,
    parse_index,
)
from labsync.mirrors.source import expect_same
from labsync.names import safe_join

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labsync.places import Advance, Blocks, Content, Ref, UploadJournal
    from labsync.report import MirrorRequests
    from labsync.snapshot import FileEntry


class MemoryMirror:
    """Objects by key; a head's mark is the digest of its bytes. Safe for several threads."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self._mutex = threading.Lock()
        self._requests = RequestCounter()

    @property
    def url(self) -> str:
        """The mirror's own address."""
        return "memory:"

    def heads(self) -> Mapping[HeadName, str]:
        """Return every head's name and change mark."""
        self._requests.add("LIST")
        with self._mutex:
            found = {key: data for key, data in self.objects.items() if key.startswith(HEADS)}
        names = {key: HeadName.parse(key.removeprefix(HEADS).removesuffix(".json")) for key in found}
        return {name: sha256_bytes(found[key]) for key, name in names.items() if name}

    def head(self, name: HeadName) -> Head:
        """Return one head."""
        data = self._get(head_key(name))
        return parse_head(data, name, sha256_bytes(data))

    def index(self, index_id: str) -> Index:
        """Return an index, its bytes checked against its id."""
        return parse_index(self._get(index_key(index_id)), index_id)

    def read(self, ref: Ref, entry: FileEntry, start: int = 0, stop: int | None = None) -> Blocks:
        """Yield the bytes of `entry` from `start` up to `stop`."""
        span, data = Span.of(ref, entry, start, stop), self._get(ref.location)
        if ref.offset is None and 0 <= entry.size != len(data):
            raise IntegrityError(f"`{ref.location}` has {len(data)} bytes, not {entry.size}", path=entry.path)
        end = min(span.end, len(data)) if span.end >= 0 else len(data)
        blocks = (data[at : min(at + BLOCK, end)] for at in range(span.first, end, BLOCK))
        yield from counted(blocks, span.size, entry)

    def write(self, key: str, content: Content, advance: Advance, journal: UploadJournal) -> None:
        """Store the content under a key that is written once; nothing of it outlives a failure."""
        del journal
        safe_join(Path(), key)
        data = b"".join(content.blocks(BLOCK))
        self._requests.add("PUT")
        with self._mutex:
            kept = self.objects.setdefault(key, data)
        expect_same([kept], sha256_bytes(data), len(data), key)
        advance(len(data))

    def abandon(self, key: str, journal: UploadJournal) -> None:
        """Do nothing: no upload is left unfinished."""

    def stored(self, folder: str) -> Mapping[str, int]:
        """Return the size of every object below the folder."""
        self._requests.add("LIST")
        with self._mutex:
            return {key: len(data) for key, data in self.objects.items() if key.startswith(folder)}

    def publish(self, name: HeadName, index: Index, expected: Head | None) -> Head:
        """Write the index, then move the head by compare-and-swap."""
        data = index_bytes(index)
        head = new_head(name, index, sha256_bytes(data), expected)
        stored = head_bytes(head)
        self._requests.add("PUT")
        self._requests.add("PUT")
        with self._mutex:
            self.objects.setdefault(index_key(head.index), data)
            current = self.objects.get(head_key(name))
            if (current and sha256_bytes(current)) != (expected and expected.mark):
                raise HeadMovedError(f"the head of `{name}` moved meanwhile")
            self.objects[head_key(name)] = stored
        return replace(head, mark=sha256_bytes(stored))

    def probe(self) -> bool:
        """Say that conditional writes work here."""
        return True

    def requests(self) -> MirrorRequests:
        """Return how many requests were made so far."""
        return self._requests.value()

    def _get(self, key: str) -> bytes:
        self._requests.add("GET")
        with self._mutex:
            if key not in self.objects:
                raise NotFoundError(f"the mirror has no `{key}`", path=key)
            return self.objects[key]
