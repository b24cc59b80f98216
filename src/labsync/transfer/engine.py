"""The transfer engine: carries the routes of plans out, many at a time, and says what became of each."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsync.errors import InterruptedRunError, LabsyncError
from labsync.events import Observer, ignore
from labsync.transfer.carry import Carrier, Run, is_direct
from labsync.transfer.ledger import Ledger
from labsync.transfer.parts import Stages
from labsync.transfer.retry import Clock, Limiter, RetryBudget, SystemClock, roll
from labsync.transfer.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from labsync.names import ArtifactName
    from labsync.plan import Route
    from labsync.report import Transferred
    from labsync.transfer.schedule import Task
    from labsync.transfer.work import Work

JOBS = 8


@dataclass(frozen=True, slots=True)
class Failure:
    """A step of a route that failed; a route whose mirror and disk both failed has two."""

    route: Route
    error: LabsyncError


@dataclass(frozen=True)
class Outcome:
    """What became of the routes, in their order.

    `done`: every step of the route succeeded. `written`: the route's bytes are in the mirror under
    its key, whatever became of the disk. `damaged`: the mirror had no or other bytes where it was
    said to have the route's, and another place gave them. Each route that is not in `done` has at
    least one failure.
    """

    done: tuple[Route, ...]
    written: tuple[Route, ...]
    failures: tuple[Failure, ...]
    transferred: Transferred
    damaged: tuple[Route, ...] = ()

    def mirrored(self, artifact: ArtifactName) -> dict[str, str]:
        """Return the keys that were written for an artifact, by SHA-256."""
        return {route.entry.sha256: route.key for route in self.written if route.artifact == artifact}

    def errors(self, artifact: ArtifactName) -> tuple[LabsyncError, ...]:
        """Return the errors of an artifact's routes."""
        return tuple(failure.error for failure in self.failures if failure.route.artifact == artifact)


class Engine:
    """Carries routes out with at most `jobs` of them at work; one engine serves one run.

    A route that waits for a place holds no thread. `budget` bounds the retries of the whole run.
    Setting `stop` ends it: no new route begins, those at work stop at their next block.
    """

    def __init__(
        self,
        *,
        jobs: int = JOBS,
        observer: Observer = ignore,
        budget: RetryBudget | None = None,
        clock: Clock | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._jobs = jobs
        self._observer = observer
        self._clock = clock or SystemClock()
        self._budget = budget or RetryBudget(now=self._clock.now)
        self._limiter = Limiter(self._clock.now)
        self._stop = stop or threading.Event()

    def execute(self, routes: Sequence[Route], work: Mapping[ArtifactName, Work]) -> Outcome:
        """Carry out the routes of any number of artifacts; `work` says where each reads and writes.

        Every byte is checked against its route's size and SHA-256 before it is written to the
        mirror or published on the disk. Sources are tried in order; a route that fails does not
        stop the others. The mirror is written before the disk, and a failure there does not keep
        the disk from getting its file. Nothing of a failed route stays in the stage.

        Raises InterruptedRunError once all threads have ended when the run was stopped or got
        Ctrl-C; what was finished stays. Any exception that is not a LabsyncError is a bug and is
        raised in the same way.
        """
        ledger, stages, halt = Ledger(), Stages(), threading.Event()

        def halted() -> bool:
            return halt.is_set() or self._stop.is_set()

        def check() -> None:
            if halted():
                raise InterruptedRunError("the run was stopped")

        run = Run(ledger, stages, self._observer, self._budget, self._limiter, roll, check)
        schedule = Schedule(self._jobs, self._clock, halted, halt.set)
        try:
            self._carry(run, routes, work, schedule)
        except KeyboardInterrupt as error:
            raise InterruptedRunError("the run was interrupted") from error
        finally:
            stages.close()
        return _outcome(routes, ledger)

    @staticmethod
    def _carry(
        run: Run, routes: Sequence[Route], work: Mapping[ArtifactName, Work], schedule: Schedule
    ) -> None:
        held = overtaken(routes)

        def tasks(*, hold: bool) -> Iterator[Task]:
            for route in routes:
                if (id(route) in held) == hold:
                    yield Carrier(run, route, work[route.artifact], hold=hold).carry()

        parked = schedule.run(tasks(hold=True)) if held else []
        try:
            schedule.run(itertools.chain(parked, tasks(hold=False)))
        finally:
            for task in parked:
                task.close()


def overtaken(routes: Sequence[Route]) -> set[int]:
    """Return the `id` of each route that reads a file on the disk which another route replaces.

    Two files that swap their contents are the simplest case. Such routes are staged, or written
    to the mirror, before anything is published, so that the content is never lost in between.
    """
    replaced: Counter[tuple[str, str]] = Counter()
    own: dict[int, set[str]] = {}
    for route in routes:
        own[id(route)] = {p.entry.path for p in route.publications if p.replace != "nothing"}
        replaced.update((route.artifact, path) for path in own[id(route)])
    return {
        id(route)
        for route in routes
        for source in route.sources[:1]
        if source.place == "disk"
        and source.ref.path not in own[id(route)]
        and replaced[route.artifact, source.ref.path]
    }


def workload(routes: Sequence[Route]) -> tuple[int, int]:
    """Return the files and the bytes that `BytesMoved` events will sum up to when nothing fails.

    Bytes that go through the stage and on to the mirror count twice, for they travel twice.
    """
    moved = (route.entry.size * (bool(route.key) + (not is_direct(route, route.sources))) for route in routes)
    return len(routes), sum(moved)


def _outcome(routes: Sequence[Route], ledger: Ledger) -> Outcome:
    return Outcome(
        tuple(route for route in routes if ledger.is_done(route)),
        tuple(route for route in routes if ledger.is_written(route)),
        tuple(Failure(route, error) for route in routes for error in ledger.errors_of(route)),
        ledger.transferred(),
        tuple(route for route in routes if ledger.is_damaged(route)),
    )
