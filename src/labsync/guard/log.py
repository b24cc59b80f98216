"""What the guard tells: the journal, the heartbeat, the book of sessions, and lines for a person."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from labsync.errors import ExitCode, LabsyncError
from labsync.guard.files import Heartbeat
from labsync.guard.journal import VERSION, Journal, claims, wall_text
from labsync.guard.loop import Round
from labsync.guard.phases import Phase, rhythm
from labsync.session.book import see
from labsync.session.deadline import UNKNOWN, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from labsync.guard.ending import Ending
    from labsync.guard.files import GuardFiles
    from labsync.session.book import Life
    from labsync.session.deadline import Readings
    from labsync.session.readings import Box


@dataclass(frozen=True)
class Keeper:
    """Where a guard writes down what it knows of its session."""

    files: GuardFiles
    book: Path
    box: Box
    profile: str


@dataclass
class Log:
    """Tells what the guard does to the journal, the heartbeat, the book of sessions and the person."""

    keeper: Keeper
    readings: Readings
    say: Callable[[str], None]
    interval: Callable[[], float]
    _ending: Ending | None = None
    _beat: Heartbeat | None = None
    _told: object = None
    _mutex: threading.Lock = field(default_factory=threading.Lock)
    _is_over: bool = False
    _last: Round = field(default_factory=Round)

    def begin(self, ending: Ending) -> None:
        """Write down that a guard begins; raises DiskError where the journal cannot be written."""
        self._ending = ending
        journal = Journal(self.keeper.files.journal)
        journal.trim()
        journal.append(
            {
                "event": "begin",
                "version": VERSION,
                "time": wall_text(),
                "box": self.readings.box,
                "pid": os.getpid(),
                "profile": self.keeper.profile,
                **self._end_of(ending),
            }
        )
        for note in ending.deadline.notes:
            self.say(note)

    def entered(self, phase: Phase, ending: Ending) -> None:
        """Write down a phase, and tell training loops until when a checkpoint is worth saving."""
        name = phase.name.lower()
        left = ending.deadline.left(self.keeper.box.read().now)
        told = (
            f"{format_duration(left)} left ({ending.deadline.source})"
            if left < UNKNOWN
            else "no end is known"
        )
        self.say(f"{name}: {told}")
        self._append({"event": "phase", "time": wall_text(), "phase": name, **self._end_of(ending)})
        self._change(phase=name, deadline=_or_none(ending.deadline.at), source=ending.deadline.source)
        self._enter_in_book()

    def did(self, phase: Phase, done: Round, next_push: float) -> None:
        """Write down a round that pushed, where it has anything new to tell."""
        del phase
        self._last = done if done.safe else replace(done, safe=self._last.safe)
        told = claims(done.safe, done.waiting)
        errors = [{"code": e.code, "artifact": e.artifact, "message": e.message} for e in done.errors]
        self._change(
            next_push=_or_none(next_push),
            waiting_files=len(done.waiting),
            waiting_bytes=sum(waiting.bytes for waiting in done.waiting),
            errors=len(errors),
            **({"pushed_at": time.time()} if done.pushed else {}),
        )
        if done.pushed and (told, errors) != self._told:
            self._told = (told, errors)
            self._append({"event": "push", "time": wall_text(), **told, "errors": errors, "sent": done.sent})
            self._say_round(done)

    def gave_up(self, exit_code: ExitCode) -> None:
        """Write down the end of a guard that hangs."""
        self.ended("the mirror did not answer any more", exit_code, self._last)

    def ended(self, reason: str, exit_code: ExitCode, last: Round) -> None:
        """Write down the end; nothing is written after it."""
        with self._mutex:
            if self._is_over:
                return
            self._is_over = True
        self.say(f"ended ({reason}): {len(last.waiting)} waiting")
        told = claims(last.safe, last.waiting)
        record = {"event": "end", "time": wall_text(), "reason": reason, "exit_code": int(exit_code), **told}
        with contextlib.suppress(LabsyncError):
            Journal(self.keeper.files.journal).append(record)

    def beat(self) -> None:
        """Write the heartbeat, and that the session goes on."""
        if self._beat is not None:
            self._write_beat()
            self._enter_in_book()

    def _write_beat(self) -> None:
        assert self._beat is not None
        self._beat = replace(self._beat, at=time.time(), interval=self.interval())
        self.keeper.files.beat(self._beat)

    def _change(self, **changes: object) -> None:
        started = self.keeper.box.started(os.getpid()) or 0.0
        beat = self._beat or Heartbeat(os.getpid(), started, self.readings.box, time.time())
        self._beat = replace(beat, **changes)  # type: ignore[arg-type]  # fields of the heartbeat
        self._write_beat()

    def _say_round(self, done: Round) -> None:
        for error in done.errors:
            self.say(f"error: {error.message}")
        for waiting in done.waiting[:10]:
            self.say(f"waits: {waiting.artifact} {waiting.path}: {waiting.reason}")
        if not done.errors:
            self.say(f"pushed: {done.sent:,} bytes sent, {len(done.waiting)} waiting")

    def _append(self, record: dict[str, object]) -> None:
        if self._is_over:
            return
        try:
            Journal(self.keeper.files.journal).append(record)
        except LabsyncError as error:  # a full disk is no reason to stop pushing
            self.say(f"the journal cannot be written: {error.what}")

    def _enter_in_book(self) -> None:
        """Write down the end, and until when a checkpoint is worth saving, for training loops to read.

        A guard that is stopped by hand takes its own word back, and the session goes on without it.
        """
        ending, keeper = self._ending, self.keeper
        assert ending is not None
        save_by, at, source = _save_by(ending, self._last), ending.deadline.at, ending.deadline.source
        if ending.notice is not None and ending.notice.exit_code == ExitCode.OK:
            save_by, at, source = UNKNOWN, UNKNOWN, ""

        def change(life: Life) -> Life:
            return replace(life, deadline=_or_none(at), source=source, save_by=_or_none(save_by))

        see(keeper.book, keeper.box.read(), keeper.profile, gpu=keeper.box.has_gpu, change=change)

    def _end_of(self, ending: Ending) -> dict[str, object]:
        now = self.keeper.box.read()
        return {
            "deadline": wall_text(now.wall + ending.deadline.at - now.now)
            if ending.deadline.is_known
            else "",
            "source": ending.deadline.source,
        }


def _save_by(ending: Ending, done: Round) -> float:
    """Return until when a checkpoint is worth saving: one like the largest arrives at half the speed."""
    windows = ending.windows
    need = 2 * done.largest / done.rate if done.rate else 0.0
    wait = rhythm(Phase.FREEZE, windows, windows.freeze).interval
    return ending.deadline.at - max(windows.freeze, windows.stop + wait + need)


def _or_none(at: float) -> float | None:
    return at if at < UNKNOWN else None
