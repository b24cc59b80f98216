"""An observer that remembers every event, and a clock that nobody waits for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

from labsync.events import BytesMoved, Event

if TYPE_CHECKING:
    from collections.abc import Sequence

E = TypeVar("E", bound=Event)


class Recorder:
    """Remembers events in the order in which they came; safe for threads, as an observer must be."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._events: list[Event] = []

    def __call__(self, event: Event) -> None:
        with self._mutex:
            self._events.append(event)

    @property
    def events(self) -> Sequence[Event]:
        with self._mutex:
            return tuple(self._events)

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def bytes_moved(self) -> int:
        """What a progress bar would show at the end."""
        return sum(event.count for event in self.of(BytesMoved))


class FakeClock:
    """Time that passes only by waiting; `waits` holds every wait in seconds."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.waits: list[float] = []

    def now(self) -> float:
        return self.time

    def wait(self, changed: threading.Condition, seconds: float) -> None:
        """Let the time pass at once; `changed` is held, so no two threads do this together."""
        self.waits.append(seconds)
        self.time += seconds
        changed.wait(0.0)  # gives the lock away for a moment, so that working threads get on
