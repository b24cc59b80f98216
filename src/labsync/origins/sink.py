"""The one way in which every origin puts the bytes it reads into a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labsync.atomic import disk_errors
from labsync.errors import IntegrityError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from labsync.places import Advance
    from labsync.snapshot import FileEntry


def write_blocks(blocks: Iterable[bytes], entry: FileEntry, into: Path, start: int, advance: Advance) -> None:
    """Write the blocks into `into` from offset `start` on, each handed to the system before `advance`.

    Whatever iterating over `blocks` or `advance` raises passes through. No byte is written past
    `entry.size`: more raise IntegrityError, fewer UnavailableError. A negative size means that nobody
    knows it yet; then what comes is taken.
    """
    with disk_errors(into):
        file = into.open("r+b" if start else "wb", buffering=0)
    with file:
        with disk_errors(into):
            file.seek(start)
            file.truncate()
        position = start
        for block in blocks:
            if 0 <= entry.size < position + len(block):
                raise IntegrityError(
                    f"`{entry.path}` is longer than the {entry.size} bytes it should have", path=entry.path
                )
            rest = memoryview(block)
            with disk_errors(into):
                while rest:
                    rest = rest[file.write(rest) :]
            position += len(block)
            advance(len(block))
    if 0 <= position < entry.size:
        raise UnavailableError(
            f"`{entry.path}` ended after {position} of {entry.size} bytes", path=entry.path
        )
