"""Digests: SHA-256 is the identity of bytes; git's SHA-1 only names the hub's small files."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import BinaryIO

BLOCK = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


def is_sha256(text: str) -> bool:
    """Say whether `text` is 64 lower-case hex digits."""
    return _SHA256.fullmatch(text) is not None


def is_commit(text: str) -> bool:
    """Say whether `text` is 40 lower-case hex digits, a full git commit."""
    return _SHA1.fullmatch(text) is not None


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of `data` in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_stream(blocks: Iterable[bytes]) -> tuple[str, int]:
    """Return the SHA-256 and the length of the concatenated `blocks`."""
    digest, size = hashlib.sha256(), 0
    for block in blocks:
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


def sha256_file(path: Path) -> tuple[str, int]:
    """Return the SHA-256 and the size of the file's bytes; raises OSError as `open` does."""
    with path.open("rb") as file:
        return sha256_stream(iter(lambda: file.read(BLOCK), b""))


def git_blob_id(file: BinaryIO, size: int) -> str:
    """Return git's SHA-1 of a blob of `size` bytes read from `file`.

    The hub names its small files so (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects).
    """
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for block in iter(lambda: file.read(BLOCK), b""):
        digest.update(block)
    return digest.hexdigest()
