"""What is finished and may be pushed: pure functions of what was seen of the files, and when.

A file is settled when no process has it open for writing, its format is complete, and it has rested,
unchanged by size, mtime, ctime and inode, for some seconds of a clock that nobody sets. A checkpoint
folder is one unit: finished by its own rule where it has one, otherwise when the whole set rests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping

    from labsync.guard.formats import Wholeness

Verdict = Literal["ready", "growing", "waiting"]


class Sight(NamedTuple):
    """What of a file's stat tells whether it is as it was."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    links: int

    @classmethod
    def of(cls, found: os.stat_result) -> Sight:
        """Return the stat in small."""
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_nlink)

    def is_like(self, other: Sight) -> bool:
        """Say whether nothing was written between the two; a change of the link count alone is none.

        Who pins a file by a second name, and who removes its first, moves the ctime as well.
        """
        same = (self.size, self.mtime_ns, self.inode) == (other.size, other.mtime_ns, other.inode)
        return same and (self.ctime_ns == other.ctime_ns or self.links != other.links)


@dataclass(frozen=True, slots=True)
class Sighting:
    """A file as it was last seen: `since` when it is so, `first` when a file of this name was first seen."""

    sight: Sight
    since: float
    first: float


def observe(before: Mapping[str, Sighting], found: Mapping[str, Sight], now: float) -> dict[str, Sighting]:
    """Return the sightings after another look; a name that was not found is forgotten."""
    return {path: _again(before.get(path), sight, now) for path, sight in found.items()}


def _again(known: Sighting | None, sight: Sight, now: float) -> Sighting:
    if known is None:
        return Sighting(sight, now, now)
    return Sighting(sight, known.since if known.sight.is_like(sight) else now, known.first)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether something may be pushed now; `ready_at` is when it may if nothing changes, else infinite."""

    verdict: Verdict
    reason: str = ""
    ready_at: float = math.inf


READY = Judgement("ready")


@dataclass(frozen=True, slots=True)
class View:
    """What is known at one look: the instant, who writes what, and how complete each file is.

    `rest` tells how long something must rest that was first seen at an instant. `wholeness` is asked
    only for files that nothing else speaks against. `grows` tells of a file that does not rest whether
    it begins as it did at the look before.
    """

    now: float
    rest: Callable[[float], float]
    writers: Mapping[str, int] = field(default_factory=dict)
    wholeness: Callable[[str], Wholeness] = lambda path: "unknown"  # noqa: ARG005  nothing is known
    grows: Callable[[str], bool] = lambda path: False  # noqa: ARG005


def judge_result(path: str, seen: Sighting, view: View) -> Judgement:
    """Return whether a file of results may be pushed: whole, or as the beginning of one that only grows."""
    pid, age = view.writers.get(path), view.now - seen.since
    rest = view.rest(seen.first)
    if pid is None and age >= rest:
        return READY if view.wholeness(path) != "broken" else Judgement("waiting", _BROKEN)
    if view.wholeness(path) == "unknown" and view.grows(path):
        return Judgement("growing", _written_by(pid))
    if pid is not None:
        return Judgement("waiting", _written_by(pid))
    return Judgement("waiting", "it changed a moment ago", seen.since + rest)


_BROKEN = "it is not complete: its format says that more must come"


def _written_by(pid: int | None) -> str:
    return f"process {pid} has it open for writing" if pid is not None else "it is being written"


@dataclass(frozen=True, slots=True)
class Unit:
    """A checkpoint as it was last seen: its files, and since when they are these.

    `finished` is what its own rule says, None where it has none; `missing` are files that it names
    itself and that are not there.
    """

    members: Mapping[str, Sighting]
    since: float
    first: float
    finished: bool | None = None
    missing: tuple[str, ...] = ()

    @property
    def changed(self) -> float:
        """When anything of it last changed."""
        return max([self.since, *(seen.since for seen in self.members.values())])

    @property
    def size(self) -> int:
        """The bytes of its files."""
        return sum(seen.sight.size for seen in self.members.values())


def observe_unit(
    before: Unit | None,
    members: Mapping[str, Sighting],
    now: float,
    *,
    finished: bool | None,
    missing: Iterable[str] = (),
) -> Unit:
    """Return the unit after another look."""
    if before is None:
        return Unit(members, now, now, finished, tuple(missing))
    since = before.since if before.members.keys() == members.keys() else now
    return Unit(members, since, before.first, finished, tuple(missing))


def judge_unit(unit: Unit, view: View) -> Judgement:
    """Return whether a checkpoint may be pushed: all of it, or not at all.

    A rule replaces the waiting. So does the end of a single file whose format has one.
    """
    if unit.finished is False:
        return Judgement("waiting", "the checkpoint is not finished")
    if unit.missing:
        return Judgement("waiting", f"`{unit.missing[0]}` of the checkpoint is missing")
    for path in unit.members:
        if (pid := view.writers.get(path)) is not None:
            return Judgement("waiting", _written_by(pid))
    rest = view.rest(unit.first)
    if not unit.finished and (waiting := _resting(unit, view, rest)):
        return waiting
    if any(view.wholeness(path) == "broken" for path in unit.members):
        return Judgement("waiting", _BROKEN)
    return READY


def _resting(unit: Unit, view: View, rest: float) -> Judgement | None:
    """Return the judgement of a unit without a rule that has not rested long enough, None when it has."""
    only = next(iter(unit.members)) if len(unit.members) == 1 else ""
    has_end = bool(only) and view.wholeness(only) == "whole"
    until = (unit.since if has_end else unit.changed) + rest
    return Judgement("waiting", "it changed a moment ago", until) if view.now < until else None
