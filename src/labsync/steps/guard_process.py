"""The guard of a lab: decide the end of the session, run until then, start and stop the process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from labsync.errors import ExitCode, UsageError
from labsync.guard.clock import BootClock
from labsync.guard.daemon import Ticker, signals
from labsync.guard.ending import Ending
from labsync.guard.hooks import call_all, parse_hook
from labsync.guard.journal import wall_text
from labsync.guard.log import Keeper, Log
from labsync.guard.loop import Guard
from labsync.guard.phases import default_interval
from labsync.guard.spot import Metadata
from labsync.session.book import book_path, present, read_book, see
from labsync.session.deadline import decide
from labsync.session.profiles import PROFILES
from labsync.session.readings import Box
from labsync.steps.guarding import Project
from labsync.steps.session_status import guard_files, profile_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from labsync.guard.hooks import Hook
    from labsync.manifest.model import Manifest
    from labsync.session.book import Life
    from labsync.session.deadline import Deadline
    from labsync.session.profiles import Profile
    from labsync.settings import Options
    from labsync.steps.lab import Lab


@dataclass(frozen=True, slots=True)
class GuardOptions:
    """What was typed: times in seconds, None where nothing was."""

    remaining: float | None = None
    interval: float | None = None
    margin: float | None = None
    on_drain: tuple[str, ...] = ()


def watched_profile(manifest: Manifest, box: Box, margin: float | None) -> Profile:
    """Return the profile of this box, with a typed margin; EC2's own service is asked what `auto` is."""
    profile = profile_of(manifest, box)
    if profile.name == "generic" and manifest.session.profile == "auto" and box.is_on_ec2:
        profile = PROFILES["ec2-spot"] if Metadata(box.env).is_spot() else profile
    return profile if margin is None else replace(profile, margin=margin)


class Sitting:
    """One guard's view of its session: the end is decided again whenever the user types another one."""

    def __init__(self, lab: Lab, options: GuardOptions) -> None:
        self.box = Box(env=lab.options.env)
        self.profile = watched_profile(lab.manifest, self.box, options.margin)
        self.book = book_path(lab.options.env)
        self._options = options
        self._life = self._see(options.remaining)
        self._stamp = self._stat()

    def deadline(self) -> Deadline:
        """Decide the end from what is known now."""
        return decide(self.profile, self.box.read(), self._life.first_seen, self._life.said)

    def is_news(self) -> bool:
        """Say whether the user typed another end since."""
        stamp = self._stat()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        life = present(read_book(self.book), self._life.box)
        if life is None or life.said == self._life.said:
            return False
        self._life = life
        return True

    def _stat(self) -> tuple[int, int]:
        try:
            found = self.book.stat()
        except OSError:
            return 0, 0
        return found.st_mtime_ns, found.st_ino

    def _see(self, remaining: float | None) -> Life:
        return write_down(self.book, self.box, self.profile, remaining, self._options.margin)


def write_down(book: Path, box: Box, profile: Profile, remaining: float | None, margin: float | None) -> Life:
    """Enter the session into the book, with the time left that was typed, if one was.

    It counts at once; a guard that runs will write down what it makes of it.
    """
    readings = box.read()

    def change(life: Life) -> Life:
        if remaining is None:
            return life
        said = readings.now + remaining - (margin or 0.0)
        return replace(life, said=said, deadline=None, source="", save_by=None)

    return see(book, readings, profile.name, gpu=box.has_gpu, change=change)


def run_guard(
    lab: Lab, reopen: Callable[[Options], Lab], options: GuardOptions, say: Callable[[str], None]
) -> ExitCode:
    """Guard the lab until the end of the session, and return the exit code that the end means.

    `reopen` opens the lab anew. Raises LockedError (10) when a guard runs already, UsageError (2) where
    there is nothing to guard.
    """
    expect_something_to_guard(lab)
    hooks = [parse_hook(text, lab.manifest.root) for text in options.on_drain]
    files = guard_files(lab.manifest)
    with files.lock():
        sitting = Sitting(lab, options)
        clock = BootClock()
        ending = Ending(sitting.deadline(), clock.now())
        return _guard(lab, reopen, (sitting, clock, ending), options, hooks, say)


def _guard(
    lab: Lab,
    reopen: Callable[[Options], Lab],
    parts: tuple[Sitting, BootClock, Ending],
    options: GuardOptions,
    hooks: list[Hook],
    say: Callable[[str], None],
) -> ExitCode:
    sitting, clock, ending = parts
    files = guard_files(lab.manifest)
    span = ending.deadline.left(clock.now())

    def interval() -> float:
        return options.interval or default_interval(span)

    def refresh() -> None:
        deadline = sitting.deadline()
        if deadline.is_known or not ending.deadline.is_known:
            ending.revise(deadline, clock.now())

    keeper = Keeper(files, sitting.book, sitting.box, sitting.profile.name)
    log = Log(keeper, sitting.box.read(), lambda text: say(f"{wall_text()} {text}"), interval)
    project = Project(reopen, replace(lab.options, yes=True), clock.now)
    project.sweep()
    files.was_asked_to_stop()  # an old word is no word
    log.begin(ending)
    guard = Guard(
        project, clock, ending, log, interval, on_drain=lambda: call_all(hooks, say), refresh=refresh
    )
    spot = Metadata(lab.options.env) if sitting.profile.name == "ec2-spot" else None
    ticker = Ticker(log, ending, clock, sitting.is_news, spot)
    with signals(ending, clock, files, sitting.profile.grace), ticker.ticking():
        return guard.run()


def expect_something_to_guard(lab: Lab) -> None:
    """Raise UsageError (2) where nothing is made, or the mirror may not be asked."""
    if not any(artifact.is_made for artifact in lab.manifest.artifacts):
        raise UsageError(
            f"nothing is made here, by `{lab.manifest.path.name}`",
            hint="add `results:`, or `checkpoints:` without an origin, for the guard to watch",
        )
    if not lab.has_mirror:
        raise UsageError(
            "the guard needs the mirror, and `--offline` forbids it", hint="start it without `--offline`"
        )
