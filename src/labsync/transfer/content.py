"""Contents to store: each proves its bytes by raising instead of ending."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections import deque
from typing import TYPE_CHECKING

from labsync.errors import ChangedError, IntegrityError, LabsyncError, NotFoundError, UnavailableError
from labsync.names import escape
from labsync.places import NoRangesError
from labsync.transfer.fetch import Givers, expect_no_less, expect_no_more
from labsync.transfer.supply import ELSEWHERE, Patience, most_telling
from labsync.transfer.verify import unreadable, verify

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path
    from typing import BinaryIO

    from labsync.names import ArtifactName
    from labsync.places import Blocks, Place, Running
    from labsync.snapshot import FileEntry
    from labsync.transfer.run import Run
    from labsync.transfer.supply import Supply


class FileContent:
    """A file on the disk that should be `entry`; a ChangedError instead of an end when it is not, or moved.

    The descriptor and the path are compared before and after by device, inode, size, mtime and ctime:
    a writer that is quick enough to leave the bytes alone is noticed all the same. A ctime that moved
    with the number of links is none: a trainer that removes one name of the file writes nothing.
    """

    def __init__(self, path: Path, entry: FileEntry) -> None:
        self._path = path
        self._entry = entry
        self.running: Running | None = None

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self._entry.size

    @property
    def sha256(self) -> str:
        """The digest that the bytes must have."""
        return self._entry.sha256

    @property
    def file(self) -> Path:
        """The file."""
        return self._path

    def blocks(self, size: int) -> Generator[bytes, None, None]:
        """Yield all bytes in order; raises UnreadableError where the file cannot be read."""
        try:
            file = self._path.open("rb", buffering=0)
        except FileNotFoundError as error:
            raise self._changed("disappeared") from error
        except OSError as error:
            raise unreadable(self._path, error) from error
        with file:
            before = os.fstat(file.fileno())
            if before.st_size != self._entry.size:
                raise self._changed("changed")
            self.running = digest = hashlib.sha256()
            left = self._entry.size
            while left:
                block = self._read(file, min(size, left))
                digest.update(block)
                left -= len(block)
                yield block
            if not self._is_still(file, before) or digest.hexdigest() != self._entry.sha256:
                raise self._changed("changed")

    def _read(self, file: io.FileIO, size: int) -> bytes:
        """Return the next block, all of it: a file that has become shorter is noticed here."""
        block = b""
        while len(block) < size:
            try:
                more = file.read(size - len(block))
            except OSError as error:
                raise unreadable(self._path, error) from error
            if not more:
                raise self._changed("became shorter")
            block = block + more if block else more
        return block

    def _is_still(self, file: BinaryIO | io.FileIO, before: os.stat_result) -> bool:
        try:
            now = (os.fstat(file.fileno()), self._path.stat())
        except OSError:
            return False
        return all(_is_like(stat, before) for stat in now)

    def _changed(self, how: str) -> ChangedError:
        return ChangedError(
            f"`{escape(str(self._path))}` {how} while it was read",
            path=self._entry.path,
            hint="run the same command again when nothing writes to it",
        )


def _is_like(stat: os.stat_result, before: os.stat_result) -> bool:
    same = all(getattr(stat, name) == getattr(before, name) for name in _FINGERPRINT)
    return same and (stat.st_ctime_ns == before.st_ctime_ns or stat.st_nlink != before.st_nlink)


_FINGERPRINT = ("st_dev", "st_ino", "st_size", "st_mtime_ns")


class StreamContent:
    """A content on its way from its places to where it is stored, without a copy on the disk.

    What one place began another one continues at the byte reached. While a place is unavailable the
    thread waits: whoever stores the content asks for the next block and for nothing else.
    IntegrityError instead of an end when the digest is wrong; `failure` is what reading raised last,
    to tell it from the errors of who stores it; `lacking` are the places that had no or wrong bytes.
    """

    file = running = None

    def __init__(self, run: Run, artifact: ArtifactName, entry: FileEntry, places: list[Supply]) -> None:
        self._run = run
        self._artifact = artifact
        self._entry = entry
        self._places = places
        self._givers = Givers(run)
        self.lacking: set[Place] = set()
        self.failure: LabsyncError | None = None

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self._entry.size

    @property
    def sha256(self) -> str:
        """The digest that the bytes must have."""
        return self._entry.sha256

    @property
    def giver(self) -> Place | None:
        """The place that every byte came from, None when there were several."""
        return self._givers.only

    def ask_another(self) -> bool:
        """Ask who gave wrong bytes last, from now on, and no more what was fetched before.

        False when nobody is left to ask.
        """
        if self.giver:
            self.lacking.add(self.giver)
        left = [place for place in self._places if not place.fetched]
        self._places = sorted(left, key=lambda place: place.place in self.lacking)
        return bool(self._places)

    def blocks(self, size: int) -> Generator[bytes, None, None]:
        """Yield all bytes in order; those of an earlier call travel again."""
        self._givers.rewind()
        digest, buffer = hashlib.sha256(), io.BytesIO()
        try:
            with contextlib.closing(self._received()) as received:
                for block in received:
                    digest.update(block)
                    rest = memoryview(block)
                    while rest:
                        rest = rest[buffer.write(rest[: size - buffer.tell()]) :]
                        if buffer.tell() == size:
                            yield buffer.getvalue()  # hands its memory over, without a copy
                            buffer = io.BytesIO()
            verify(self._entry, digest.hexdigest())
        except LabsyncError as error:
            self.failure = error
            raise
        if buffer.tell():
            yield buffer.getvalue()

    def _received(self) -> Blocks:
        """Yield the blocks of all places as one stream."""
        queue, errors, at = deque(self._places), list[LabsyncError](), 0
        while queue:
            supply = queue.popleft()
            self._givers.ask(supply.place)
            try:
                with contextlib.closing(self._persist(supply, at)) as blocks:
                    for block in blocks:
                        at += len(block)
                        yield block
            except (*ELSEWHERE, IntegrityError) as error:
                if isinstance(error, NotFoundError | IntegrityError):
                    self.lacking.add(supply.place)
                errors.append(error)
            else:
                return
        raise most_telling(errors)

    def _persist(self, supply: Supply, at: int) -> Blocks:
        """Yield the blocks of one place from the byte `at`, however often it breaks off."""
        patience = Patience(self._run, self._artifact, supply.place, supply.reader)
        while True:
            while delay := patience.delay():
                self._run.pause(delay)
            begin = at
            try:
                with patience.asking(), contextlib.closing(self._from(supply, at)) as blocks:
                    for block in blocks:
                        at += len(block)
                        yield block
                    expect_no_less(self._entry, at, self._entry.size)
                return
            except UnavailableError as error:
                delay = patience.after(error, at - begin)
            self._run.pause(delay)

    def _from(self, supply: Supply, at: int) -> Blocks:
        """Yield what comes behind the byte `at`, also from a place that can only begin at the first."""
        if at == self._entry.size and at:
            return
        try:
            yield from self._read(supply, at, 0)
        except NoRangesError:
            yield from self._read(supply, 0, at)
            self._run.moved(supply.place, -at)

    def _read(self, supply: Supply, start: int, skip: int) -> Blocks:
        at = start
        with contextlib.closing(supply.read(self._entry, start, self._entry.size)) as blocks:
            for block in blocks:
                at += len(block)
                expect_no_more(self._entry, at)
                self._run.moved(supply.place, len(block))
                new = min(len(block), at - skip)
                if new > 0:
                    self._givers.add(supply.place, new)
                    yield memoryview(block)[len(block) - new :]
