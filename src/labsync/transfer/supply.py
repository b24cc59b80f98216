"""A place that has a route's bytes, and how often it is asked for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsync.errors import (
    ChangedError,
    IntegrityError,
    LabsyncError,
    NotAllowedError,
    NotFoundError,
    UnavailableError,
)
from labsync.names import escape
from labsync.transfer.retry import ATTEMPTS, backoff
from labsync.transfer.verify import FileReader, UnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from labsync.names import ArtifactName
    from labsync.places import Blocks, Place, Reader, Ref
    from labsync.plan import Route
    from labsync.snapshot import FileEntry
    from labsync.transfer.run import Run
    from labsync.transfer.schedule import Task
    from labsync.transfer.work import Work

ELSEWHERE = (UnavailableError, NotFoundError, NotAllowedError, ChangedError, UnreadableError)
"""What one place says while another may still give the bytes."""

_TELLING: tuple[type[LabsyncError], ...] = (
    IntegrityError, UnavailableError, NotAllowedError, UnreadableError, ChangedError, NotFoundError,
)  # fmt: skip
WORTH_IT = 1 << 20  # bytes
BUSY = 0.1  # seconds until a place that bears no more requests is looked at again


@dataclass(frozen=True)
class Supply:
    """A source and the reader of its place; `fetched` is a whole file read from the origin before."""

    place: Place
    ref: Ref
    reader: Reader
    fetched: Path | None = None

    def read(self, entry: FileEntry, start: int, stop: int) -> Blocks:
        """Return the bytes of the entry as `Reader.read` does; to the end where `stop` is that."""
        return self.reader.read(self.ref, entry, start, None if stop == entry.size else stop)

    def consume(self) -> None:
        """Take away a file that was fetched before: it has found its place, or its bytes are wrong."""
        if self.fetched:
            self.fetched.unlink(missing_ok=True)


def supplies(route: Route, work: Work) -> list[Supply]:
    """Return the places of the route that may be asked, in order; raises UnavailableError for none."""
    found: list[Supply] = []
    fetched = _fetched(route, work)
    for source in route.sources:
        if source.place != "disk" and fetched:
            found.append(fetched)
            fetched = None
        if reader := work.reader(source.place):
            found.append(Supply(source.place, source.ref, reader))
    if not found:
        raise UnavailableError(
            f"no place that holds `{escape(route.entry.path)}` may be asked",
            hint="run it again without `--offline`",
        )
    return found


def _fetched(route: Route, work: Work) -> Supply | None:
    """Return the file that was read from the origin before: nearer than any place but the disk."""
    path = work.fetched and work.fetched / route.entry.sha256
    if not path or not path.is_file():
        return None
    return Supply("origin", route.sources[0].ref, FileReader(path), path)


class Patience:
    """How often one place is asked for one content, and how long to wait before."""

    def __init__(self, run: Run, artifact: ArtifactName, place: Place, reader: object) -> None:
        self._run = run
        self._artifact = artifact
        self._place = place
        self._at = id(reader)
        self._failed = 0

    def delay(self) -> float:
        """Return the seconds to wait before asking, 0 for none.

        Raises the UnavailableError that took the place down, if one did.
        """
        self._run.ledger.check_up(self._artifact, self._place)
        if delay := self._run.limiter.delay(self._at):
            return delay
        if self._run.limiter.is_busy(self._at):
            return BUSY
        self._run.check()
        return 0.0

    def asking(self) -> AbstractContextManager[None]:
        """Count the block as a request to the place."""
        return self._run.limiter.asking(self._at)

    def after(self, error: UnavailableError, came: int = 0) -> float:
        """Return the seconds to wait after a failed request; raises the error when it was the last.

        One that brought bytes does not count: a large file may meet any number of resets. One that
        brought `WORTH_IT` of them is not taken from the run's budget either.
        """
        if came:
            self._failed = 0
        if came >= WORTH_IT:
            self._run.budget.give_back()
        delay = error.retry_after + backoff(self._failed, self._run.roll())
        self._failed += 1
        if self._failed == ATTEMPTS:
            raise error
        if not self._run.budget.take(delay):
            self._run.ledger.take_down(self._artifact, self._place, error)
            raise error
        if error.retry_after:
            self._run.limiter.postpone(self._at, error.retry_after)
        return delay


def persist(patience: Patience, attempt: Callable[[], None]) -> Task:
    """Make the attempt, again after a wait while the place is unavailable and patience lasts."""
    while True:
        while delay := patience.delay():
            yield delay
        try:
            with patience.asking():
                attempt()
        except UnavailableError as error:
            delay = patience.after(error)
        else:
            return
        yield delay


def most_telling(errors: list[LabsyncError]) -> LabsyncError:
    """Return the error to report when no place gave the bytes."""
    return min(errors, key=lambda error: [isinstance(error, kind) for kind in _TELLING].index(True))
