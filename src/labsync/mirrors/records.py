"""The mirror's records as bytes: how an index and a head are written, and how strictly they are read.

A head is one JSON object: version, artifact, snapshot, index, parent, time, host, nonce, and last the
SHA-256 of the line as it is without it: nothing else names a head's bytes, and a byte that changed on
the way must not be remembered. What an index is, `labsync.mirrors.indexes` says.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from labsync.digest import is_sha256, sha256_bytes
from labsync.errors import IntegrityError, InvalidError
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

_HEAD = ("version", "artifact", "snapshot", "index", "parent", "time", "host", "nonce", "sha256")
_SEALED = re.compile(rb'(?P<fields>.*),"sha256":"(?P<sha256>[0-9a-f]{64})"\}\n', re.DOTALL)


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
    line = line_of({
        "version": VERSION, "artifact": head.name.artifact, "snapshot": head.snapshot, "index": head.index,
        "parent": head.parent, "time": head.time, "host": head.host, "nonce": head.nonce,
    })  # fmt: skip
    return line[:-2] + f',"sha256":"{sha256_bytes(line)}"}}\n'.encode()


def parse_head(data: bytes, name: HeadName, mark: str) -> Head:
    """Return the head stored as `data` under `name`.

    IntegrityError when a byte is another one than was written; InvalidError when this is not that head,
    or a newer version of it.
    """
    sealed = _SEALED.fullmatch(data)
    if sealed and sha256_bytes(sealed["fields"] + b"}\n") != sealed["sha256"].decode():
        raise IntegrityError(
            f"the head `{name}` has other bytes than were written",
            safe="it was not believed",
            hint="run it again; if it stays so, bring the head back from a backup of the mirror",
        )
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
    if sealed is None:
        raise record.error("has a wrong `sha256`")
    return head
