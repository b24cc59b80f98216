"""How a mirror reads the file it stores: every byte once, and what was hashed is what is sent."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.atomic import disk_errors
from labsync.digest import sha256_stream
from labsync.errors import ChangedError, ConflictError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from labsync.snapshot import FileEntry


@contextlib.contextmanager
def open_source(staged: Path, entry: FileEntry) -> Iterator[BinaryIO]:
    """Open the file to store; ChangedError when it is gone, DiskError when it cannot be read."""
    with disk_errors(staged):
        try:
            file = staged.open("rb")
        except FileNotFoundError as error:
            raise ChangedError(f"`{entry.path}` is gone", path=entry.path) from error
    with file:
        yield file


def verified_blocks(file: BinaryIO, entry: FileEntry, block: int) -> Iterator[bytes]:
    """Yield the file's bytes in blocks; the end is reached only when they are those of `entry`.

    Otherwise raises ChangedError instead of ending, as soon as that is known.
    """
    digest, size = hashlib.sha256(), 0
    while True:
        with disk_errors(Path(file.name)):
            data = file.read(min(block, entry.size - size + 1))
        size += len(data)
        digest.update(data)
        if not data or size > entry.size:
            break
        yield data
    if size != entry.size or digest.hexdigest() != entry.sha256:
        raise ChangedError(
            f"`{entry.path}` changed while it was read",
            path=entry.path,
            hint="run the same command again when nothing writes to it",
        )


def expect_same(blocks: Iterable[bytes], entry: FileEntry, key: str) -> None:
    """Raise ConflictError unless the bytes that `key` holds already are those of `entry`."""
    if sha256_stream(blocks) != (entry.sha256, entry.size):
        raise other_bytes(entry, key)


def other_bytes(entry: FileEntry, key: str) -> ConflictError:
    """Return the error that a key which is written once holds something else."""
    return ConflictError(
        f"the mirror holds other bytes under `{key}`",
        safe="they were not touched, and nothing was published",
        hint="move that file of the mirror away and run the same command again: it is damaged",
        path=entry.path,
    )
