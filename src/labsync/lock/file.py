"""The lock on the disk: `X.lock`, and `X.lock.d/` for the listings of large artifacts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from labsync.atomic import disk_errors, write_bytes
from labsync.digest import BLOCK, sha256_stream
from labsync.errors import InvalidError
from labsync.lock.text import parse_lock, render_lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from labsync.lock.model import Lock

_LISTING = re.compile(r"([0-9a-f]{64})\.jsonl\.zst")
_LEVEL = 1  # most of the text are digests: higher levels take ten times as long and save nothing


def read_lock(path: Path, *, salvage: bool = False) -> Lock | None:
    """Return the lock at `path`, None when there is none.

    Its listings are read and checked when somebody asks for their files. With `salvage` they are read
    now, and an artifact whose listing is missing or damaged is `unresolved`, as `labsync lock` needs it.
    Raises InvalidError (3) for whatever is not a lock, DiskError when it cannot be read.
    """
    text = _read_text(path)
    if text is None:
        return None

    def listing(digest: str, limit: int) -> Iterator[bytes]:
        try:
            yield from _Listings(path).read(digest, limit)
        except InvalidError as error:
            if _read_text(path) != text:
                raise InvalidError(
                    f"the lock `{path.name}` was written anew meanwhile", hint="run the same command again"
                ) from error
            raise

    return parse_lock(text, path.name, listing, salvage=salvage)


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


class _Listings:
    """The folder `X.lock.d`; a listing's name is the digest of what it holds before compression."""

    def __init__(self, lock_path: Path) -> None:
        self._folder = lock_path.with_name(f"{lock_path.name}.d")

    def read(self, digest: str, limit: int) -> Iterator[bytes]:
        """Yield at most `limit` decompressed bytes; their digest is checked by who asked."""
        import zstandard

        path = self._path(digest)
        if not path.is_file():
            raise self._damaged(path, "is missing")
        try:
            with disk_errors(path), path.open("rb") as file:
                reader = zstandard.ZstdDecompressor().stream_reader(file)
                while limit and (block := reader.read(min(limit, BLOCK))):
                    limit -= len(block)
                    yield block
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
            return sha256_stream(self.read(digest, size + 1))[0] == digest
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
