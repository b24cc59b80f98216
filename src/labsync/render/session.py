"""The session, the guard and the last session as a person reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labsync.names import escape
from labsync.render.units import size
from labsync.session.deadline import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from labsync.steps.outcome import GuardStatus, LastSession, SessionStatus


def session_lines(session: SessionStatus) -> Iterator[str]:
    """Yield the time left and the hours used; nothing for a box that has no end."""
    if session.seconds_left is not None:
        yield f"time left: {format_duration(session.seconds_left)} ({session.source})"
    elif session.profile not in {"generic", "none"}:
        yield f"time left: not known for {session.profile}; `labsync guard start --remaining 3h12m` tells it"
    for note in session.notes:
        yield f"  {note}"
    hours = [
        f"{name} {used / 3600:.1f} of {allowed / 3600:.0f} h"
        for name, used, allowed in (
            ("GPU", session.gpu_used, session.gpu_allowed),
            ("CPU", session.cpu_used, session.cpu_allowed),
        )
        if allowed is not None
    ]
    if hours:
        yield f"used in the last 24 h: {', '.join(hours)}"


def guard_lines(guard: GuardStatus) -> Iterator[str]:
    """Yield how the guard stands; nothing where none ever ran."""
    if guard.state == "running":
        pushed = f"pushed {_ago(guard.pushed_age)}" if guard.pushed_age is not None else "nothing pushed yet"
        yield f"guard: running (process {guard.pid}, {guard.phase}), {pushed}"
        if guard.beat_age is not None and guard.beat_age > 120:
            yield f"  warning: its last sign of life came {_ago(guard.beat_age)}: see {guard.log}"
    elif guard.state == "died":
        yield f"guard: it died {_ago(guard.beat_age)} without a word, see {guard.log}; `labsync guard start`"
    elif guard.pid:
        yield "guard: not running"
    if guard.state == "running" and guard.waiting_files:
        yield f"  {guard.waiting_files} waiting, {size(guard.waiting_bytes)}"
    if guard.state == "running" and guard.errors:
        yield f"  its last round met errors: see {guard.log}"


def last_session_lines(last: LastSession) -> Iterator[str]:
    """Yield how the last session ended, what was safe and what was not."""
    how = f"ended: {last.reason}" if last.reason else "was cut off"
    yield f"last session: {how}, {_readable(last.ended)} (begun {_readable(last.began)})"
    if last.safe:
        yield f"  safe: {', '.join(last.safe)}"
    if last.unsafe_files:
        noun = "file or checkpoint" if last.unsafe_files == 1 else "files and checkpoints"
        yield f"  not safe: {last.unsafe_files} {noun}, {size(last.unsafe_bytes)}"
        yield from (f"    {escape(item)}" for item in last.unsafe)
        yield f"  continue: {last.command}"


def _ago(seconds: float | None) -> str:
    return f"{format_duration(seconds or 0.0)} ago"


def _readable(time: str) -> str:
    return f"{time[:10]} {time[11:16]} UTC" if len(time) >= 16 else time or "at an unknown time"
