"""Where the guard of one manifest keeps what it tells others, and who holds its lock.

```
.labsync/guard/<manifest>.journal.jsonl    what was safe; see `journal.py`
.labsync/guard/<manifest>.heartbeat.json   how it stands, written anew every half a minute
.labsync/guard/<manifest>.log              what it said
```
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from labsync.artifact_locks import hold
from labsync.atomic import disk_errors, make_dirs

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from labsync.session.readings import Box

VERSION = 1
BEAT = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """How a running guard stands; `at` and `pushed_at` are Unix time, the other instants since the boot.

    `next_push` is when it pushes again. A process that has begun at `started` (ticks) is this guard.
    """

    pid: int
    started: float
    box: str
    at: float
    phase: str = "watch"
    deadline: float | None = None
    source: str = ""
    interval: float = 0.0
    next_push: float | None = None
    pushed_at: float | None = None
    waiting_files: int = 0
    waiting_bytes: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class GuardFiles:
    """The files of one manifest's guard."""

    state_dir: Path
    stem: str

    @property
    def journal(self) -> Path:
        """What was safe."""
        return self.state_dir / "guard" / f"{self.stem}.journal.jsonl"

    @property
    def heartbeat(self) -> Path:
        """How it stands."""
        return self.state_dir / "guard" / f"{self.stem}.heartbeat.json"

    @property
    def log(self) -> Path:
        """What it said."""
        return self.state_dir / "guard" / f"{self.stem}.log"

    @property
    def stop(self) -> Path:
        """Made by `guard stop`, so that the guard knows who sent the signal."""
        return self.state_dir / "guard" / f"{self.stem}.stop"

    @property
    def name(self) -> str:
        """What the guard's lock is about."""
        return f"guard of {self.stem}"

    def lock(self) -> AbstractContextManager[None]:
        """Hold the guard's lock; LockedError (10) names the guard that runs."""
        return hold(self.state_dir, self.name, "guard")

    def running(self, box: Box) -> Heartbeat | None:
        """Return the last heartbeat of a guard that lives on this box, None where none does."""
        beat = self.last_heartbeat()
        if beat is None or box.started(beat.pid) != beat.started:
            return None
        return beat

    def beat(self, heartbeat: Heartbeat) -> None:
        """Write how it stands; it need not be durable, and a full disk does not stop the guard."""
        staged = self.heartbeat.with_suffix(".labsync-new")
        with contextlib.suppress(OSError):
            make_dirs(staged.parent)
            staged.write_text(json.dumps({"version": VERSION, **asdict(heartbeat)}), "utf-8")
            os.replace(staged, self.heartbeat)

    def last_heartbeat(self) -> Heartbeat | None:
        """Return how the guard last stood, None where it never ran or tells what this version cannot read."""
        try:
            told = json.loads(self.heartbeat.read_bytes())
            if told.pop("version") != VERSION:
                return None
            known = {field.name for field in fields(Heartbeat)}
            return Heartbeat(**{name: value for name, value in told.items() if name in known})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def ask_to_stop(self) -> None:
        """Leave word that the next SIGTERM is the user's own wish."""
        with disk_errors(self.stop):
            make_dirs(self.stop.parent)
            self.stop.touch()

    def was_asked_to_stop(self) -> bool:
        """Say whether the user wishes the guard to end, and take the word away."""
        try:
            self.stop.unlink()
        except OSError:
            return False
        return True
