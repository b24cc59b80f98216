"""An origin, a mirror and a home that are small, honest, and fail exactly when told to."""

from __future__ import annotations

import collections
import hashlib
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from labsync.errors import ChangedError, ConflictError, NotFoundError
from labsync.places import Advance, Found, Inventory, Ref, Replace

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from labsync.snapshot import FileEntry, Snapshot

BLOCK = 4
Fault: TypeAlias = Callable[["Reading"], None]


class Reading:
    """One call of `read`, as a fault sees it: it may send blocks, raise, or change what is sent."""

    def __init__(self, data: bytes, entry: FileEntry, into: Path, start: int, advance: Advance) -> None:
        self.data = data
        self.entry = entry
        self.into = into
        self.start = start
        self.advance = advance

    def send(self, end: int | None = None) -> None:
        """Write the bytes up to `end` in small blocks, reporting each."""
        with self.into.open("r+b" if self.start else "wb") as file:
            file.seek(self.start)
            while block := self.data[self.start : end][:BLOCK]:
                file.write(block)
                file.flush()
                self.start += len(block)
                self.advance(len(block))


def raises(error: Exception, after: int = 0) -> Fault:
    """Raise the error once `after` bytes have arrived."""

    def fault(reading: Reading) -> None:
        if after:
            reading.send(after)
        raise error

    return fault


def wrong_bytes(reading: Reading) -> None:
    """Send as many bytes as promised, the last of them flipped."""
    reading.data = reading.data[:-1] + bytes([reading.data[-1] ^ 1])
    reading.send()


def too_short(reading: Reading) -> None:
    """End early, as a reader that forgot to look would."""
    reading.send(len(reading.data) - 1)


def too_long(reading: Reading) -> None:
    """Go on behind the end."""
    reading.data += b"!"
    reading.send()


def begins_again(reading: Reading) -> None:
    """Answer a request for the rest with the whole, as a server without ranges does."""
    if reading.start:
        reading.advance(-reading.start)
        reading.start = 0
    reading.send()


class FakeReader:
    """Serves contents by their SHA-256; `faults` of a content happen once each, in order."""

    def __init__(self, contents: Iterable[bytes] = ()) -> None:
        self.contents: dict[str, bytes] = {}
        self.faults: dict[str, collections.deque[Fault]] = collections.defaultdict(collections.deque)
        self.reads: list[tuple[str, int]] = []
        self._mutex = threading.Lock()
        self.hold(*contents)

    def hold(self, *contents: bytes) -> None:
        """Have these contents from now on."""
        self.contents.update((hashlib.sha256(data).hexdigest(), data) for data in contents)

    def fail(self, data: bytes, *faults: Fault) -> None:
        """Let the next reads of this content fail in these ways."""
        self.faults[hashlib.sha256(data).hexdigest()].extend(faults)

    def reads_of(self, entry: FileEntry) -> list[int]:
        """Return where each read of the content began."""
        with self._mutex:
            return [start for path, start in self.reads if path == entry.sha256]

    def read(self, ref: Ref, entry: FileEntry, into: Path, start: int, advance: Advance) -> None:
        with self._mutex:
            self.reads.append((entry.sha256, start))
            faults = self.faults[entry.sha256]
            fault = faults.popleft() if faults else None
        data = self.contents.get(entry.sha256)
        if data is None:
            raise NotFoundError("the place does not have it", path=entry.path)
        reading = Reading(data, entry, into, start, advance)
        if fault:
            fault(reading)
        else:
            reading.send()


class FakeMirror(FakeReader):
    """A place to write to as well; `write_faults` are raised one per write, after half of the bytes."""

    def __init__(self, contents: Iterable[bytes] = ()) -> None:
        super().__init__(contents)
        self.keys: dict[str, bytes] = {}
        self.write_faults: collections.deque[Exception] = collections.deque()
        self.writes: list[tuple[str, Path]] = []

    def write(self, key: str, entry: FileEntry, staged: Path, advance: Advance) -> None:
        data = staged.read_bytes()
        with self._mutex:
            self.writes.append((key, staged))
            fault = self.write_faults.popleft() if self.write_faults else None
        if fault:
            advance(len(data) // 2)
            raise fault
        if (hashlib.sha256(data).hexdigest(), len(data)) != (entry.sha256, entry.size):
            raise ChangedError("changed while it was read")
        for at in range(0, len(data), BLOCK):
            advance(len(data[at : at + BLOCK]))
        with self._mutex:
            self.keys[key] = data
            self.contents[entry.sha256] = data


class FakeHome:
    """A plain folder on the disk that keeps its records in memory; `publish_faults` go by path."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.records: dict[str, str] = {}
        self.publish_faults: dict[str, Exception] = {}
        self.published: list[str] = []
        self.finished: Snapshot | None = None
        self._mutex = threading.Lock()

    @property
    def path(self) -> Path:
        return self._root / "files"

    @property
    def stage(self) -> Path:
        return self._root / "stage"

    @property
    def aside(self) -> Path:
        return self._root / "aside"

    def put(self, path: str, data: bytes, *, known: bool = True) -> None:
        """Lay a file down, with a record of it or as the user's own."""
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        if known:
            self.records[path] = hashlib.sha256(data).hexdigest()

    def inventory(self, *, rehash: bool) -> Inventory:
        from labsync.snapshot import FileEntry

        files = {}
        for file in sorted(p for p in self.path.rglob("*") if p.is_file()):
            data, path = file.read_bytes(), file.relative_to(self.path).as_posix()
            entry = FileEntry(
                path, hashlib.sha256(data).hexdigest(), len(data), bool(file.stat().st_mode & 0o100)
            )
            known = self.records.get(path) == entry.sha256
            files[path] = Found(entry, "recorded" if known else "changed")
        return Inventory(files, exists=self.path.exists())

    def source(self, path: str) -> Path:
        return self.path / path

    def begin(self) -> None:
        self.finished = None

    def publish(self, entry: FileEntry, staged: Path, replace: Replace) -> None:
        if fault := self.publish_faults.get(entry.path):
            raise fault
        target = self.path / entry.path
        with self._mutex:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                self._clear(entry.path, target, replace)
            staged.chmod(0o755 if entry.executable else 0o644)
            os.replace(staged, target)
            self.records[entry.path] = entry.sha256
            self.published.append(entry.path)

    def _clear(self, path: str, target: Path, replace: Replace) -> None:
        known = self.records.get(path) == hashlib.sha256(target.read_bytes()).hexdigest()
        if replace == "nothing" or (replace == "recorded" and not known):
            raise ConflictError(f"`{path}` is in the way", path=path)
        if replace == "aside":
            kept = self.aside / path
            kept.parent.mkdir(parents=True, exist_ok=True)
            os.replace(target, kept)

    def finish(self, snapshot: Snapshot) -> None:
        self.finished = snapshot
        for entry in snapshot:
            if (self.path / entry.path).exists():
                self.records[entry.path] = entry.sha256
