"""A bounded pool for tasks that wait: a task that has to wait gives its thread to another one."""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
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


class Schedule:
    """Runs tasks on at most `jobs` threads; new ones begin in order as threads become free.

    `halted` says that the run is to stop; `halt` makes it say so.
    """

    def __init__(self, jobs: int, clock: Clock, halted: Callable[[], bool], halt: Callable[[], None]) -> None:
        self._jobs = jobs
        self._clock = clock
        self._halted = halted
        self._halt = halt
        self._changed = threading.Condition()
        self._order = itertools.count()
        self._fresh: Iterator[Task] = iter(())
        self._waiting: list[tuple[float, int, Task]] = []
        self._parked: list[Task] = []
        self._active = 0

    def run(self, tasks: Iterable[Task]) -> list[Task]:
        """Run the tasks until each has ended or is parked; return the parked ones.

        When the run is halted, or a task raises, no task goes on: all that were begun are closed,
        the threads end, and InterruptedRunError or the task's exception is raised.
        """
        self._fresh = iter(tasks)
        self._parked = []
        try:
            self._run_threads()
        except BaseException:
            self._halt()
            self._wait_until_idle()
            self._close()
            raise
        if self._halted():
            self._close()
            raise InterruptedRunError("the run was stopped")
        return self._parked

    def _run_threads(self) -> None:
        with ThreadPoolExecutor(self._jobs, thread_name_prefix="labsync") as pool:
            try:
                for worker in [pool.submit(self._work) for _ in range(self._jobs)]:
                    worker.result()
            except BaseException:
                self._halt()
                raise

    def _wait_until_idle(self) -> None:
        """Wait for threads that the pool does not know: Ctrl-C may come while it starts one."""
        with self._changed:
            while self._active:
                self._changed.wait(POLL)

    def _close(self) -> None:
        for task in (*self._parked, *(task for _, _, task in self._waiting)):
            task.close()
        self._parked, self._waiting = [], []

    def _work(self) -> None:
        while (task := self._take()) is not None:
            delay = None
            try:
                delay = next(task, None)
            except InterruptedRunError:
                self._halt()
            except BaseException:
                self._halt()
                raise
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
            return next(self._fresh, None)
        return None

    def _put(self, task: Task, delay: float | None) -> None:
        with self._changed:
            self._active -= 1
            if delay == PARKED:
                self._parked.append(task)
            elif delay is not None:
                heapq.heappush(self._waiting, (self._clock.now() + delay, next(self._order), task))
            self._changed.notify_all()
