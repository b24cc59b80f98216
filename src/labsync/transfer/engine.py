"""The transfer engine: carries the routes of plans out, many at a time, and says what became of each."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsync.errors import InterruptedRunError, LabsyncError
from labsync.events import Observer, ignore
from labsync.transfer.batch import BatchCarrier, batches
from labsync.transfer.carry import SMALL, Carrier, is_direct
from labsync.transfer.ledger import Ledger
from labsync.transfer.pace import Pace
from labsync.transfer.pack import PackCarrier
from labsync.transfer.parts import Stages, arrived
from labsync.transfer.retry import Clock, Limiter, RetryBudget, SystemClock, roll
from labsync.transfer.run import Run
from labsync.transfer.schedule import Schedule
from labsync.transfer.sent import stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from labsync.events import Event
    from labsync.names import ArtifactName
    from labsync.plan import Pack, Route
    from labsync.report import Transferred
    from labsync.transfer.schedule import Task
    from labsync.transfer.work import Work

JOBS = 8
PACKS_AT_ONCE = 3  # each goes out in several parts at once, and keeps one more in memory
NOWHERE: Mapping[ArtifactName, Work] = {}


@dataclass(frozen=True, slots=True)
class Failure:
    """A step of a route or a pack that failed; a route whose mirror and disk both failed has two."""

    item: Route | Pack
    error: LabsyncError


@dataclass(frozen=True)
class Outcome:
    """What became of the routes and the packs, in their order.

    `done`: every step of the route succeeded. `written`: the route's bytes are in the mirror under
    its key, whatever became of the disk. `packed`: the pack is in the mirror. `damaged`: the mirror
    had no or other bytes where it was said to have the route's, and another place gave them. Each
    route that is not in `done` and each pack that is not in `packed` has at least one failure.
    """

    done: tuple[Route, ...]
    written: tuple[Route, ...]
    failures: tuple[Failure, ...]
    transferred: Transferred
    damaged: tuple[Route, ...] = ()
    packed: tuple[Pack, ...] = ()

    def mirrored(self, artifact: ArtifactName) -> dict[str, str]:
        """Return the keys that were written for an artifact, by SHA-256."""
        return {route.entry.sha256: route.key for route in self.written if route.artifact == artifact}

    def errors(self, artifact: ArtifactName) -> tuple[LabsyncError, ...]:
        """Return the errors of an artifact's routes and packs."""
        return tuple(failure.error for failure in self.failures if failure.item.artifact == artifact)


