"""Carries many small files together, with as little as can be done for each.

What goes well is done here: bytes are read into memory, proven there, staged, and published together.
What does not go well is left to `carry.Carrier`, one file at a time, which knows how to wait, to try
again and to ask another place.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import secrets
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.atomic import disk_errors
from labsync.disk.base import Staged
from labsync.errors import DiskError, IntegrityError, InterruptedRunError, LabsyncError, UnavailableError
from labsync.events import FileDone
from labsync.places import Ref
from labsync.snapshot import FileEntry
from labsync.transfer.carry import Carrier
from labsync.transfer.fetch import expect_no_less
from labsync.transfer.grouping import batches, ref_in, spans
from labsync.transfer.pack import read_small
from labsync.transfer.run import Tally
from labsync.transfer.supply import Patience
from labsync.transfer.verify import verify

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from contextlib import AbstractContextManager
    from typing import TypeAlias

    from labsync.disk.base import Home
    from labsync.places import Buffer, Place, Reader
    from labsync.plan import Route
    from labsync.transfer.grouping import Lying
    from labsync.transfer.run import Run
    from labsync.transfer.schedule import Task
    from labsync.transfer.work import Work

    Given: TypeAlias = Generator[tuple[Route, Buffer], None, None]

__all__ = ["BatchCarrier", "batches"]

UNPUBLISHED = 1 << 20  # bytes that a killed run may lose of each batch at work
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class BytesContent:
    """Bytes in memory that were proven to be what `sha256` says."""

    file = running = None

    def __init__(self, data: bytes, sha256: str) -> None:
        self._data = data
        self.sha256 = sha256

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self._data)

    def blocks(self, size: int) -> Generator[bytes, None, None]:
        """Yield the bytes."""
        if len(self._data) <= size:
            yield from (self._data,) if self._data else ()
            return
        for at in range(0, len(self._data), size):
            yield self._data[at : at + size]


class BatchCarrier:
    """Carries one batch."""

    def __init__(self, run: Run, routes: Sequence[Route], work: Work) -> None:
        self._run = run
        self._work = work
        self._left = deque(routes)
        self._artifact = routes[0].artifact
        place = next(s.place for s in routes[0].sources if work.reader(s.place))
        reader = work.reader(place)
        assert reader is not None
        self._place: Place = place
        self._reader: Reader = reader
        self._asked = [Patience(run, self._artifact, place, reader)] if place != "disk" else []
        if any(route.key for route in routes):
            self._asked.append(Patience(run, self._artifact, "mirror", work.mirror))
        self._tally = Tally(run, place)
        self._to_disk = any(route.publications for route in routes)
        self._stage: Path | None = None
        self._staged: list[tuple[Route, list[Staged]]] = []
        self._numbers = itertools.count(secrets.randbits(32))
        self._unpublished = 0
        self._alone: list[Route] = []

    def carry(self) -> Task:
        """Take all steps of all routes; what fails goes to a `Carrier`, bugs and interruption are raised."""
        try:
            while self._left:
                try:
                    yield from self._wait()
                    self._take()
                except InterruptedRunError:
                    raise
                except LabsyncError:  # what its carrier meets again, if it is not over by then
                    self._alone.append(self._left.popleft())
                self._publish()
                alone, self._alone = self._alone, []
                for route in alone:
                    yield from Carrier(self._run, route, self._work, hold=False).carry()
        finally:
            self._discard()

    def _wait(self) -> Task:
        while delay := self._delay():
            yield delay

    def _delay(self) -> float:
        for patience in self._asked:
            if delay := patience.delay():
                return delay
        return 0.0

    def _take(self) -> None:
        """Deal with one route after the other, and return early where a place wants to be left alone.

        An error is about the first route that is left.
        """
        with self._room(), contextlib.closing(self._contents()) as contents:
            for route, data in contents:
                try:
                    self._deal(route, data)
                except IntegrityError:
                    self._alone.append(route)
                self._left.popleft()
                if self._unpublished >= UNPUBLISHED:
                    self._publish()

    def _room(self) -> AbstractContextManager[None]:
        """Refuse a disk that is full; the stage is entered by the first batch that needs it."""
        if not self._to_disk:
            return contextlib.nullcontext()
        if self._stage is None:
            self._stage = self._home.stage
        return self._run.ledger.room(self._run.stages.enter(self._stage))

    def _deal(self, route: Route, data: Buffer) -> None:
        """Prove the bytes, then write them to the mirror, then stage them."""
        entry, came = route.entry, 0 if self._place == "disk" else len(data)
        if came:
            self._tally.add(came)
        self._run.check()
        try:
            if self._place != "disk":
                expect_no_less(entry, len(data), entry.size)
                verify(entry, hashlib.sha256(data).hexdigest())
            if route.key:
                self._write(route, bytes(data))
            self._staged.append((route, self._stage_files(route, data)))
        except InterruptedRunError:
            raise
        except LabsyncError:
            if came:
                self._tally.flush()
                self._run.moved(self._place, -came)
            raise
        self._unpublished += len(data) if route.publications else 0

    # Reading.

    def _contents(self) -> Given:
        if self._place == "disk":
            return self._from_disk()
        in_packs = ref_in(self._left[0], self._place).offset is not None
        return self._from_packs() if in_packs else self._from_objects()

    def _from_disk(self) -> Given:
        for route in tuple(self._left):
            if self._delay():
                return
            self._run.check()
            yield route, read_small(self._home.source(ref_in(route, "disk").path), route.entry)

    def _from_objects(self) -> Given:
        for route in tuple(self._left):
            if self._delay():
                return
            with self._asking(self._reader):
                blocks = self._reader.read(ref_in(route, self._place), route.entry)
                pieces = [bytes(block) for block in blocks]
            yield route, pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _from_packs(self) -> Given:
        for span in spans(self._left, self._place):
            if self._delay():
                return
            yield from self._from_span(span)

    def _from_span(self, span: list[Lying]) -> Given:
        """Read from the first file to the end of the last one at once, and give each its part."""
        location, at, end = span[0].location, span[0].start, span[-1].stop
        blocks = self._reader.read(Ref(location, offset=at), FileEntry(location, "", end - at))
        waiting, pieces = deque(span), list[bytes]()
        with self._asking(self._reader), contextlib.closing(blocks):
            for block in blocks if end > at else ():
                view, stop = memoryview(block), at + len(block)
                while waiting and waiting[0].stop <= stop:
                    file = waiting.popleft()
                    piece = view[max(file.start - at, 0) : file.stop - at]
                    yield file.route, b"".join((*pieces, piece)) if pieces else piece
                    pieces = []
                if waiting and waiting[0].start < stop:
                    pieces.append(bytes(view[max(waiting[0].start - at, 0) :]))
                at = stop
        for file in waiting:  # empty ones; others are found to be too short
            yield file.route, b""

    @contextlib.contextmanager
    def _asking(self, place: object) -> Iterator[None]:
        """Count the block as a request to the place, and do as it asks when it cannot answer."""
        try:
            with self._run.limiter.asking(id(place)):
                yield
        except UnavailableError as error:
            if error.retry_after:
                self._run.limiter.postpone(id(place), error.retry_after)
            raise

    # Writing.

    def _write(self, route: Route, data: bytes) -> None:
        mirror, sent = self._work.mirror, 0
        assert mirror is not None

        def advance(count: int) -> None:
            nonlocal sent
            sent += count
            self._run.moved("to_mirror", count)

        content = BytesContent(data, route.entry.sha256)
        try:
            with self._run.ledger.room(id(mirror)), self._asking(mirror):
                mirror.write(route.key, content, advance, self._work.journal)
        except LabsyncError:
            if sent:
                self._run.moved("to_mirror", -sent)
            raise
        self._run.ledger.written(route)
        self._work.on_written(route)

    def _stage_files(self, route: Route, data: Buffer) -> list[Staged]:
        files: list[Staged] = []
        try:
            for publication in route.publications:
                entry = publication.entry
                files.append(Staged(entry, self._stage_file(entry, data), publication.replace))
        except LabsyncError:
            _remove(files)
            raise
        return files

    def _stage_file(self, entry: FileEntry, data: Buffer) -> Path:
        path = Path(f"{self._stage}/{entry.sha256}.{next(self._numbers) & 0xFFFFFFFF:08x}.part")
        with disk_errors(path):
            fd = os.open(path, _FLAGS, 0o755 if entry.executable else 0o644)
            try:
                rest = data
                while (written := os.write(fd, rest)) < len(rest):
                    rest = memoryview(rest)[written:]
            except OSError:
                path.unlink()
                raise
            finally:
                os.close(fd)
        return path

    def _publish(self) -> None:
        """Publish what is staged; what stands in the way of a file is told, and not tried again."""
        self._tally.flush()
        kept, self._staged, self._unpublished = self._staged, [], 0
        files = [file for _, staged in kept for file in staged]
        errors = iter(self._home.publish(files) if files else ())
        for route, staged in kept:
            failed = [(file, error) for file, error in zip(staged, errors, strict=False) if error]
            for file, error in failed:
                error.artifact = error.artifact or route.artifact
                error.path = error.path or file.entry.path
                self._run.ledger.fail(route, error)
                self._note_full(error)
                _remove([file])
            if not failed:
                self._run.budget.give_back()
                self._run.ledger.finish(route)
                self._run.observer(FileDone(route.artifact, route.entry.path, route.entry.size))

    def _note_full(self, error: LabsyncError) -> None:
        """Let nobody begin on a disk that is full."""
        if isinstance(error, DiskError):
            with contextlib.suppress(DiskError), self._room():
                raise error

    def _discard(self) -> None:
        for _, files in self._staged:
            _remove(files)

    @property
    def _home(self) -> Home:
        assert self._work.home is not None
        return self._work.home


def _remove(files: Sequence[Staged]) -> None:
    for file in files:
        with contextlib.suppress(OSError):
            file.path.unlink(missing_ok=True)
