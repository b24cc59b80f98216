"""The mirror's records as bytes: how an index and a head are written, and how strictly they are read.

A head is one JSON object: version, artifact, snapshot, index, parent, time, host, nonce. What an index
is, `labsync.mirrors.indexes` says.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from labsync.digest import is_sha256
from labsync.errors import InvalidError
from labsync.mirrors.base import CONFLICT, HEADS, INDEXES, Head, HeadName, Index
from labsync.mirrors.indexes import MAX_STORED, index_bytes, parse_index
from labsync.mirrors.record import MAX_HEAD, VERSION, NewerVersionError, Record, line_of
from labsync.snapshot import ABBREVIATION

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "MAX_HEAD", "MAX_STORED", "NewerVersionError", "head_bytes", "head_key", "index_bytes", "index_key",
    "new_batch", "new_head", "parse_head", "parse_index",
]  # fmt: skip

_HEAD = ("version", "artifact", "snapshot", "index", "parent", "time", "host", "nonce")


def head_key(name: HeadName) -> str:
    """Return the key of a head, relative to the mirror."""
    return f"{HEADS}{name}.json"


def index_key(index_id: str) -> str:
    """Return the key of an index, relative to the mirror; InvalidError when this is no digest."""
    if not is_sha256(index_id):
        raise InvalidError(f"`{index_id[:80]!r}` is not the id of an index")
    return f"{INDEXES}{index_id}.jsonl.zst"


def new_batch(now: datetime, random: str = "") -> str:
    """Return the name of a new batch, as in `20261120T101500Z-1a2b3c4d`; `now` is in UTC."""
    return f"{now:%Y%m%dT%H%M%SZ}-{random or secrets.token_hex(4)}"


def new_head(name: HeadName, index: Index, index_id: str, expected: Head | None) -> Head:
    """Return the head that shall follow `expected`, with a nonce of its own and no mark yet."""
    return Head(
        name,
        snapshot=index.snapshot.id,
        index=index_id,
        parent=expected.snapshot if expected else "",
        time=index.time,
        host=index.host,
        nonce=secrets.token_hex(16),
        mark="",
    )


def head_bytes(head: Head) -> bytes:
    """Return the stored bytes of a head; its name and its mark are not among them."""
    return line_of({
        "version": VERSION, "artifact": head.name.artifact, "snapshot": head.snapshot, "index": head.index,
        "parent": head.parent, "time": head.time, "host": head.host, "nonce": head.nonce,
    })  # fmt: skip


def parse_head(data: bytes, name: HeadName, mark: str) -> Head:
    """Return the head stored as `data` under `name`; InvalidError when it is not this head, or newer."""
    record = Record(data, f"the head `{name}`")
    record.check(_HEAD)
    if record.artifact() != name.artifact:
        raise record.error("belongs to another artifact")
    head = Head(
        name,
        snapshot=record.digest("snapshot"),
        index=record.digest("index"),
        parent=record.digest("parent", empty=True),
        time=record.text("time"),
        host=record.text("host"),
        nonce=record.text("nonce"),
        mark=mark,
    )
    if name.label and name.label.removeprefix(CONFLICT) != head.snapshot[:ABBREVIATION]:
        raise record.error("names another snapshot")
    return head
