"""Carries one route, step by step: fetch, verify, write to the mirror, publish on the disk.

A route is a task of `transfer.schedule`: it yields the seconds it has to wait. A failed step ends
the route and is written into the ledger; the run goes on.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from labsync import atomic
from labsync.errors import (
    ChangedError,
    ConflictError,
    IntegrityError,
    InterruptedRunError,
    LabsyncError,
    NotAllowedError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from labsync.events import BytesMoved, FileDone, Observer
from labsync.names import escape
from labsync.transfer.parts import Part, Stages, claim
from labsync.transfer.retry import ATTEMPTS, Limiter, RetryBudget, backoff
from labsync.transfer.schedule import PARKED
from labsync.transfer.verify import UnreadableError, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from labsync.disk.base import Home
    from labsync.places import Place, Reader
    from labsync.plan import Publication, Route, Source
    from labsync.transfer.ledger import Ledger
    from labsync.transfer.work import Work

    Steps: TypeAlias = Generator[float, None, None]

_ELSEWHERE = (UnavailableError, NotFoundError, NotAllowedError, ChangedError, UnreadableError)
_TELLING: tuple[type[LabsyncError], ...] = (
    IntegrityError, UnavailableError, NotAllowedError, UnreadableError, ChangedError, NotFoundError,
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What all routes of one execution share; `check` raises InterruptedRunError when it must stop."""

    ledger: Ledger
    stages: Stages
    observer: Observer
    budget: RetryBudget
    limiter: Limiter
    roll: Callable[[], float]
    check: Callable[[], None]


