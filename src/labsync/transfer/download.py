"""Brings one large content into its part file: ranges by several connections, resumable to the block.

The route's own connection takes ranges in order and is the one that waits, tries again and gives up.
Threads of the run that have nothing else to do come to help with the ranges behind it; a helper that
meets trouble gives its range back and leaves, so that there is one place where patience is decided.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

from labsync.errors import DiskError, InterruptedRunError, LabsyncError, UnavailableError
from labsync.places import NoRangesError
from labsync.transfer.fetch import Givers, expect_no_less
from labsync.transfer.ranges import total
from labsync.transfer.run import Tally
from labsync.transfer.supply import Patience
from labsync.transfer.verify import UnreadableError
from labsync.transfer.writer import PartWriter

if TYPE_CHECKING:
    from labsync.names import ArtifactName
    from labsync.places import Place
    from labsync.snapshot import FileEntry
    from labsync.transfer.parts import Part
    from labsync.transfer.ranges import Lease
    from labsync.transfer.run import Run
    from labsync.transfer.schedule import Task
    from labsync.transfer.supply import Supply

CONNECTIONS = 4  # per content
RANGE = 16 << 20


class Download:
    """A content of more than a few blocks on its way into a part file, which the caller holds."""

    def __init__(self, run: Run, artifact: ArtifactName, entry: FileEntry, part: Part) -> None:
        self._run = run
        self._artifact = artifact
        self._entry = entry
        self._part = part
        self._writer = PartWriter(part, entry, run.check)
        self._givers = Givers(run)
        self._resumed = total(part.arrived)
        self._mutex = threading.Lock()
        self._helped: Supply | None = None  # the place that helpers may ask
        self._helpers = 0
        self._disk_error: DiskError | None = None

    @property
    def giver(self) -> Place | None:
        """The place that every byte came from in this run, None when there were several."""
        return None if self._resumed else self._givers.only

    def fill(self, supply: Supply) -> Task:
        """Bring what is missing from this place; what came before a failure stays."""
        self._givers.ask(supply.place)
        if supply.fetched and self._adopt(supply):
            return
        try:
            with self._run.hands.lend(self._more):
                yield from self._work(supply)
        except BaseException:
            self._invite(None)
            self._writer.recall()
            self._writer.save()
            raise
        self._invite(None)
        self._writer.keep_all()

    def _adopt(self, supply: Supply) -> bool:
        """Take a whole file that was fetched before, by a rename."""
        assert supply.fetched is not None
        if not self._writer.adopt(supply.fetched):
            return False
        self._forget(supply.place)
        self._givers.add(supply.place, self._entry.size)
        self._run.moved(supply.place, self._entry.size)
        return True

    def _work(self, supply: Supply) -> Task:
        patience = Patience(self._run, self._artifact, supply.place, supply.reader)
        is_whole = False
        while not self._writer.is_complete:
            while self._writer.has_missing and (delay := patience.delay()):
                yield delay
            lease = self._next(self._entry.size if is_whole else RANGE)
            if lease is None:
                continue
            begin = lease.at
            try:
                with patience.asking():
                    self._receive(supply, lease, self._part.fd, invite=True)
            except NoRangesError:
                is_whole = True
                self._start_over(supply)
            except UnavailableError as error:
                self._invite(None)
                yield patience.after(error, lease.at - begin)
                if is_whole and not self._writer.is_complete:
                    self._start_over(supply)
            else:
                self._run.budget.give_back()
        if self._disk_error:
            raise self._disk_error

    def _start_over(self, supply: Supply) -> None:
        """Begin at the first byte: this place gives no parts."""
        self._invite(None)
        self.rewind(supply.place)

    def _next(self, most: int) -> Lease | None:
        """Return a range to fetch; hash, or wait a moment, when others fetch all that is missing."""
        if self._disk_error:
            raise self._disk_error
        lease = self._writer.take(most)
        if lease is None:
            self._writer.hash_on(self._part.fd)
            self._writer.wait()
        return lease

    def _receive(self, supply: Supply, lease: Lease, fd: int, *, invite: bool = False) -> None:
        """Fetch a range; it is given back, with what has arrived, however this ends.

        With `invite` helpers come once the place has shown that it answers.
        """
        tally, begin = Tally(self._run, supply.place), lease.at
        try:
            with contextlib.closing(supply.read(self._entry, lease.at, lease.stop)) as blocks:
                for block in blocks:
                    self._run.check()
                    if not self._writer.write(lease, block, fd):
                        return
                    tally.add(len(block))
                    if invite and self._helped is not supply:
                        self._invite(supply)
            expect_no_less(self._entry, lease.at, lease.stop)
        finally:
            self._givers.add(supply.place, lease.at - begin)
            self._writer.give_back(lease)
            tally.flush()
        self._writer.hash_on(fd)

    # Helpers.

    def _invite(self, supply: Supply | None) -> None:
        """Let helpers ask this place, or none."""
        with self._mutex:
            self._helped = supply
        if supply:
            self._run.hands.call()

    def _more(self) -> Task | None:
        """Return the work of one more connection, None while there is no use for it."""
        with self._mutex:
            supply = self._helped
            if supply is None or not self._is_welcome(supply, self._helpers):
                return None
            self._helpers += 1
            fd = os.dup(self._part.fd)
        return self._help(supply, fd)

    def _help(self, supply: Supply, fd: int) -> Task:
        try:
            while self._helped is supply and self._is_welcome(supply, self._helpers - 1):
                lease = self._writer.take(RANGE)
                if lease is None:
                    break
                with self._run.limiter.asking(id(supply.reader)):
                    self._receive(supply, lease, fd)
                yield 0.0
        except InterruptedRunError:
            raise
        except LabsyncError as error:
            self._step_back(supply, error)
        finally:
            os.close(fd)
            with self._mutex:
                self._helpers -= 1

    def _is_welcome(self, supply: Supply, others: int) -> bool:
        """Say whether one more helper is of use beside `others`, and the place bears one more request."""
        at, limiter, writer = id(supply.reader), self._run.limiter, self._writer
        if others >= CONNECTIONS - 1 or (others and not writer.waits_for_bytes):
            return False
        return writer.has_missing and not limiter.delay(at) and not limiter.is_busy(at)

    def _step_back(self, supply: Supply, error: LabsyncError) -> None:
        """Leave it to the route's own connection to meet the same trouble."""
        self._invite(None)
        if isinstance(error, DiskError) and not isinstance(error, UnreadableError):
            self._disk_error = error
        if isinstance(error, UnavailableError) and error.retry_after:
            self._run.limiter.postpone(id(supply.reader), error.retry_after)

    # The proof.

    def prove(self) -> None:
        """Raise IntegrityError unless the bytes, all of which are here, are the right ones."""
        self._writer.prove(self._part.fd)

    def rewind(self, place: Place) -> None:
        """Take it that nothing has arrived; also what an earlier run fetched has to travel again."""
        self._writer.begin_anew()
        self._forget(place)

    def _forget(self, place: Place) -> None:
        self._givers.rewind()
        resumed, self._resumed = self._resumed, 0
        if resumed:
            self._run.moved(place, -resumed)
