"""The journal of a part file: which of its bytes are on the disk, so that a killed run loses few of them.

```
labsync blocks 1 <sha256> <size> <checksum>       the content that the part is to become
<start> <stop> <checksum>                         these bytes have arrived and are on the disk
```

ASCII lines. A checksum is the CRC-32 of its line up to the space before it, in eight hex digits; that
of the header begins at zero, those of the others at the header's: no line proves anything about another
content. Lines are only ever appended. The first line that is not whole ends the journal, with all that
may stand behind it.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsync.transfer.ranges import Extent, merged

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_HEADER = re.compile(rb"labsync blocks 1 ([0-9a-f]{64}) ([0-9]{1,18})")
_EXTENT = re.compile(rb"([0-9]{1,18}) ([0-9]{1,18})")


@dataclass(frozen=True)
class Record:
    """What a journal says; `length` bytes of it are whole lines."""

    sha256: str
    size: int
    extents: tuple[Extent, ...]
    length: int


def parse(text: bytes) -> Record | None:
    """Return what the journal says, None when it is not one, or one of another version."""
    header, _, rest = text.partition(b"\n")
    body = _checked(header, 0)
    match = body and _HEADER.fullmatch(body)
    if not body or not match or len(header) == len(text):
        return None
    size, seed = int(match[2]), zlib.crc32(body)
    length, extents = len(header) + 1, list[Extent]()
    for line in rest.split(b"\n")[:-1]:
        body = _checked(line, seed)
        found = body and _EXTENT.fullmatch(body)
        if not found or not int(found[1]) < int(found[2]) <= size:
            break
        extents.append((int(found[1]), int(found[2])))
        length += len(line) + 1
    return Record(match[1].decode(), size, tuple(merged(extents)), length)


def read(path: Path) -> Record | None:
    """Return what the journal at `path` says, None when there is none that can be used."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with open(fd, "rb") as file, contextlib.suppress(OSError):
        return parse(file.read())
    return None


class Journal:
    """The journal of one part file, for the one who holds that file. Raises OSError."""

    def __init__(self, path: Path, sha256: str, size: int) -> None:
        self._path = path
        self._header = b"labsync blocks 1 %s %d" % (sha256.encode(), size)
        self._content = (sha256, size)
        self.extents: tuple[Extent, ...] = ()

    def load(self) -> None:
        """Take over what a killed run left, without its torn end; what is of no use is removed."""
        record = read(self._path)
        if record is None or (record.sha256, record.size) != self._content:
            self.remove()
        else:
            self.extents = record.extents
            os.truncate(self._path, record.length)

    def add(self, extents: Iterable[Extent]) -> None:
        """Note that these bytes are on the disk."""
        known, new = self.extents, list(extents)
        self.extents = tuple(merged([*known, *new]))
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._path, flags, 0o644)
        with open(fd, "wb") as file:
            lines, seed = list[bytes](), zlib.crc32(self._header)
            if not os.fstat(fd).st_size:  # new, or somebody tidied up
                lines, new = [_line(self._header, 0)], [*known, *new]
            lines += [_line(b"%d %d" % extent, seed) for extent in new]
            file.write(b"".join(lines))

    def remove(self) -> None:
        """Forget everything."""
        self.extents = ()
        self._path.unlink(missing_ok=True)


def _line(body: bytes, seed: int) -> bytes:
    return b"%s %08x\n" % (body, zlib.crc32(body, seed))


def _checked(line: bytes, seed: int) -> bytes | None:
    """Return a line without its checksum, None when that is wrong."""
    body, _, checksum = line.rpartition(b" ")
    return body if checksum == b"%08x" % zlib.crc32(body, seed) else None
