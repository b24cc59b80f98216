"""Where a content is fetched from: the places in turn, and what is done when the bytes are wrong."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, deque
from typing import TYPE_CHECKING, Protocol

from labsync.errors import ChangedError, IntegrityError, LabsyncError, NotFoundError, UnavailableError
from labsync.names import escape
from labsync.places import NoRangesError
from labsync.transfer.supply import ELSEWHERE, Patience, most_telling, persist
from labsync.transfer.verify import verify

if TYPE_CHECKING:
    from labsync.names import ArtifactName
    from labsync.places import Place
    from labsync.plan import Route
    from labsync.snapshot import FileEntry
    from labsync.transfer.run import Run
    from labsync.transfer.schedule import Task
    from labsync.transfer.supply import Supply


class Arrival(Protocol):
    """A content on its way here."""

    @property
    def giver(self) -> Place | None:
        """The place that every byte came from in this run, None when there were several."""

    def fill(self, supply: Supply) -> Task:
        """Bring what is missing from this place; raises what the place raises."""

    def prove(self) -> None:
        """Raise IntegrityError unless the bytes, all of which are here, are the right ones."""

    def rewind(self, place: Place) -> None:
        """Take it that nothing has arrived; what was had to travel again, on the leg of `place`."""


def fetch(run: Run, route: Route, places: list[Supply], arrival: Arrival) -> Task:
    """Bring the proven bytes here, from the first place that gives them.

    Another place goes on where one fails. On a wrong digest the content is fetched once more as a
    whole, from another place if there is one. Whose bytes were wrong is known only when all came
    from one place.
    """
    queue, errors, mismatched = deque(places), list[LabsyncError](), False
    wrong: set[Place] = set()
    while queue:
        supply = queue.popleft()
        suspect: Place | None = supply.place
        try:
            yield from arrival.fill(supply)
            suspect = arrival.giver
            arrival.prove()
        except IntegrityError as error:
            if suspect:
                wrong.add(suspect)
            arrival.rewind(supply.place)
            errors.append(_changed(error) if supply.place == "disk" else error)
            supply.consume()
            if supply.fetched or suspect == "disk":
                continue
            if mismatched:
                raise
            mismatched = True
            queue.append(supply)
        except ELSEWHERE as error:
            if isinstance(error, NotFoundError):
                wrong.add(supply.place)
            errors.append(error)
        else:
            supply.consume()
            if "mirror" in wrong and supply.place != "mirror":
                run.ledger.damaged(route)
            return
    raise most_telling(errors)


def _changed(error: IntegrityError) -> ChangedError:
    return ChangedError(
        f"`{escape(error.path)}` changed on the disk while it was being read",
        hint="run the same command again",
        safe="nothing was replaced",
    )


class Givers:
    """Which places gave the bytes of a content; safe for several threads."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._given: Counter[Place] = Counter()
        self._asked: Place | None = None
        self._mutex = threading.Lock()

    def ask(self, place: Place) -> None:
        """Take note of the place that is asked now: an empty content comes from there as well."""
        self._asked = place

    def add(self, place: Place, count: int) -> None:
        """Take note of bytes that came."""
        if count:
            with self._mutex:
                self._given[place] += count

    @property
    def only(self) -> Place | None:
        """The place that everything came from, None when there were several."""
        with self._mutex:
            given = list(self._given)
        if not given:
            return self._asked
        return given[0] if len(given) == 1 else None

    def rewind(self) -> None:
        """Account for it that all these bytes have to travel again."""
        with self._mutex:
            given, self._given = self._given, Counter()
        for place, count in given.items():
            self._run.moved(place, -count)


class SmallArrival:
    """A small content, fetched into memory by one connection."""

    def __init__(self, run: Run, artifact: ArtifactName, entry: FileEntry) -> None:
        self._run = run
        self._artifact = artifact
        self._entry = entry
        self._givers = Givers(run)
        self.data = bytearray()

    @property
    def giver(self) -> Place | None:
        """The place that every byte came from, None when there were several."""
        return self._givers.only

    def fill(self, supply: Supply) -> Task:
        """Bring what is missing from this place."""
        self._givers.ask(supply.place)
        patience = Patience(self._run, self._artifact, supply.place, supply.reader)
        yield from persist(patience, lambda: self._read(supply))

    def _read(self, supply: Supply) -> None:
        try:
            self._receive(supply)
        except NoRangesError:
            self.rewind(supply.place)
            self._receive(supply)

    def _receive(self, supply: Supply) -> None:
        if self.data and len(self.data) == self._entry.size:
            return  # a place may fail behind the last byte
        blocks = supply.read(self._entry, len(self.data), self._entry.size)
        try:
            for block in blocks:
                self.data += block
                self._givers.add(supply.place, len(block))
                self._run.moved(supply.place, len(block))
                expect_no_more(self._entry, len(self.data))
        finally:
            blocks.close()
        expect_no_less(self._entry, len(self.data), self._entry.size)

    def prove(self) -> None:
        """Raise IntegrityError unless the bytes are the right ones."""
        verify(self._entry, hashlib.sha256(self.data).hexdigest())

    def rewind(self, place: Place) -> None:
        """Take it that nothing has arrived."""
        del place
        self._givers.rewind()
        self.data.clear()


def expect_no_more(entry: FileEntry, arrived: int) -> None:
    """Raise the IntegrityError that a reader should have raised when it gave more than there is."""
    if arrived > entry.size:
        raise IntegrityError(f"`{escape(entry.path)}` has more than {entry.size} bytes", path=entry.path)


def expect_no_less(entry: FileEntry, arrived: int, stop: int) -> None:
    """Raise the UnavailableError that a reader should have raised when it ended before `stop`."""
    if arrived < stop:
        raise UnavailableError(
            f"`{escape(entry.path)}` ended after {arrived} of {entry.size} bytes", path=entry.path
        )
