"""What `status` says of the session: the time left, the hours used, the guard, and how the last one ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from labsync.events import Note
from labsync.guard.files import GuardFiles
from labsync.guard.journal import Journal, tell, wall_text
from labsync.session.book import book_path, present, read_book, see, used
from labsync.session.deadline import UNKNOWN, Deadline, decide
from labsync.session.profiles import PROFILES, own_profile
from labsync.session.readings import Box
from labsync.snapshot import ABBREVIATION
from labsync.steps.outcome import GuardStatus, LastSession, SessionStatus

if TYPE_CHECKING:
    from labsync.guard.journal import Past, Record
    from labsync.manifest.model import Manifest
    from labsync.session.profiles import Profile
    from labsync.steps.lab import Lab

MOST_NAMED = 5


def guard_files(manifest: Manifest) -> GuardFiles:
    """Return where the guard of a manifest keeps its files."""
    return GuardFiles(manifest.state_dir, manifest.path.stem)


def profile_of(manifest: Manifest, box: Box) -> Profile:
    """Return the profile of this box: what the manifest says, or what fits."""
    spec = manifest.session
    if spec.limit:
        return own_profile(spec.limit, spec.margin)
    return PROFILES[box.profile() if spec.profile in {"", "auto"} else spec.profile]


def session_status(lab: Lab) -> SessionStatus:
    """Return the time that is left, and the hours that were used.

    On a box that ends by the clock it is written down that the session goes on.
    """
    box, book = Box(env=lab.options.env), book_path(lab.options.env)
    profile, readings = profile_of(lab.manifest, box), box.read()
    if profile.is_limited:
        see(book, readings, profile.name, gpu=box.has_gpu)
    lives = read_book(book)
    life = present(lives, readings.box)
    if life is not None and life.deadline is not None and guard_files(lab.manifest).running(box):
        deadline = Deadline(life.deadline, life.source)  # notices and margins are in it
    elif life is not None:
        deadline = decide(profile, readings, life.first_seen, life.said)
    else:
        deadline = decide(profile, readings)
    left = deadline.left(readings.now)
    return SessionStatus(
        profile.name,
        None if left == UNKNOWN else round(left, 1),
        deadline.source,
        deadline.notes,
        round(used(lives, readings.wall, gpu=True), 1),
        round(used(lives, readings.wall, gpu=False), 1),
        _allowed(profile, "studio-lab-gpu"),
        _allowed(profile, "studio-lab-cpu"),
    )


def _allowed(profile: Profile, name: str) -> float | None:
    return PROFILES[name].per_day if profile.name.startswith("studio-lab") else None


def guard_status(lab: Lab) -> GuardStatus:
    """Return how the guard stands."""
    files, box = guard_files(lab.manifest), Box(env=lab.options.env)
    beat = files.last_heartbeat()
    if beat is None:
        return GuardStatus("off")
    now = time.time()
    sessions = Journal(files.journal).sessions()
    ended = not sessions or sessions[-1][-1].get("event") == "end"
    state = "off"
    if files.running(box):
        state = "running"
    elif not ended and beat.box == box.read().box:
        state = "died"
    return GuardStatus(
        state,
        beat.pid,
        beat.phase,
        beat.interval,
        round(max(0.0, now - beat.at), 1),
        None if beat.pushed_at is None else round(max(0.0, now - beat.pushed_at), 1),
        beat.waiting_files,
        beat.waiting_bytes,
        beat.errors,
        str(files.log),
    )


def warn_of_dead_guard(lab: Lab) -> None:
    """Warn the person where a guard of this session has ended without a word."""
    if guard_files(lab.manifest).heartbeat.exists() and (guard := guard_status(lab)).state == "died":
        what = f"the guard (process {guard.pid}) died: nothing is pushed until `labsync guard start`"
        lab.observe(Note(what, "warning"))


def last_session(lab: Lab) -> LastSession | None:
    """Return how the last session ended that the guard watched and that is over, None where there is none."""
    files, box = guard_files(lab.manifest), Box(env=lab.options.env)
    sessions = Journal(files.journal).sessions()
    beat = files.last_heartbeat()
    if files.running(box) and sessions:
        sessions.pop()
        beat = None
    if not sessions:
        return None
    past = tell(sessions[-1], wall_text(beat.at) if beat is not None else "")
    return LastSession(
        past.began,
        past.ended,
        past.reason,
        tuple(f"{s.get('artifact')}@{str(s.get('snapshot', ''))[:ABBREVIATION]}" for s in past.safe),
        tuple(_what_waited(item) for item in past.unsafe[:MOST_NAMED]),
        past.unsafe_files,
        past.unsafe_bytes,
        _command(past),
    )


def _what_waited(item: Record) -> str:
    return f"{item.get('artifact')} {item.get('path')}: {item.get('reason')}"


def _command(past: Past) -> str:
    return "labsync push" if past.unsafe_files else "labsync up"
