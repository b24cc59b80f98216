"""The guard's journal, `.labsync/guard/<manifest>.journal.jsonl`: what was safe, for whoever comes after.

```
{"event": "begin", "version": 1, "time": "2026-11-28T08:00:00Z", "box": "…", "pid": 71,
  "profile": "studio-lab-gpu", "deadline": "2026-11-28T11:50:00Z", "source": "…"}
{"event": "phase", "time": "…", "phase": "drain", "deadline": "…", "source": "…"}
{"event": "push", "time": "…", "safe": [{"artifact", "snapshot", "files", "bytes"}, …],
  "waiting": [{"artifact", "path", "bytes", "reason"}, …], "errors": […], "sent": 1024}
{"event": "end", "time": "…", "reason": "…", "exit_code": 15, "safe": […], "waiting": […]}
```

Lines are only appended, each durable before the guard goes on; a line that is not whole ends the journal.
A session without an `end` was cut off. A claim of `safe` is written after the mirror had it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from labsync.atomic import disk_errors, make_dirs, write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from labsync.guard.loop import Safe, Waiting

VERSION = 1
KEPT_SESSIONS = 20
MOST_WAITING = 50  # that are listed by name; all of them count

Record = dict[str, object]


class Journal:
    """Appends events and reads them again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, record: Mapping[str, object]) -> None:
        """Make one event durable; raises DiskError."""
        line = _line(record)
        with disk_errors(self._path):
            make_dirs(self._path.parent)
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                if _ends_in_the_middle(self._path):
                    line = b"\n" + line
                os.write(fd, line)
                os.fsync(fd)
            finally:
                os.close(fd)

    def sessions(self) -> list[list[Record]]:
        """Return the events of each session, the oldest session first."""
        found: list[list[Record]] = []
        for record in _records(self._path):
            if record.get("event") == "begin":
                found.append([record])
            elif found:
                found[-1].append(record)
        return found

    def trim(self) -> None:
        """Forget all but the last sessions."""
        sessions = self.sessions()
        if len(sessions) > KEPT_SESSIONS:
            kept = (record for session in sessions[-KEPT_SESSIONS:] for record in session)
            write_bytes(self._path, b"".join(map(_line, kept)))


@dataclass(frozen=True, slots=True)
class Past:
    """A session as its journal tells it; times are as the records write them.

    `ended` is when it ended or, of one that was cut off, when it was last heard of; `reason` is empty
    then. `unsafe` are what waited on the disk alone.
    """

    began: str
    ended: str
    box: str
    reason: str = ""
    safe: tuple[Record, ...] = ()
    unsafe: tuple[Record, ...] = ()
    unsafe_files: int = 0
    unsafe_bytes: int = 0

    @property
    def was_cut_off(self) -> bool:
        """Say whether the guard had no time to write its end."""
        return not self.reason


def tell(session: Sequence[Record], last_sign: str = "") -> Past:
    """Return what the events of one session say; `last_sign` is a later sign of life than they have."""
    begin, last = session[0], session[-1]
    pushes = [record for record in session if record.get("event") in {"push", "end"}]
    known = pushes[-1] if pushes else {}
    waiting = known.get("waiting_in_all")
    count, size = waiting if isinstance(waiting, list) and len(waiting) == 2 else (0, 0)
    is_over = last.get("event") == "end"
    return Past(
        str(begin.get("time", "")),
        max(str(last.get("time", "")), "" if is_over else last_sign),
        str(begin.get("box", "")),
        str(last.get("reason", "")) if is_over else "",
        _list(known, "safe"),
        _list(known, "waiting"),
        count,
        size,
    )


def wall_text(at: float | None = None) -> str:
    """Return a Unix time, by default now, as records write it: UTC, RFC 3339, whole seconds."""
    moment = datetime.fromtimestamp(time.time() if at is None else at, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def claims(safe: Iterable[Safe], waiting: Sequence[Waiting]) -> Record:
    """Return what of a round the journal keeps."""
    return {
        "safe": [
            {"artifact": s.artifact, "snapshot": s.snapshot, "files": s.files, "bytes": s.bytes} for s in safe
        ],
        "waiting": [
            {"artifact": w.artifact, "path": w.path, "bytes": w.bytes, "reason": w.reason}
            for w in waiting[:MOST_WAITING]
        ],
        "waiting_in_all": [len(waiting), sum(w.bytes for w in waiting)],
    }


def _line(record: Mapping[str, object]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _list(record: Mapping[str, object], key: str) -> tuple[Record, ...]:
    found = record.get(key)
    return tuple(item for item in found if isinstance(item, dict)) if isinstance(found, list) else ()


def _records(path: Path) -> Iterable[Record]:
    with contextlib.suppress(OSError):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict):
                    yield record


def _ends_in_the_middle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.seek(0, os.SEEK_END) > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
