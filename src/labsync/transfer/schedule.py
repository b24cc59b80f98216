"""A bounded pool for tasks that wait: a task that has to wait gives its thread to another one."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import threading
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, TypeAlias

from labsync.errors import InterruptedRunError
from labsync.transfer.retry import POLL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from labsync.transfer.retry import Clock

Task: TypeAlias = Generator[float, None, None]
"""Works until it yields how many seconds it wants to wait, or `PARKED`, or ends."""

PARKED = math.inf
IN_FLIGHT = 256  # begun and not ended: each may hold a part file open, and 1,024 is a usual limit
GRACE = 3.0  # seconds


class Schedule:
    """Runs tasks on at most `jobs` threads; new ones begin in order as threads become free.

    `halted` says that the run is to stop; `halt` makes it say so. A thread that does not come back
    within `grace` seconds of that hangs in a system call: a read from a server that fell silent, as a
    rule. It is left alone. It is a daemon, so it does not keep the process from ending, and when it
    comes back after all its task is closed.
    """

    def __init__(
        self,
        jobs: int,
        clock: Clock,
        halted: Callable[[], bool],
        halt: Callable[[], None],
        *,
        grace: float = GRACE,
    ) -> None:
        self._jobs = jobs
        self._clock = clock
        self._halted = halted
        self._halt = halt
        self._grace = grace
        self._changed = threading.Condition()
        self._order = itertools.count()
        self._fresh: Iterator[Task] = iter(())
        self._waiting: list[tuple[float, int, Task]] = []
        self._parked: list[Task] = []
        self._lenders: list[Callable[[], Task | None]] = []
        self._threads = self._active = 0
        self._failure: BaseException | None = None

    def run(self, tasks: Iterable[Task], most: int = IN_FLIGHT) -> list[Task]:
        """Run the tasks, `most` at once, until each has ended or is parked; return the parked ones.

        When the run is halted, or a task raises, no task goes on: all that were begun are closed,
        and InterruptedRunError or the task's exception is raised.
        """
        self._fresh = iter(tasks)
        self._parked = []
        try:
            for number in range(min(self._jobs, most)):
                with self._changed:
                    self._threads += 1
                threading.Thread(target=self._live, name=f"labsync-{number}", daemon=True).start()
            self._join()
        except BaseException:
            self._halt()
            self._join()
            self._close()
            raise
        if self._halted():
            self._close()
            raise self._failure or InterruptedRunError("the run was stopped")
        return self._parked

    @contextlib.contextmanager
    def lend(self, more: Callable[[], Task | None]) -> Iterator[None]:
        """While the context is open, ask `more` for a task whenever a thread has nothing else to do.

        `more` is called under a lock: it must be quick and must not wait.
        """
        with self._changed:
            self._lenders.append(more)
        try:
            yield
        finally:
            with self._changed:
                self._lenders.remove(more)

    def call(self) -> None:
        """Let threads that have nothing to do ask once more."""
        with self._changed:
            self._changed.notify_all()

    def _join(self) -> None:
        """Wait until all threads have ended; not for ever once the run is halted."""
        until = math.inf
        with self._changed:
            while self._threads and time.monotonic() < until:
                self._changed.wait(POLL)
                if self._halted():
                    until = min(until, time.monotonic() + self._grace)

    def _close(self) -> None:
        with self._changed:
            tasks = [*self._parked, *(task for _, _, task in self._waiting)]
            self._parked, self._waiting = [], []
        for task in tasks:
            task.close()

    def _live(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - `run` raises it
            self._failure = self._failure or error
            self._halt()
        finally:
            with self._changed:
                self._threads -= 1
                self._changed.notify_all()

    def _work(self) -> None:
        while (task := self._take()) is not None:
            delay = None
            try:
                delay = next(task, None)
            except InterruptedRunError:
                self._halt()
            finally:
                self._put(task, delay)

    def _take(self) -> Task | None:
        with self._changed:
            while not self._halted():
                if (task := self._due()) is not None:
                    self._active += 1
                    return task
                if not self._waiting and not self._active:
                    break
                if self._waiting:
                    self._clock.wait(self._changed, max(0.0, self._waiting[0][0] - self._clock.now()))
                else:
                    self._changed.wait(POLL)
            return None

    def _due(self) -> Task | None:
        if self._waiting and self._waiting[0][0] <= self._clock.now():
            return heapq.heappop(self._waiting)[2]
        if len(self._waiting) + self._active < IN_FLIGHT:
            if (task := next(self._fresh, None)) is not None:
                return task
            return next(filter(None, (more() for more in self._lenders)), None)
        return None

    def _put(self, task: Task, delay: float | None) -> None:
        with self._changed:
            self._active -= 1
            is_over = self._halted()
            if is_over or delay is None:
                pass
            elif delay == PARKED:
                self._parked.append(task)
            else:
                heapq.heappush(self._waiting, (self._clock.now() + delay, next(self._order), task))
            self._changed.notify_all()
        if is_over:
            task.close()
