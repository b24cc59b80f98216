"""For training loops: how much time is left, and checkpoint folders that are never half written.

```python
from labsync import session

for epoch in range(first, epochs):
    ...
    with session.saving(f"checkpoints/epoch-{epoch:04}") as folder:
        torch.save(state, folder / "checkpoint.pth")
    if session.should_stop():
        break
```

The standard library is enough for it. Where `labsync guard` runs, its deadline counts; elsewhere that
of the box's own profile. Nothing but `saving` raises.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from labsync.session.atomic_folder import saving
from labsync.session.book import Life, book_path, present, read_book
from labsync.session.deadline import Deadline, Readings, decide
from labsync.session.profiles import PROFILES
from labsync.session.readings import Box, boot_time

if TYPE_CHECKING:
    from labsync.session.trainer import TrainerCallback

__all__ = ["TrainerCallback", "saving", "should_stop", "time_left"]

LAST_SAVE = 600.0  # seconds before the end, of a long session
_FRESH = 1.0  # seconds for which what was read counts
_known: tuple[float, Deadline, float] | None = None
_asked: float | None = None


def time_left() -> float:
    """Return the seconds until this session ends; infinite where no limit is known."""
    _, deadline, _ = _look()
    return deadline.left(boot_time())


def should_stop() -> bool:
    """Say whether it is time to save and stop: a later checkpoint might not be brought to safety.

    It counts on being asked again after as long as it took since it was asked last, so ask it once per
    step or once per epoch. It costs next to nothing.
    """
    global _asked
    _, _, save_by = _look()
    now = boot_time()
    lap, _asked = now - (now if _asked is None else _asked), now
    return now + lap >= save_by


def __getattr__(name: str) -> type[TrainerCallback]:
    if name == "TrainerCallback":
        from labsync.session.trainer import TrainerCallback

        return TrainerCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _look() -> tuple[float, Deadline, float]:
    global _known  # noqa: PLW0603  read again every few seconds, not at every step
    now = time.monotonic()
    if _known is None or now - _known[0] > _FRESH:
        deadline, save_by = _read()
        _known = now, deadline, save_by
    return _known


def _read() -> tuple[Deadline, float]:
    box = Box()
    readings = box.read()
    life = present(read_book(book_path(os.environ)), readings.box)
    deadline = _deadline(box, readings, life)
    if life is not None and life.save_by is not None:
        return deadline, life.save_by
    first_seen = life.first_seen if life else readings.now
    begin = first_seen if readings.container_start is None else min(readings.container_start, first_seen)
    span = deadline.at - begin
    return deadline, deadline.at - min(LAST_SAVE, span / 12)


def _deadline(box: Box, readings: Readings, life: Life | None) -> Deadline:
    if life is not None and life.deadline is not None:
        return Deadline(life.deadline, life.source)
    profile = PROFILES[life.profile if life and life.profile in PROFILES else box.profile()]
    return decide(profile, readings, life.first_seen, life.said) if life else decide(profile, readings)
