"""The guard as a process: its signals, its heartbeat, and its end when nothing else ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, NoReturn

from labsync.errors import ExitCode
from labsync.guard.ending import Notice
from labsync.guard.files import BEAT
from labsync.guard.spot import POLL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from labsync.guard.clock import BootClock
    from labsync.guard.ending import Ending
    from labsync.guard.files import GuardFiles
    from labsync.guard.log import Log
    from labsync.guard.spot import Metadata

ASKED = "you stopped it"
NEAR_END = 10.0  # seconds after the stop at which a guard that does not come back ends itself, at most
ROUSE = 300.0  # seconds that SIGUSR1 leaves: `sbatch --signal=B:USR1@300`
_CODES = {
    signal.SIGTERM: ExitCode.TERMINATED,
    signal.SIGINT: ExitCode.INTERRUPTED,
    signal.SIGHUP: ExitCode.HANGUP,
}


@contextlib.contextmanager
def signals(ending: Ending, clock: BootClock, files: GuardFiles, grace: float) -> Iterator[None]:
    """While the context is open, signals bring the end near instead of ending the process.

    A second one of those that end a process does end it, at once: the journal is safe at any instant.
    SIGUSR1 says that there are minutes left. What the parent process chose to ignore stays ignored.
    """
    asked: list[int] = []

    def handle(signum: int, frame: object) -> None:
        del frame
        if signum == signal.SIGUSR1:
            ending.notify(Notice("SIGUSR1", ROUSE), clock.now())
        elif asked:
            os._exit(128 + signum)
        else:
            asked.append(signum)
            ending.notify(_notice(signal.Signals(signum), files, grace), clock.now())
        clock.wake()

    before = {}
    for signum in (*_CODES, signal.SIGUSR1):
        if signal.getsignal(signum) != signal.SIG_IGN:
            before[signum] = signal.signal(signum, handle)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _notice(signum: signal.Signals, files: GuardFiles, grace: float) -> Notice:
    if signum == signal.SIGTERM and files.was_asked_to_stop():
        return Notice(ASKED, grace, ExitCode.OK)
    return Notice(signum.name, grace, _CODES[signum])


class Ticker:
    """A thread beside the loop: it beats, asks for a spot notice, and ends a guard that hangs.

    `is_news` says that the loop should look at the end again. A mirror that falls silent in the middle
    of a request could hold the loop beyond the end.
    """

    def __init__(
        self, log: Log, ending: Ending, clock: BootClock, is_news: Callable[[], bool], spot: Metadata | None
    ) -> None:
        self._log, self._ending, self._clock = log, ending, clock
        self._is_news, self._spot = is_news, spot
        self._over = threading.Event()
        self._beaten = self._asked = clock.now()

    @contextlib.contextmanager
    def ticking(self) -> Iterator[None]:
        """While the context is open, the thread works."""
        thread = threading.Thread(target=self._work, name="labsync-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join(5.0)

    def _work(self) -> None:
        while not self._over.wait(1.0):
            now = self._clock.now()
            if now - self._beaten >= BEAT:
                self._beaten = now
                self._log.beat()
            if self._is_news() or self._is_taken_away(now):
                self._clock.wake()
            ending = self._ending
            if now > ending.stop_at + min(NEAR_END, ending.windows.stop / 2 + 1.0):
                self._end()

    def _is_taken_away(self, now: float) -> bool:
        """Say whether a notice came just now that the spot instance is taken away."""
        if self._spot is None or now - self._asked < POLL:
            return False
        self._asked = now
        left = self._spot.notice(time.time())
        return left is not None and self._ending.notify(Notice("the spot instance is taken away", left), now)

    def _end(self) -> NoReturn:
        notice = self._ending.notice
        code = notice.exit_code if notice else ExitCode.DEADLINE
        self._log.gave_up(code)
        os._exit(int(code))