class Engine:
    """Carries routes out with at most `jobs` connections and routes at work; one engine serves one run.

    A route that waits for a place holds no thread, but where its bytes stream into the mirror. A large
    file is fetched by several connections while fewer routes than `jobs` are at work. `budget` bounds
    the retries of the whole run, `pace` its bandwidth. Setting `stop` ends it: no new route begins,
    those at work stop at their next block.
    """

    def __init__(
        self,
        *,
        jobs: int = JOBS,
        observer: Observer = ignore,
        budget: RetryBudget | None = None,
        clock: Clock | None = None,
        stop: threading.Event | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._jobs = jobs
        self._observer = observer
        self._clock = clock or SystemClock()
        self._budget = budget or RetryBudget(now=self._clock.now)
        self._limiter = Limiter(self._clock.now)
        self._stop = stop or threading.Event()
        self._pace = pace or Pace()

    def execute(
        self, routes: Sequence[Route], work: Mapping[ArtifactName, Work], packs: Sequence[Pack] = ()
    ) -> Outcome:
        """Carry out the routes, then the packs, of any number of artifacts; `work` says where each
        reads and writes.

        Every byte is checked against its route's size and SHA-256 before it becomes visible in the
        mirror or on the disk. Sources are tried in order, and a large file goes on from the next one
        where one fails; a route that fails does not stop the others. The mirror is written before
        the disk, and a failure there does not keep the disk from getting its file. What a failed,
        stopped or killed route had of a large file stays in the stage, and the next run goes on from
        there; nothing else stays.

        Raises InterruptedRunError when the run was stopped or got Ctrl-C; what was finished stays.
        All threads have ended by then, but for those that hang in a read for longer than
        `schedule.GRACE`: nothing is heard of them any more. Any exception that is not a LabsyncError
        is a bug and is raised in the same way.
        """
        ledger, halt, over = Ledger(), threading.Event(), threading.Event()
        stages = Stages({route.entry.sha256 for route in routes if route.entry.size > SMALL})

        def halted() -> bool:
            return halt.is_set() or self._stop.is_set()

        def check() -> None:
            if halted():
                raise InterruptedRunError("the run was stopped")

        def observe(event: Event) -> None:
            if not over.is_set():
                self._observer(event)

        schedule = Schedule(self._jobs, self._clock, halted, halt.set)
        run = Run(
            ledger,
            stages,
            observe,
            self._budget,
            self._limiter,
            self._pace,
            roll,
            check,
            self._clock,
            schedule,
        )
        try:
            _carry(run, schedule, routes, work, packs)
        except KeyboardInterrupt as error:
            raise InterruptedRunError("the run was interrupted") from error
        finally:
            over.set()
            stages.close()
        return _outcome(routes, packs, ledger)


def _carry(
    run: Run,
    schedule: Schedule,
    routes: Sequence[Route],
    work: Mapping[ArtifactName, Work],
    packs: Sequence[Pack],
) -> None:
    held = overtaken(routes)
    saved = [route for route in routes if id(route) in held]
    small, rest = batches([route for route in routes if id(route) not in held], work)

    def carriers(chosen: Iterable[Route], *, hold: bool) -> Iterator[Task]:
        return (Carrier(run, route, work[route.artifact], hold=hold).carry() for route in chosen)

    parked = schedule.run(carriers(saved, hold=True)) if held else []
    together = (BatchCarrier(run, batch, work[batch[0].artifact]).carry() for batch in small)
    try:
        schedule.run(itertools.chain(parked, carriers(rest, hold=False), together))
    finally:
        for task in parked:
            task.close()
    if packs:
        schedule.run((PackCarrier(run, pack, work[pack.artifact]).carry() for pack in packs), PACKS_AT_ONCE)


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


def workload(
    routes: Sequence[Route], packs: Sequence[Pack] = (), work: Mapping[ArtifactName, Work] = NOWHERE
) -> tuple[int, int]:
    """Return the files and the bytes that `BytesMoved` events will sum up to when nothing fails.

    Bytes that are read and go on to the mirror count twice, for they travel twice. What stopped runs
    left in a stage, or in the mirror as part of an object, does not count.
    """
    moved = sum(_route_bytes(route, work.get(route.artifact)) for route in routes)
    moved += sum(pack.size + _member_bytes(pack) for pack in packs)
    return len(routes) + sum(len(pack.members) for pack in packs), moved


def _route_bytes(route: Route, work: Work | None) -> int:
    size, key = route.entry.size, route.key
    count = size * (bool(key) + (not is_direct(route, route.sources)))
    if work is None or size <= SMALL:
        return count
    if work.home and route.publications:
        count -= arrived(work.home.stage, route.entry.sha256)
    return count - (stored(work.journal, key, size) if key else 0)


def _member_bytes(pack: Pack) -> int:
    """Return what comes from afar for a pack; a content that is in it twice comes once."""
    far = (member.entry for member in pack.members if member.sources[0].place != "disk")
    return sum({entry.sha256: entry.size for entry in far}.values())


def _outcome(routes: Sequence[Route], packs: Sequence[Pack], ledger: Ledger) -> Outcome:
    items: list[Route | Pack] = [*routes, *packs]
    return Outcome(
        tuple(route for route in routes if ledger.is_done(route)),
        tuple(route for route in routes if ledger.is_written(route)),
        tuple(Failure(item, error) for item in items for error in ledger.errors_of(item)),
        ledger.transferred(),
        tuple(route for route in routes if ledger.is_damaged(route)),
        tuple(pack for pack in packs if ledger.is_written(pack)),
    )