class Carrier:
    """Carries one route; `hold` parks it once its bytes are staged, before anything is published."""

    def __init__(self, run: Run, route: Route, work: Work, *, hold: bool) -> None:
        self._run = run
        self._route = route
        self._work = work
        self._hold = hold

    def carry(self) -> Steps:
        """Take all steps; deliberate failures end in the ledger, bugs and interruption are raised."""
        failed = False
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

    def _steps(self) -> Steps:
        sources = [source for source in self._route.sources if self._work.reader(source.place)]
        if not sources:
            raise UnavailableError(
                f"no place that holds `{escape(self._route.entry.path)}` may be asked",
                hint="run it again without `--offline`",
            )
        if is_direct(self._route, sources):
            try:
                yield from self._write(self._home.source(sources[0].ref.path))
                return
            except (ChangedError, UnreadableError):
                if len(sources) == 1:
                    raise
                sources = sources[1:]
        yield from self._until_free(sources[0])
        yield from self._stage(sources)

    def _stage(self, sources: list[Source]) -> Steps:
        folder = self._home.stage if self._route.publications else self._work.stage
        device = self._run.stages.enter(folder)
        sha256 = self._route.entry.sha256
        with self._run.ledger.room(device), claim(folder, sha256, alone=self._hold) as part:
            yield from self._fetch(sources, part)
            if self._hold:
                yield PARKED
            if self._route.key:
                try:
                    yield from self._write(part.path)
                except InterruptedRunError:
                    raise
                except LabsyncError as error:  # the disk still gets what the mirror did not take
                    self._fail(error)
            if self._route.publications:
                self._publish(part)

    def _fetch(self, sources: list[Source], part: Part) -> Steps:
        """Bring the verified bytes into the part, from the first place that gives them.

        A wrong digest is fetched once more as a whole, from another place if there is one.
        """
        queue, errors, mismatched = deque(sources), list[LabsyncError](), False
        wrong: set[Place] = set()
        while queue:
            source = queue.popleft()
            try:
                yield from self._read(source, part)
                verify(part.path, self._route.entry, self._run.check)
                if "mirror" in wrong - {source.place}:
                    self._run.ledger.damaged(self._route)
                return
            except IntegrityError as error:
                wrong.add(source.place)
                self._rewind(source.place, part)
                errors.append(_changed(error) if source.place == "disk" else error)
                if source.place == "disk":
                    continue
                if mismatched:
                    raise
                mismatched = True
                queue.append(source)
            except _ELSEWHERE as error:
                if isinstance(error, NotFoundError):
                    wrong.add(source.place)
                errors.append(error)
        raise min(errors, key=_rank)

    def _read(self, source: Source, part: Part) -> Steps:
        reader = self._work.reader(source.place)
        assert reader is not None
        entry, ledger = self._route.entry, self._run.ledger

        def advance(count: int) -> None:
            part.arrived += count
            ledger.moved(source.place, count)
            self._run.observer(BytesMoved(count))
            self._run.check()

        def attempt() -> None:
            if not 0 < part.arrived < entry.size:
                self._rewind(source.place, part)
            reader.read(source.ref, entry, part.path, part.arrived, advance)

        yield from self._persist(source.place, reader, attempt)

    def _write(self, path: Path) -> Steps:
        mirror, entry, ledger = self._work.mirror, self._route.entry, self._run.ledger
        assert mirror is not None
        sent = 0

        def advance(count: int) -> None:
            nonlocal sent
            sent += count
            ledger.moved("to_mirror", count)
            self._run.observer(BytesMoved(count))
            self._run.check()

        def rewind() -> None:
            nonlocal sent
            if sent:
                ledger.moved("to_mirror", -sent)
                self._run.observer(BytesMoved(-sent))
            sent = 0

        def attempt() -> None:
            rewind()
            _expect_size(path, entry.size)
            with ledger.room(id(mirror)):
                try:
                    mirror.write(self._route.key, entry, path, advance)
                except IntegrityError:  # the server saw other bytes than were sent: once more
                    rewind()
                    mirror.write(self._route.key, entry, path, advance)

        yield from self._persist("mirror", mirror, attempt)
        ledger.written(self._route)
        self._work.on_written(self._route)

    def _persist(self, place: Place, reader: Reader, attempt: Callable[[], None]) -> Steps:
        """Make the attempt, again after a wait when the place is unavailable, as the budget allows."""
        ledger, artifact, at = self._run.ledger, self._route.artifact, id(reader)
        for number in range(ATTEMPTS):
            ledger.check_up(artifact, place)
            while delay := self._run.limiter.delay(at):
                yield delay
            self._run.check()
            try:
                attempt()
                return
            except UnavailableError as error:
                delay = error.retry_after + backoff(number, self._run.roll())
                if number == ATTEMPTS - 1:
                    raise
                if not self._run.budget.take(delay):
                    ledger.take_down(artifact, place, error)
                    raise
                if error.retry_after:
                    self._run.limiter.postpone(at, error.retry_after)
            yield delay

    def _until_free(self, source: Source) -> Steps:
        """Wait for the place before a part file is opened: many routes may wait at once."""
        while delay := self._run.limiter.delay(id(self._work.reader(source.place))):
            yield delay

    def _publish(self, part: Part) -> None:
        """Make the bytes visible under every name; each but the last gets a copy, the last the part."""
        *others, last = self._route.publications
        for publication in others:
            with claim(part.path.parent, publication.entry.sha256, alone=True) as copy:
                with atomic.disk_errors(copy.path):
                    atomic.copy(part.path, copy.path)
                self._make_visible(publication, copy)
        with atomic.disk_errors(part.path):
            atomic.fsync_file(part.path)
        self._make_visible(last, part)

    def _make_visible(self, publication: Publication, part: Part) -> None:
        self._run.check()
        try:
            self._home.publish(publication.entry, part.path, publication.replace)
        except (ConflictError, RefusedError) as error:  # it stands in the way of this name only
            error.path = error.path or publication.entry.path
            self._fail(error)

    def _rewind(self, place: Place, part: Part) -> None:
        if part.arrived:
            self._run.ledger.moved(place, -part.arrived)
            self._run.observer(BytesMoved(-part.arrived))
        part.arrived = 0

    def _fail(self, error: LabsyncError) -> None:
        error.artifact = error.artifact or self._route.artifact
        error.path = error.path or self._route.entry.path
        self._run.ledger.fail(self._route, error)

    @property
    def _home(self) -> Home:
        assert self._work.home is not None
        return self._work.home


def is_direct(route: Route, sources: list[Source] | tuple[Source, ...]) -> bool:
    """Say whether the mirror reads the user's own file, without a staged copy."""
    return not route.publications and bool(route.key) and sources[0].place == "disk"


def _expect_size(path: Path, size: int) -> None:
    """Raise ChangedError before a byte is sent when the file to write cannot be the planned one."""
    try:
        found = path.stat().st_size
    except FileNotFoundError as error:
        raise ChangedError(f"`{escape(str(path))}` disappeared before it was written") from error
    except OSError as error:
        raise UnreadableError(f"`{escape(str(path))}` cannot be read: {error.strerror}") from error
    if found != size:
        raise ChangedError(f"`{escape(str(path))}` changed before it was written")


def _changed(error: IntegrityError) -> ChangedError:
    return ChangedError(
        f"`{escape(error.path)}` changed on the disk while it was being read",
        hint="run the same command again",
        safe="nothing was replaced",
    )


def _rank(error: LabsyncError) -> int:
    return next(rank for rank, kind in enumerate(_TELLING) if isinstance(error, kind))
