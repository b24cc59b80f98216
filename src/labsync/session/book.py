"""The book of sessions, `~/.labsync/session.json`: which sessions this home has seen, and for how long.

```
{"version": 1, "sessions": [{"box": "<boot id>:<start of process 1>", "profile": "studio-lab-gpu",
  "gpu": true, "first_seen": 93.2, "began": 12.0, "elapsed": 3600.5, "seen": 1790000000.0,
  "said": null, "deadline": 14412.0, "source": "…", "save_by": 13800.0}]}
```

It may vanish or break at any time: then it begins anew. Training loops read it, so nothing here raises.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from labsync import atomic
from labsync.errors import LabsyncError
from labsync.settings import home_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from labsync.session.deadline import Readings

VERSION = 1
DAY = 24 * 3600.0
KEPT = 4 * DAY  # seconds after which a session is forgotten


@dataclass(frozen=True, slots=True)
class Life:
    """One life of a box; `seen` is Unix time, `elapsed` seconds, everything else an instant since the boot.

    `elapsed` is how long it had lived when it was last `seen`. `said` is the end that the user typed;
    `deadline` and `save_by` are the guard's: the end, and until when a checkpoint can still be brought
    to safety.
    """

    box: str
    profile: str
    gpu: bool
    first_seen: float
    began: float
    elapsed: float = 0.0
    seen: float = 0.0
    said: float | None = None
    deadline: float | None = None
    source: str = ""
    save_by: float | None = None


def book_path(env: Mapping[str, str]) -> Path:
    """Return where the book of this home lies."""
    return home_dir(env) / "session.json"


def read_book(path: Path) -> tuple[Life, ...]:
    """Return the sessions, the oldest first; none where there is no book that this version can read."""
    try:
        told = json.loads(path.read_bytes())
        if told["version"] != VERSION:
            return ()
        return tuple(Life(**session) for session in told["sessions"])
    except (OSError, ValueError, TypeError, KeyError):
        return ()


def present(lives: Sequence[Life], box: str) -> Life | None:
    """Return the life that is going on."""
    return next((life for life in lives if life.box == box), None)


def see(
    path: Path,
    readings: Readings,
    profile: str,
    *,
    gpu: bool,
    change: Callable[[Life], Life] = lambda life: life,
) -> Life:
    """Write down that the box lives, with what `change` makes of it, and return what is known of it.

    Where the home cannot be written the answer is the same and nothing is kept.
    """
    with _exclusive(path):
        lives = read_book(path)
        starts = [s for s in (readings.container_start, readings.jupyter_start) if s is not None]
        fresh = Life(readings.box, profile, gpu, readings.now, min([*starts, readings.now]))
        known = present(lives, readings.box) or fresh
        elapsed = readings.now - known.began
        life = change(replace(known, profile=profile, gpu=gpu, elapsed=elapsed, seen=readings.wall))
        others = [old for old in lives if old.box != life.box and readings.wall - old.seen < KEPT]
        _write(path, [*others, life])
        return life


def used(lives: Sequence[Life], wall: float, *, gpu: bool) -> float:
    """Return the seconds of sessions with or without a GPU within the last 24 hours."""
    total = 0.0
    for life in lives:
        if life.gpu == gpu and life.profile not in {"generic", "none"}:
            begin, end = life.seen - life.elapsed, min(life.seen, wall)
            total += max(0.0, end - max(begin, wall - DAY))
    return total


def _write(path: Path, lives: Sequence[Life]) -> None:
    told = {"version": VERSION, "sessions": [asdict(life) for life in lives]}
    with contextlib.suppress(LabsyncError, OSError):
        atomic.write_bytes(path, json.dumps(told, indent=1).encode())


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Keep others who write the book out, as far as the home can be written and has locks."""
    fd = -1
    with contextlib.suppress(OSError, LabsyncError):
        atomic.make_dirs(path.parent)
        fd = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if fd >= 0:
            os.close(fd)
