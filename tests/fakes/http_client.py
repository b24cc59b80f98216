"""A client of the HTTP reader that keeps what arrived, and the file it reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from labsync.digest import sha256_bytes
from labsync.origins.http import HttpReader
from labsync.snapshot import FileEntry

if TYPE_CHECKING:
    from labsync.places import Blocks

DATA = bytes(range(256)) * 8000
SIZE = len(DATA)
ENTRY = FileEntry("f.bin", sha256_bytes(DATA), SIZE)
UNKNOWN = FileEntry("f.bin", "", -1)


@dataclass
class Client:
    """A reader, and what arrived before the last read ended or failed."""

    reader: HttpReader = field(default_factory=HttpReader)
    got: bytes = b""

    def read(self, url: str, entry: FileEntry = ENTRY, start: int = 0, stop: int | None = None) -> bytes:
        return self.take(self.reader.read(url, entry, start, stop))

    def read_with(self, token: str, url: str) -> bytes:
        return self.take(self.reader.read(url, ENTRY, headers={"Authorization": token}))

    def take(self, blocks: Blocks) -> bytes:
        got = bytearray()
        try:
            for block in blocks:
                assert 1 <= len(block) <= 1 << 20
                got += block
        finally:
            self.got = bytes(got)
        return self.got
