"""When what happened in a run: an observer that listens along, for the report's timeline."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from labsync.events import FileDone, FileStarted, StageStarted
from labsync.run_record import Span

if TYPE_CHECKING:
    from collections.abc import Callable

    from labsync.events import Event, Observer


class Chronicle:
    """Passes every event on to `observer`, and remembers the stages and each artifact's transfer.

    `now` is a clock in seconds that never goes back; the chronicle's own times begin at 0.
    """

    def __init__(self, observer: Observer, now: Callable[[], float] = time.monotonic) -> None:
        self._pass_on = observer
        self._now = now
        self._begin = now()
        self._mutex = threading.Lock()
        self._stages: list[tuple[str, float]] = []
        self._carried: dict[str, tuple[float, float]] = {}

    def __call__(self, event: Event) -> None:
        """Take one event, from any thread."""
        match event:
            case StageStarted(name):
                with self._mutex:
                    # A stage may tell of steps inside it under its own name.
                    if not self._stages or self._stages[-1][0] != name:
                        self._stages.append((name, self.seconds))
            case FileStarted(artifact) | FileDone(artifact):
                with self._mutex:
                    now = self.seconds
                    first, _ = self._carried.get(artifact, (now, now))
                    self._carried[artifact] = (first, now)
        self._pass_on(event)

    @property
    def seconds(self) -> float:
        """How long ago the chronicle began."""
        return self._now() - self._begin

    def spans(self) -> tuple[Span, ...]:
        """Return the stages, each up to the next one, and the transfers; what has not ended ends now."""
        now = self.seconds
        with self._mutex:
            ends = [*(start for _, start in self._stages[1:]), now]
            stages = [
                Span(name, "stage", round(start, 3), round(end, 3))
                for (name, start), end in zip(self._stages, ends, strict=False)
            ]
            carried = [
                Span(name, "artifact", round(start, 3), round(end, 3))
                for name, (start, end) in self._carried.items()
            ]
        return (*stages, *sorted(carried, key=lambda span: (span.start, span.name)))
