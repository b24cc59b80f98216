"""What a workflow returns: lines of data for stdout, and the report that ends every command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from labsync.report import ErrorReport, MirrorRequests, Report, Transferred, exit_code_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from labsync.plan import Plan


@dataclass(frozen=True, slots=True)
class Action:
    """One planned step, as `--dry-run` prints it; `source` is the place the bytes come from."""

    artifact: str
    path: str
    source: str
    to: tuple[str, ...]
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class SnapshotLine:
    """One snapshot of an artifact in the mirror, as `log` lists it."""

    artifact: str
    snapshot: str
    time: str
    host: str
    files: int
    bytes: int
    label: str


@dataclass(frozen=True, slots=True)
class Location:
    """Where an artifact is: a path on the disk, or a URL in the mirror."""

    artifact: str
    location: str


@dataclass(frozen=True, slots=True)
class Usage:
    """How many bytes something takes on the disk, and what labsync knows of it elsewhere."""

    name: str
    location: str
    files: int
    bytes: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One finding of `doctor`; `result` is `ok`, `warning` or `failed`."""

    name: str
    result: str
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A text that is printed as it is, to be passed on."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class LockLine:
    """How one artifact stands in the lock after `lock`."""

    artifact: str
    state: str
    revision: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Advice:
    """What a tired person needs first: what would be lost now, and the next command.

    `unknown` names made artifacts that could not be looked at. `embedded`: the mirror is on this
    machine, so nothing that was made here is safe.
    """

    at_risk_files: int
    at_risk_bytes: int
    at_risk: tuple[str, ...]
    next_command: str
    unknown: tuple[str, ...] = ()
    embedded: bool = False


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """The session of this box: times in seconds, None where no limit is known.

    `gpu_used` and `cpu_used` are of the last 24 hours; `gpu_allowed` and `cpu_allowed` what the platform
    gives in that time. `source` says where the time left was learned from, `notes` which guesses were
    dropped.
    """

    profile: str
    seconds_left: float | None
    source: str
    notes: tuple[str, ...] = ()
    gpu_used: float = 0.0
    cpu_used: float = 0.0
    gpu_allowed: float | None = None
    cpu_allowed: float | None = None


@dataclass(frozen=True, slots=True)
class GuardStatus:
    """How the guard stands: `running`, `off`, or `died`, when it ended without a word in this session.

    `beat_age` and `pushed_age` are seconds since its last sign of life and since its last push, None
    where there was none.
    """

    state: str
    pid: int = 0
    phase: str = ""
    interval: float = 0.0
    beat_age: float | None = None
    pushed_age: float | None = None
    waiting_files: int = 0
    waiting_bytes: int = 0
    errors: int = 0
    log: str = ""


@dataclass(frozen=True, slots=True)
class LastSession:
    """The last session that a guard watched: `reason` is why it ended, empty when it was cut off.

    `safe` names the snapshots that the mirror had at its end, `unsafe` what was on the disk alone;
    `command` continues.
    """

    began: str
    ended: str
    reason: str
    safe: tuple[str, ...] = ()
    unsafe: tuple[str, ...] = ()
    unsafe_files: int = 0
    unsafe_bytes: int = 0
    command: str = ""


Item: TypeAlias = (
    Action
    | SnapshotLine
    | Location
    | Usage
    | Check
    | Document
    | LockLine
    | Advice
    | SessionStatus
    | GuardStatus
    | LastSession
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A command's value: data lines first, the report last."""

    report: Report
    items: tuple[Item, ...] = ()


def finish(
    errors: Iterable[ErrorReport],
    *,
    items: Iterable[Item] = (),
    requests: MirrorRequests | None = None,
    transferred: Transferred | None = None,
) -> Outcome:
    """Return the outcome of a command that reports no artifacts."""
    listed = tuple(errors)
    report = Report(
        exit_code=exit_code_of(listed),
        errors=listed,
        mirror_requests=requests or MirrorRequests(),
        transferred=transferred or Transferred(),
    )
    return Outcome(report, tuple(items))


def actions(plans: Iterable[Plan]) -> tuple[Action, ...]:
    """Return what the plans would do, one line per route and per kept file."""
    lines: list[Action] = []
    for plan in plans:
        for route in plan.routes:
            to = (("disk",) if route.publications else ()) + (("mirror",) if route.key else ())
            for path in [p.entry.path for p in route.publications] or [route.entry.path]:
                place = route.sources[0].place
                lines.append(Action(plan.artifact, path, place, to, route.entry.size, route.reason))
        for pack in plan.packs:
            place, name = pack.members[0].sources[0].place, pack.key.rpartition("/")[2]
            lines.append(Action(plan.artifact, name, place, ("mirror",), pack.size, "missing in the mirror"))
        lines += [Action(plan.artifact, k.path, "disk", (), 0, f"kept: {k.reason}") for k in plan.kept]
        lines += [Action(plan.artifact, u.entry.path, "", (), 0, "no place has it") for u in plan.unmet]
    return tuple(lines)
