"""The lock on the disk: `X.lock`, and `X.lock.d/` for the listings of large artifacts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from labsync.atomic import disk_errors, write_bytes
from labsync.digest import BLOCK, sha256_bytes
from labsync.errors import InvalidError
from labsync.lock.text import parse_lock, render_lock

if TYPE_CHECKING:
    from pathlib import Path

    from labsync.lock.model import Lock

_LISTING = re.compile(r"([0-9a-f]{64})\.jsonl\.zst")
_LEVEL = 9


class BinaryReader(Protocol):
    """Something with bytes to read."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""


def read_lock(path: Path, *, salvage: bool = False) -> Lock | None:
    """Return the lock at `path` with all its listings checked, None when there is none.

    With `salvage` an artifact whose listing is missing or damaged is `unresolved`, as `labsync lock`
    needs it. Raises InvalidError (3) for whatever is not a lock, DiskError when it cannot be read.
    """
    text = _read_text(path)
    if text is None:
        return None
    try:
        return parse_lock(text, path.name, _Listings(path).read, salvage=salvage)
    except InvalidError:
        if _read_text(path) == text:
            raise
    # another labsync wrote a new lock, and took the old one's listings away, while we read
    return read_lock(path, salvage=salvage)


def write_lock(path: Path, lock: Lock) -> bool:
    """Write the lock, its listings first; False, and no change, when the disk has it already.

    Listings that the new lock does not name are removed at the end.
    """
    rendered = render_lock(lock)
    listings = _Listings(path)
    changed = [listings.write(digest, data) for digest, data in rendered.listings.items()]
    data = rendered.text.encode()
    with disk_errors(path):
        same = path.is_file() and path.read_bytes() == data
    if not same:
        write_bytes(path, data)
    listings.keep_only(set(rendered.listings))
    return not same or any(changed)


def _read_text(path: Path) -> str | None:
    try:
        with disk_errors(path):
            if not path.exists():
                return None
            return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise InvalidError(
            f"the lock `{path.name}` is not UTF-8 text",
            issues=(f"{path.name}:1: is not UTF-8 text",),
            path=str(path),
            hint="`git checkout` it, or delete it and `labsync lock` writes it anew",
        ) from error


def _read_up_to(file: BinaryReader, limit: int) -> bytes:
    blocks, left = [], limit
    while left and (block := file.read(min(left, BLOCK))):
        blocks.append(block)
        left -= len(block)
    return b"".join(blocks)


class _Listings:
    """The folder `X.lock.d`; a listing's name is the digest of what it holds before compression."""

    def __init__(self, lock_path: Path) -> None:
        self._folder = lock_path.with_name(f"{lock_path.name}.d")

    def read(self, digest: str, limit: int) -> bytes:
        """Return at most `limit` decompressed bytes; their digest is checked by who asked."""
        import zstandard

        path = self._path(digest)
        if not path.is_file():
            raise self._damaged(path, "is missing")
        try:
            with disk_errors(path), path.open("rb") as file:
                return _read_up_to(zstandard.ZstdDecompressor().stream_reader(file), limit)
        except zstandard.ZstdError as error:
            raise self._damaged(path, "is not a zstd file") from error

    def write(self, digest: str, data: bytes) -> bool:
        """Write a listing; False when it is there already, whole."""
        import zstandard

        path = self._path(digest)
        if path.is_file() and self._is_whole(digest, len(data)):
            return False
        write_bytes(path, zstandard.ZstdCompressor(level=_LEVEL).compress(data))
        return True

    def keep_only(self, digests: set[str]) -> None:
        """Remove every other listing, and the folder when nothing is left in it."""
        if not self._folder.is_dir():
            return
        with disk_errors(self._folder):
            for path in sorted(self._folder.iterdir()):
                match = _LISTING.fullmatch(path.name)
                if match and match[1] not in digests:
                    path.unlink()
            if not any(self._folder.iterdir()):
                self._folder.rmdir()

    def _is_whole(self, digest: str, size: int) -> bool:
        try:
            return sha256_bytes(self.read(digest, size + 1)) == digest
        except InvalidError:
            return False

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.jsonl.zst"

    def _damaged(self, path: Path, what: str) -> InvalidError:
        return InvalidError(
            f"the listing `{path.parent.name}/{path.name}` {what}",
            issues=(f"{path.parent.name}/{path.name}:1: {what}",),
            path=str(path),
            hint=f"`git checkout {path.parent.name}`, or `labsync lock` writes it anew",
        )
