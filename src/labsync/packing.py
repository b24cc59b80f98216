"""How files lie in tar shards: which file in which shard, at which byte, behind which header. All of it pure.

```
pack-00000.tar    header, bytes, zeros up to a multiple of 512; header, bytes, zeros; …; 1,024 zeros
```

A shard is a plain POSIX tar that says nothing but names, sizes and the executable bit, so equal entries
give equal bytes anywhere. Files lie in the order of their paths. A shard ends where the next file would
make it pass the limit, but not inside a sample: WebDataset takes files of one folder whose names agree
up to their first dot for one (https://github.com/webdataset/webdataset). A file of more than half the
limit is not packed: alone it can be read and continued just as well, and a shard keeps its size.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from labsync.places import Ref
    from labsync.snapshot import FileEntry

LIMIT = 64 << 20
END = bytes(1024)
_BLOCK = 512
_NAME, _PREFIX = 100, 155
_OCTAL_SIZE = 8 << 30  # eleven octal digits end here
_UNNAMED = b"".join([
    b"0000000\0" * 2,  # user and group
    b"%s",  # size
    b"00000000000\0",  # mtime
    b"%06o\0 ",  # checksum
    b"%c",  # type
    bytes(100),  # link name
    b"ustar\00000",
    bytes(64),  # user's and group's names
    b"0000000\0" * 2,  # device numbers
])  # fmt: skip
_BLANK_SUM = sum(_UNNAMED.replace(b"%s", b"").replace(b"%06o\0 ", b" " * 8).replace(b"%c", b""))


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard's name, its size in bytes, and each of its files with the byte where its content begins."""

    name: str
    size: int
    members: tuple[tuple[FileEntry, int], ...]


def is_packed(entry: FileEntry, limit: int = LIMIT) -> bool:
    """Say whether the file goes into a shard at all."""
    return entry.size <= limit // 2


def layout(entries: Iterable[FileEntry], limit: int = LIMIT) -> list[Shard]:
    """Return the shards of these files; equal entries in any order give equal shards.

    None is larger than `limit`, but for a shard of one file. A sample lies in one shard unless it
    alone passes the limit.
    """
    ordered = sorted(entries, key=lambda entry: entry.path)  # by code points, so by UTF-8 too
    shards: list[Shard] = []
    members: list[tuple[FileEntry, int]] = []
    size = 0

    def close() -> None:
        nonlocal members, size
        if members:
            shards.append(Shard(f"pack-{len(shards):05}.tar", size + len(END), tuple(members)))
        members, size = [], 0

    room = limit - len(END)
    for _, found in itertools.groupby(ordered, _sample):
        sample = [(entry, _header_size(entry), padded(entry.size)) for entry in found]
        if size and size + sum(head + body for _, head, body in sample) > room:
            close()
        for entry, head, body in sample:
            if size + head + body > room:
                close()
            members.append((entry, size + head))
            size += head + body
    close()
    return shards


def header(entry: FileEntry) -> bytes:
    """Return what stands before the bytes of a file: a ustar header, a PAX one where it is too narrow."""
    name = entry.path.encode()
    split = _split(name) if name.isascii() else None
    mode = b"0000755\0" if entry.executable else b"0000644\0"
    if split and entry.size < _OCTAL_SIZE:
        return _ustar(*split, mode, entry.size, b"0")
    fields = b"" if split else _record(b"path", name)
    size = entry.size
    if size >= _OCTAL_SIZE:
        fields += _record(b"size", b"%d" % size)
        size = 0
    extended = _ustar(b"././@PaxHeader", b"", b"0000644\0", len(fields), b"x")
    plain = entry.path.encode("ascii", "replace")[:_NAME]
    return extended + fields + bytes(padded(len(fields)) - len(fields)) + _ustar(plain, b"", mode, size, b"0")


def padded(size: int) -> int:
    """Return the room that so many bytes take in a tar."""
    return -(-size // _BLOCK) * _BLOCK


def repack(
    mirrored: Mapping[str, Ref], packs: Mapping[str, int], wanted: Iterable[FileEntry]
) -> frozenset[str]:
    """Return the wanted contents, by SHA-256, that lie in a shard of which more than half is dead.

    `mirrored` tells where contents lie, `packs` how large each shard is; one of unknown size stays.
    What is live is counted as the tar counts, and once for every path, as a shard holds it.
    """
    live = dict.fromkeys(packs, len(END))
    inside: dict[str, set[str]] = {}
    for entry in wanted:
        ref = mirrored.get(entry.sha256)
        if ref is not None and ref.offset is not None and ref.location in packs:
            live[ref.location] += _header_size(entry) + padded(entry.size)
            inside.setdefault(ref.location, set()).add(entry.sha256)
    dead = (contents for key, contents in inside.items() if 2 * live[key] < packs[key])
    return frozenset(itertools.chain.from_iterable(dead))


def _sample(entry: FileEntry) -> str:
    """Return what the files of a sample share; a name's leading dot begins no extension."""
    path = entry.path
    end = path.find(".", path.rfind("/") + 2)
    return path if end < 0 else path[:end]


def _header_size(entry: FileEntry) -> int:
    path = entry.path
    if len(path) <= _NAME and path.isascii() and entry.size < _OCTAL_SIZE:
        return _BLOCK
    return len(header(entry))


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Return name and prefix as ustar has room for them, None where it has none."""
    if len(name) <= _NAME:
        return name, b""
    slash = name.rfind(b"/", 0, _PREFIX + 1)
    if slash < 0 or len(name) - slash - 1 > _NAME:
        return None
    return name[slash + 1 :], name[:slash]


def _ustar(name: bytes, prefix: bytes, mode: bytes, size: int, kind: bytes) -> bytes:
    octal = b"%011o\0" % size
    checksum = _BLANK_SUM + sum(name) + sum(prefix) + sum(mode) + sum(octal) + kind[0]
    middle = _UNNAMED % (octal, checksum, kind)
    return b"%s%s%s%s" % (name.ljust(_NAME, b"\0"), mode, middle, prefix.ljust(_BLOCK - 345, b"\0"))


def _record(key: bytes, value: bytes) -> bytes:
    """Return a PAX record, whose first field is its own length in bytes, that field included."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)
