"""Carries one route, step by step: fetch, verify, write to the mirror, publish on the disk.

A route is a task of `transfer.schedule`: it yields the seconds it has to wait. A failed step ends
the route and is written into the ledger; the run goes on.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from labsync import atomic
from labsync.disk.base import Staged
from labsync.errors import ChangedError, DiskError, IntegrityError, InterruptedRunError, LabsyncError
from labsync.events import FileDone, FileStarted
from labsync.transfer.content import FileContent, StreamContent
from labsync.transfer.download import Download
from labsync.transfer.fetch import SmallArrival, fetch
from labsync.transfer.parts import claim, reopen, scratch
from labsync.transfer.schedule import PARKED
from labsync.transfer.sent import Sent
from labsync.transfer.supply import Patience, persist, supplies
from labsync.transfer.verify import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from labsync.disk.base import Home
    from labsync.places import Content
    from labsync.plan import Route, Source
    from labsync.transfer.run import Run
    from labsync.transfer.schedule import Task
    from labsync.transfer.supply import Supply
    from labsync.transfer.work import Work

SMALL = 1 << 20
"""Bytes up to which a content is read whole into memory and has no part file that could be continued."""


class Carrier:
    """Carries one route; `hold` parks it once its bytes are staged, before anything is published."""

    def __init__(self, run: Run, route: Route, work: Work, *, hold: bool) -> None:
        self._run = run
        self._route = route
        self._work = work
        self._hold = hold
        self._sent: Sent | None = None

    def carry(self) -> Task:
        """Take all steps; deliberate failures end in the ledger, bugs and interruption are raised."""
        failed = False
        self._run.observer(FileStarted(self._route.artifact, self._route.entry.path))
        try:
            yield from self._steps()
        except InterruptedRunError:
            raise
        except LabsyncError as error:
            failed = True
            self._fail(error)
        if not failed and not self._run.ledger.has_failed(self._route):
            self._run.budget.give_back()
            self._run.ledger.finish(self._route)
            entry = self._route.entry
            self._run.observer(FileDone(self._route.artifact, entry.path, entry.size))

    def _steps(self) -> Task:
        places = supplies(self._route, self._work)
        if not self._route.publications:
            yield from self._send(places)
            return
        yield from self._until_free(places[0])
        device = self._run.stages.enter(self._home.stage)
        with self._run.ledger.room(device):
            if self._route.entry.size <= SMALL:
                yield from self._stage_small(places)
            elif self._hold:
                yield from self._stage_held(places)
            else:
                yield from self._stage(places)

    # To the mirror alone.

    def _send(self, places: list[Supply]) -> Task:
        """Write the user's own file, or straight from the places without a copy on the disk."""
        if places[0].place == "disk":
            try:
                file = self._home.source(places[0].ref.path)
                yield from self._write(FileContent(file, self._route.entry))
                return
            except (ChangedError, UnreadableError):
                if len(places) == 1:
                    raise
                places = places[1:]
        yield from self._stream(places)

    def _stream(self, places: list[Supply]) -> Task:
        """Write what the places give; wrong bytes come once more, from another place if there is one."""
        content = StreamContent(self._run, self._route.artifact, self._route.entry, places)
        try:
            yield from self._write(content, content)
        except IntegrityError as error:
            if error is not content.failure:
                raise
            for supply in places:
                supply.consume()
            if not content.ask_another():
                raise
            yield from self._write(content, content)
        for supply in places:
            supply.consume()
        if "mirror" in content.lacking and content.giver != "mirror":
            self._run.ledger.damaged(self._route)

    def _write(self, content: Content, stream: StreamContent | None = None) -> Task:
        """Write to the mirror; a failure of `stream` itself is no reason to ask the mirror again."""
        mirror, route, journal = self._work.mirror, self._route, self._work.journal
        assert mirror is not None
        self._sent = sent = self._sent or Sent(self._run, route.key, route.entry.size, journal)
        failed: list[LabsyncError] = []

        def attempt() -> None:
            sent.rewind()
            try:
                with self._run.ledger.room(id(mirror)):
                    mirror.write(route.key, content, sent.advance, journal)
            except LabsyncError as error:
                if not stream or error is not stream.failure:
                    raise
                failed.append(error)

        patience = Patience(self._run, route.artifact, "mirror", mirror)
        try:
            yield from persist(patience, attempt)
        except IntegrityError:  # the server saw other bytes than were sent: once more
            yield from persist(patience, attempt)
        if failed:
            raise failed[0]
        self._run.ledger.written(route)
        self._work.on_written(route)

    # To the disk, and to the mirror as well.

    def _until_free(self, place: Supply) -> Task:
        """Wait for the place before a part file is opened: many routes may wait at once."""
        while delay := self._run.limiter.delay(id(place.reader)):
            yield delay

    def _stage_small(self, places: list[Supply]) -> Task:
        run, entry, folder = self._run, self._route.entry, self._home.stage
        arrival = SmallArrival(run, self._route.artifact, entry)
        yield from fetch(run, self._route, places, arrival)
        with scratch(folder, entry.sha256) as path:
            with atomic.disk_errors(path):
                path.write_bytes(arrival.data)
            del arrival
            yield from self._deliver(path)

    def _stage_held(self, places: list[Supply]) -> Task:
        """Stage into a file of its own name: a parked route keeps no descriptor open."""
        run, entry, folder = self._run, self._route.entry, self._home.stage
        with scratch(folder, entry.sha256) as path:
            with reopen(path, entry.size) as part:
                yield from fetch(run, self._route, places, Download(run, self._route.artifact, entry, part))
            yield from self._deliver(path)

    def _stage(self, places: list[Supply]) -> Task:
        run, entry, folder = self._run, self._route.entry, self._home.stage
        with claim(folder, entry.sha256, entry.size) as part:
            yield from fetch(run, self._route, places, Download(run, self._route.artifact, entry, part))
            yield from self._deliver(part.path)

    def _deliver(self, staged: Path) -> Task:
        """Bring proven bytes to the mirror and to the disk."""
        if self._hold:
            yield PARKED
        if self._route.key:
            try:
                yield from self._write(FileContent(staged, self._route.entry))
            except InterruptedRunError:
                raise
            except LabsyncError as error:  # the disk still gets what the mirror did not take
                self._fail(error)
        self._publish(staged)

    def _publish(self, staged: Path) -> None:
        """Make the bytes visible under every name; the last gets the file itself, the others copies."""
        *others, last = self._route.publications
        with contextlib.ExitStack() as stack:
            copies = [stack.enter_context(scratch(staged.parent, p.entry.sha256)) for p in others]
            for copy in copies:
                self._run.check()
                with atomic.disk_errors(copy):
                    atomic.copy(staged, copy)
            pairs = zip((*others, last), (*copies, staged), strict=True)
            self._make_visible([Staged(p.entry, path, p.replace) for p, path in pairs])

    def _make_visible(self, files: Sequence[Staged]) -> None:
        self._run.check()
        failures = zip(files, self._home.publish(files), strict=True)
        errors = [(file, error) for file, error in failures if error is not None]
        for file, error in errors:
            error.path = error.path or file.entry.path
        full = next((error for _, error in errors if isinstance(error, DiskError)), None)
        for _, error in errors:
            if error is not full:
                self._fail(error)
        if full:  # the caller takes note that this disk is full
            raise full

    def _fail(self, error: LabsyncError) -> None:
        error.artifact = error.artifact or self._route.artifact
        error.path = error.path or self._route.entry.path
        self._run.ledger.fail(self._route, error)

    @property
    def _home(self) -> Home:
        assert self._work.home is not None
        return self._work.home


def is_direct(route: Route, sources: Sequence[Source]) -> bool:
    """Say whether the mirror reads the user's own file, without a staged copy."""
    return not route.publications and bool(route.key) and sources[0].place == "disk"
