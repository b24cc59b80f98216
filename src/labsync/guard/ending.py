"""The end of the session as the guard knows it at any instant; notices only bring it nearer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsync.errors import ExitCode
from labsync.guard.phases import Phase, Windows

if TYPE_CHECKING:
    from labsync.session.deadline import Deadline


JITTER = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Notice:
    """Somebody says that the end is near: who, in how many seconds, and the exit code that it means."""

    source: str
    seconds: float
    exit_code: ExitCode = ExitCode.DEADLINE


@dataclass(frozen=True, slots=True)
class _End:
    """One value, so that a signal handler changes all of it or nothing."""

    deadline: Deadline
    windows: Windows
    notice: Notice | None = None


class Ending:
    """The deadline and the phases before it. Safe from signal handlers and other threads."""

    def __init__(self, deadline: Deadline, now: float) -> None:
        self._end = _End(deadline, Windows.of(deadline.left(now)))

    @property
    def deadline(self) -> Deadline:
        """The deadline as it stands."""
        return self._end.deadline

    @property
    def windows(self) -> Windows:
        """How long before it each phase begins."""
        return self._end.windows

    @property
    def notice(self) -> Notice | None:
        """The notice that set the deadline, if one did."""
        return self._end.notice

    @property
    def stop_at(self) -> float:
        """When the guard stops."""
        return self._end.deadline.at - self._end.windows.stop

    def phase(self, now: float) -> Phase:
        """Return the phase; after a notice it is the freeze at least."""
        end = self._end
        phase = end.windows.phase(end.deadline.left(now))
        return max(phase, Phase.FREEZE) if end.notice else phase

    def seconds(self, now: float) -> float:
        """Return the seconds that may still be used for sending."""
        return max(0.0, self.stop_at - now)

    def until_next(self, now: float) -> float:
        """Return the seconds until the next phase begins."""
        return self._end.windows.until_next(self._end.deadline.left(now))

    def notify(self, notice: Notice, now: float) -> bool:
        """Take a notice; False when the end was not later than that anyway."""
        end = self._end
        sooner = end.deadline.shortened(now + notice.seconds, notice.source)
        if sooner is end.deadline:
            return False
        self._end = _End(sooner, Windows.of(notice.seconds), notice)
        return True

    def revise(self, deadline: Deadline, now: float) -> bool:
        """Take the deadline that was decided anew, say because the user typed one; not after a notice.

        The windows stay where it only moved a little, as a guess does that goes by a file's time.
        """
        end = self._end
        if end.notice or math.isclose(deadline.at, end.deadline.at, abs_tol=1.0):
            return False
        is_near = abs(deadline.at - end.deadline.at) < JITTER
        self._end = _End(deadline, end.windows if is_near else Windows.of(deadline.left(now)))
        return True
