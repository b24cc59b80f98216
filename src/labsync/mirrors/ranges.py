"""Which bytes of an object a read asks for, and whether an answer has exactly those."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsync.errors import IntegrityError, UnavailableError
from labsync.names import escape

if TYPE_CHECKING:
    from collections.abc import Iterable

    from labsync.places import Blocks, Buffer, Ref
    from labsync.snapshot import FileEntry

_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)")


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes of an object from `first` up to `end`; `whole` says that they are all it has.

    `end` is negative for the end of an object whose size nobody knows.
    """

    first: int
    end: int
    whole: bool

    @classmethod
    def of(cls, ref: Ref, entry: FileEntry, start: int, stop: int | None) -> Span:
        """Return where the bytes of `entry` from `start` up to `stop` lie, as `Reader.read` says."""
        if entry.size < 0:
            return cls(0, -1, whole=True)
        stop = entry.size if stop is None else stop
        offset = ref.offset or 0
        whole = ref.offset is None and start == 0 and stop == entry.size
        return cls(offset + start, offset + stop, whole)

    @property
    def size(self) -> int:
        """How many bytes these are, -1 where nobody knows."""
        return self.end - self.first if self.end >= 0 else -1

    @property
    def asked(self) -> tuple[int, int] | None:
        """The first and the last byte to ask for, None for a request without a range."""
        return None if self.whole else (self.first, self.end - 1)

    def is_range(self, content_range: str, total: int) -> bool:
        """Say whether the header names exactly these bytes, of an object of `total` (-1: any) bytes."""
        match = _CONTENT_RANGE.fullmatch(content_range)
        if not match or (int(match[1]), int(match[2]) + 1) != (self.first, self.end):
            return False
        return match[3] == "*" or (int(match[3]) == total if total >= 0 else int(match[3]) >= self.end)


def counted(blocks: Iterable[Buffer], size: int, entry: FileEntry) -> Blocks:
    """Yield the blocks; IntegrityError instead of more than `size` bytes, UnavailableError after fewer.

    A negative size lets everything pass.
    """
    count = 0
    for block in blocks:
        count += len(block)
        if 0 <= size < count:
            raise IntegrityError(
                f"more than the {size} bytes asked for of `{escape(entry.path)}` came", path=entry.path
            )
        yield block
    if 0 <= count < size:
        raise UnavailableError(f"`{escape(entry.path)}` ended after {count} of {size} bytes", path=entry.path)
