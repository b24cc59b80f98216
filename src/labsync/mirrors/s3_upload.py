"""A file larger than one request: stored in parts, each read once, visible only when all were right."""

from __future__ import annotations

import contextlib
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsync.errors import IntegrityError, LabsyncError
from labsync.mirrors.s3_bucket import Whole
from labsync.mirrors.source import open_source, verified_blocks

if TYPE_CHECKING:
    from pathlib import Path

    from labsync.mirrors.s3_bucket import Bucket, Condition
    from labsync.places import Advance
    from labsync.snapshot import FileEntry

_MIB = 1 << 20
MAX_PARTS = 10_000  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html


@dataclass(frozen=True, slots=True)
class Sizes:
    """Up to `single` bytes go in one request, more in parts of at least `part`; `page` heads per listing."""

    single: int = 64 * _MIB
    part: int = 64 * _MIB
    page: int = 1000

    def part_of(self, size: int) -> int:
        """Return the part size for a file: whole MiB, and never more parts than S3 takes."""
        least = -(-size // MAX_PARTS)
        return max(self.part, -(-least // _MIB) * _MIB)


@dataclass(frozen=True, slots=True)
class Order:
    """What `Mirror.write` was asked to do."""

    key: str
    entry: FileEntry
    staged: Path
    advance: Advance


def upload_parts(bucket: Bucket, order: Order, part_size: int, condition: Condition) -> bool:
    """Store the file in parts; False when the condition fails. Whatever goes wrong aborts the upload.

    Raises ChangedError before anything is visible when the bytes are not those of the entry.
    """
    key, entry = order.key, order.entry
    upload = bucket.start_upload(key)
    try:
        parts, crc32 = [], 0
        with open_source(order.staged, entry) as file:
            for number, data in enumerate(verified_blocks(file, entry, part_size), 1):
                parts.append(bucket.put_part(upload, number, data))
                crc32 = zlib.crc32(data, crc32)
                order.advance(len(data))
        done = bucket.complete(upload, parts, Whole(entry.size, crc32), condition)
    except BaseException:
        with contextlib.suppress(LabsyncError):  # the first failure is the one to tell
            bucket.abort(upload)
        raise
    if not done:
        bucket.abort(upload)
    elif (stored := bucket.size(key)) != entry.size:
        raise IntegrityError(
            f"`{bucket.address(key)}` holds {stored} bytes after {entry.size} were sent", path=entry.path
        )
    return done
