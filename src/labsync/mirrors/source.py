"""What every mirror says about the content it stores: it is not the promised one, or the key has another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labsync.digest import BLOCK, sha256_stream
from labsync.errors import ChangedError
from labsync.mirrors.base import OtherBytesError
from labsync.names import escape

if TYPE_CHECKING:
    from collections.abc import Iterable

    from labsync.places import Buffer, Content


def changed(key: str) -> ChangedError:
    """Return the error that a content is not what it was when it was to be stored under `key`."""
    return ChangedError(
        f"what is to be stored as `{escape(key)}` changed while it was read",
        path=key,
        hint="run the same command again when nothing writes to it",
    )


def digest_of(content: Content) -> str:
    """Return the content's digest, by reading all of it where nobody knows it: its bytes prove themselves."""
    return content.sha256 or sha256_stream(content.blocks(BLOCK))[0]


def expect_same(blocks: Iterable[Buffer], sha256: str, size: int, key: str) -> None:
    """Raise OtherBytesError unless the bytes that `key` holds already have this digest and size."""
    if sha256_stream(map(bytes, blocks)) != (sha256, size):
        raise other_bytes(key)


def other_bytes(key: str) -> OtherBytesError:
    """Return the error that a key which is written once holds something else."""
    return OtherBytesError(
        f"the mirror holds other bytes under `{escape(key)}`",
        safe="they were not touched, and nothing was published",
        hint="move that file of the mirror away and run the same command again: it is damaged",
        path=key,
    )
