"""The guard as a process in the background: start it, stop it, keep it started by cron."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import time
from typing import TYPE_CHECKING

from labsync.artifact_locks import holder
from labsync.atomic import disk_errors, make_dirs
from labsync.errors import ExitCode, LabsyncError, LockedError
from labsync.events import Note
from labsync.guard.hooks import parse_hook
from labsync.process import Detached
from labsync.session.book import book_path
from labsync.session.readings import Box
from labsync.steps.guard_process import expect_something_to_guard, watched_profile, write_down
from labsync.steps.session_status import guard_files, profile_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from labsync.guard.files import GuardFiles
    from labsync.steps.guard_process import GuardOptions
    from labsync.steps.lab import Lab

PATIENCE = 20.0  # seconds for a guard to begin, or to end beyond its grace
POLL = 0.05
LOG_SIZE = 1 << 20


def start_guard(lab: Lab, options: GuardOptions, argv: Sequence[str], say: Callable[[str], None]) -> None:
    """Start the guard as a process of its own; one that runs already takes a newly typed end.

    `argv` are the words behind `labsync guard run`, without `--remaining`. Raises
    NotStartedError with what a guard that could not begin left in its log.
    """
    expect_something_to_guard(lab)
    for text in options.on_drain:
        parse_hook(text, lab.manifest.root)
    files, box = guard_files(lab.manifest), Box(env=lab.options.env)
    if options.remaining is not None:
        profile = watched_profile(lab.manifest, box, options.margin)
        write_down(book_path(lab.options.env), box, profile, options.remaining, options.margin)
    if files.running(box):
        taken = " and takes the end that you typed" if options.remaining is not None else " already"
        say(f"the guard runs{taken}: {holder(files.state_dir, files.name, 'guard')}")
        return
    with disk_errors(files.log):
        make_dirs(files.log.parent)
        if files.log.exists() and files.log.stat().st_size > LOG_SIZE:
            files.log.replace(files.log.with_suffix(".log.old"))
        begin = files.log.stat().st_size if files.log.exists() else 0
        child = Detached(
            [sys.executable, "-m", "labsync", "guard", "run", *argv], cwd=lab.manifest.root, log=files.log
        )
    _await(lambda: child.ended() is not None or _beats(files, child.pid), PATIENCE)
    if not _beats(files, child.pid):
        said = files.log.read_bytes()[begin:].decode("utf-8", "replace").strip()
        raise NotStartedError(said, child.ended())
    say(f"the guard runs (process {child.pid}); it says what it does in {files.log}")
    if lab.mirror_is_embedded:
        what = "the mirror is on this machine, too, and dies with it: name a bucket with `mirror:`"
        lab.observe(Note(what, "warning"))


class NotStartedError(LabsyncError):
    """The guard's process ended before it guarded anything."""

    def __init__(self, said: str, code: int | None) -> None:
        lines = said.splitlines()
        first = next((line for line in lines if line.startswith("error: ")), lines[-1] if lines else "")
        hint = next((line for line in lines if line.startswith("hint: ")), "")
        what = first.removeprefix("error: ") or "it did not begin in time"
        super().__init__(f"the guard did not start: {what}", hint=hint.removeprefix("hint: "))
        known = {int(member) for member in ExitCode}
        self.exit_code = ExitCode(code) if code and code in known else ExitCode.BUG  # type: ignore[misc]


def _beats(files: GuardFiles, pid: int) -> bool:
    beat = files.last_heartbeat()
    return beat is not None and beat.pid == pid


def stop_guard(lab: Lab, say: Callable[[str], None]) -> None:
    """Let the guard push once more what fits into its grace, and end; none that runs is fine."""
    files = guard_files(lab.manifest)
    box = Box(env=lab.options.env)
    beat = files.running(box)
    if beat is None:
        say("no guard runs")
        return
    files.ask_to_stop()
    with contextlib.suppress(ProcessLookupError):
        os.kill(beat.pid, signal.SIGTERM)
    grace = profile_of(lab.manifest, box).grace
    say(f"the guard pushes once more, for {grace:.0f} s at the most")
    if not _await(lambda: not files.running(box), grace + PATIENCE):
        raise LockedError(
            f"process {beat.pid} did not end", hint=f"`kill -9 {beat.pid}`; what it pushed is safe"
        )
    say("the guard has ended")


def _await(happened: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(POLL)
    return True


def cron_line(lab: Lab) -> str:
    """Return a crontab line that starts the guard again where it has ended."""
    command = [sys.executable, "-m", "labsync", "guard", "start", "-q", "-m", str(lab.manifest.path)]
    # cron takes `%` for a new line (crontab(5)).
    return f"*/10 * * * * {shlex.join(command)}".replace("%", "\\%")
