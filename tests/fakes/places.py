"""An origin, a mirror and a home that are small, honest, and fail exactly when told to."""

from __future__ import annotations

import collections
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from labsync.errors import ConflictError, LabsyncError, NotFoundError
from labsync.places import Found, Inventory, NoRangesError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from labsync.disk.base import Staged
    from labsync.places import Advance, Blocks, Content, Ref, Replace, UploadJournal
    from labsync.snapshot import FileEntry, Snapshot

Fault: TypeAlias = Callable[["Reading"], Iterator[bytes]]


class Reading:
    """One call of `read`, as a fault sees it: it may give blocks, raise, or change what is given."""

    def __init__(self, data: bytes, start: int, stop: int | None) -> None:
        self.data = data
        self.at = start
        self.stop = len(data) if stop is None else stop
        self.is_whole = not start and stop is None
        self.block = 4 if len(data) < 1024 else 1 << 16

    def give(self, end: int | None = None) -> Iterator[bytes]:
        """Give the bytes up to `end`, at most those asked for, in small blocks."""
        end = self.stop if end is None else min(end, self.stop)
        while self.at < end:
            block = self.data[self.at : min(end, self.at + self.block)]
            self.at += len(block)
            yield block


def raises(error: BaseException, after: int = 0) -> Fault:
    """Raise the error once the bytes up to `after` have arrived."""

    def fault(reading: Reading) -> Iterator[bytes]:
        yield from reading.give(after)
        raise error

    return fault


def wrong_bytes(reading: Reading) -> Iterator[bytes]:
    """Give as many bytes as promised, the last of the range flipped."""
    last = reading.stop - 1
    reading.data = reading.data[:last] + bytes([reading.data[last] ^ 1]) + reading.data[last + 1 :]
    return reading.give()


def too_short(reading: Reading) -> Iterator[bytes]:
    """End early, as a reader that forgot to look would."""
    return reading.give(reading.stop - 1)


def too_long(reading: Reading) -> Iterator[bytes]:
    """Go on behind the end."""
    yield from reading.give()
    yield b"!"


def no_ranges(reading: Reading) -> Iterator[bytes]:
    """Give the whole or nothing."""
    if not reading.is_whole:
        raise NoRangesError("no ranges here")
    return reading.give()


class FakeReader:
    """Serves contents by their SHA-256; `faults` of a content happen once each, in order.

    `always` happens to every reading without another fault.
    """

    def __init__(self, contents: Iterable[bytes] = ()) -> None:
        self.contents: dict[str, bytes] = {}
        self.faults: dict[str, collections.deque[Fault]] = collections.defaultdict(collections.deque)
        self.always: Fault = Reading.give
        self.reads: list[tuple[str, int]] = []
        self.given: collections.Counter[str] = collections.Counter()
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

    def read(self, ref: Ref, entry: FileEntry, start: int = 0, stop: int | None = None) -> Blocks:
        with self._mutex:
            self.reads.append((entry.sha256, start))
            faults = self.faults[entry.sha256]
            fault = faults.popleft() if faults else self.always
        data = self.contents.get(entry.sha256)
        if data is None:
            raise NotFoundError("the place does not have it", path=entry.path)
        for block in fault(Reading(data, start, stop)):
            with self._mutex:
                self.given[entry.sha256] += len(block)
            memory = bytearray(block)
            yield memory
            memory[:] = bytes(len(memory))  # who kept it without a copy has lost it


class FakeMirror(FakeReader):
    """A place to write to as well; `write_faults` are raised one per write, after half of the bytes."""

    def __init__(self, contents: Iterable[bytes] = ()) -> None:
        super().__init__(contents)
        self.keys: dict[str, bytes] = {}
        self.write_faults: collections.deque[Exception] = collections.deque()
        self.writes: list[tuple[str, Path | None]] = []

    def write(self, key: str, content: Content, advance: Advance, journal: UploadJournal) -> None:
        with self._mutex:
            self.writes.append((key, content.file))
            fault = self.write_faults.popleft() if self.write_faults else None
        if fault:
            advance(content.size // 2)
            raise fault
        blocks = []
        for block in content.blocks(7 if content.size < 1024 else 1 << 18):
            advance(len(block))
            blocks.append(block)
        data = b"".join(blocks)
        with self._mutex:
            self.keys[key] = data
            self.contents[hashlib.sha256(data).hexdigest()] = data


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

    def identity(self) -> str | None:
        return None

    def publish(self, files: Sequence[Staged]) -> list[LabsyncError | None]:
        found: list[LabsyncError | None] = []
        for file in files:
            try:
                self._publish(file)
            except LabsyncError as error:
                found.append(error)
            else:
                found.append(None)
        return found

    def _publish(self, file: Staged) -> None:
        entry = file.entry
        if fault := self.publish_faults.get(entry.path):
            raise fault
        target = self.path / entry.path
        with self._mutex:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                self._clear(entry.path, target, file.replace)
            file.path.chmod(0o755 if entry.executable else 0o644)
            os.replace(file.path, target)
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
