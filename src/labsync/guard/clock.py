"""The real clock of the guard: it waits on a pipe, so that signal handlers and threads can wake it."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from typing import TYPE_CHECKING

from labsync.session.readings import boot_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONGEST_SLEEP = 10.0  # seconds; a box that was asleep wakes with the rest of a wait before it
LOOK_EVERY = 0.5  # seconds between two looks at an alarm: the time that it is set to may move


class BootClock:
    """Seconds of `CLOCK_BOOTTIME`. `wake` may be called from anywhere, a signal handler too."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def now(self) -> float:
        """Return the time."""
        return boot_time()

    def wake(self) -> None:
        """Let a wait return now, or the next one where none is going on."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b".")

    def wait(self, seconds: float) -> None:
        """Wait; returns early when woken."""
        until = self.now() + seconds
        while (left := until - self.now()) > 0:
            ready, _, _ = select.select([self._reader], [], [], min(left, LONGEST_SLEEP))
            if ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._reader, 1 << 10)
                return

    @contextlib.contextmanager
    def alarm(self, at: Callable[[], float], ring: Callable[[], None]) -> Iterator[None]:
        """While the context is open, call `ring` once, in another thread, when the time has come."""
        over = threading.Event()

        def watch() -> None:
            while (left := at() - self.now()) > 0:
                if over.wait(min(left, LOOK_EVERY)):
                    return
            ring()

        thread = threading.Thread(target=watch, name="labsync-alarm", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
