"""A command's value for a person: tables that fit a terminal, errors in three short lines."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from labsync.names import escape
from labsync.render.session import guard_lines, last_session_lines, session_lines
from labsync.render.units import files, size
from labsync.snapshot import ABBREVIATION
from labsync.steps.outcome import (
    Action,
    Advice,
    Check,
    Document,
    GuardStatus,
    LastSession,
    Location,
    LockLine,
    SessionStatus,
    SnapshotLine,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from labsync.report import Built, ErrorReport, Report
    from labsync.steps.outcome import Item, Outcome


def table(rows: Sequence[Sequence[str]], indent: str = "") -> Iterator[str]:
    """Yield aligned lines; the last column is not padded."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        yield f"{indent}{'  '.join([*cells, row[-1]])}".rstrip()


def error_lines(error: ErrorReport) -> Iterator[str]:
    """Yield the three lines of an error, one more per issue of a file and per further line of a part."""
    first, *others = map(escape, error.message.split("\n"))
    yield f"error: {first}"
    yield from (f"  {line}" for line in others)
    for issue in error.issues:
        yield f"  {escape(issue)}"
    if error.safe:
        yield f"safe: {escape(error.safe)}"
    if error.hint:
        first, *others = map(escape, error.hint.split("\n"))
        yield f"hint: {first}"
        yield from (f"  {line}" for line in others)


ALIKE = 3  # errors that differ in the file alone are shown up to this many


def all_error_lines(errors: Sequence[ErrorReport]) -> Iterator[str]:
    """Yield the lines of all errors; what befell several artifacts or many files is said once."""
    groups: dict[tuple[int, str, str], list[ErrorReport]] = {}
    for error in errors:
        groups.setdefault((error.code, error.message, error.hint), []).append(error)
    shown: Counter[tuple[int, str, str]] = Counter()
    for (code, message, hint), group in groups.items():
        alike = (code, group[0].artifact, hint)
        shown[alike] += 1
        if shown[alike] <= ALIKE or not group[0].path:
            names = [error.artifact for error in group if error.artifact and error.artifact not in message]
            about = f" ({', '.join(dict.fromkeys(names))})" if names else ""
            yield from error_lines(replace(group[0], message=f"{message}{about}"))
    for (_, artifact, _), count in shown.items():
        if count > ALIKE:
            yield f"error: {count - ALIKE} more files of `{artifact}` alike; `--json` lists them all"


def item_lines(items: Sequence[Item]) -> Iterator[str]:
    """Yield the data lines of an outcome; equal kinds become one table, the session comes first."""
    items = sorted(items, key=_order)
    groups: dict[type, list[Sequence[str]]] = {}
    for item in items:
        groups.setdefault(type(item), []).append(_row(item))
    for kind, group in groups.items():
        if kind in _LINES:
            yield from (line for row in group for line in row)
        else:
            yield from table(group)


def _row(item: Item) -> Sequence[str]:
    match item:
        case Action(artifact, path, source, to, count, reason):
            where = f"{source} -> {' + '.join(to)}" if to else ""
            return (artifact, escape(path), where, size(count), reason)
        case SnapshotLine(artifact, snapshot, time, host, number, count, label):
            short = snapshot[:ABBREVIATION]
            return (f"{artifact}@{short}", time, host, files(number), size(count), label)
        case Location(_, location):
            return (location,)
        case Usage(name, location, number, count, note):
            return (name, size(count), files(number), location, note)
        case Check(name, result, detail, hint):
            return (f"{_MARKS[result]} {name}", f"{detail}{f' (hint: {hint})' if hint else ''}")
        case Document(_, text):
            return (text,)
        case LockLine(artifact, state, revision, number, count):
            return (artifact, state, revision[:ABBREVIATION], files(number), size(count))
        case _:
            return tuple(_told(item))


def _told(item: SessionStatus | GuardStatus | LastSession | Advice) -> Iterator[str]:
    match item:
        case SessionStatus():
            return session_lines(item)
        case GuardStatus():
            return guard_lines(item)
        case LastSession():
            return last_session_lines(item)
        case Advice():
            return _advice(item)


_LINES = (SessionStatus, GuardStatus, LastSession, Advice)
"""What is told in lines of its own, in the order in which a person needs it."""


def _order(item: Item) -> int:
    return _LINES.index(type(item)) if isinstance(item, _LINES) else len(_LINES)


_MARKS = {"ok": "ok", "warning": "!!", "failed": "XX"}


def _advice(advice: Advice) -> Iterator[str]:
    if advice.at_risk_files:
        names = ", ".join(advice.at_risk[:3]) + (" …" if len(advice.at_risk) > 3 else "")
        yield (
            f"if this box died now: {files(advice.at_risk_files)}, {size(advice.at_risk_bytes)} "
            f"would be lost ({names})"
        )
    elif not advice.unknown:
        yield "if this box died now: nothing made here would be lost"
    if advice.unknown:
        yield f"unknown, because it could not be looked at: {', '.join(advice.unknown)}"
    if advice.embedded and advice.at_risk_files:
        yield "the mirror is on this machine, too: name a bucket with `mirror:` in the manifest"
    if advice.next_command:
        yield f"next: {advice.next_command}"


def report_lines(report: Report) -> Iterator[str]:
    """Yield the report: artifacts, what moved, environment, kernel, smoke results."""
    if report.artifacts:
        yield "artifacts"
        yield from table(
            [
                (a.name, a.disk, f"mirror {a.mirror}", files(a.files), size(a.bytes), a.reason)
                for a in report.artifacts
            ],
            "  ",
        )
    moved = report.transferred
    if moved.files:
        yield (
            f"moved      {files(moved.files)}, {size(moved.bytes)}: {size(moved.from_origin)} from origins, "
            f"{size(moved.from_mirror)} from the mirror, {size(moved.to_mirror)} to the mirror"
        )
    if report.environment:
        built = report.environment
        yield f"environment  {built.name}  {built.state}  {built.prefix}{_why(built)}"
    if report.kernel:
        yield f"kernel       {report.kernel.name}  {report.kernel.state}{_why(report.kernel)}"
    if report.smoke:
        yield "smoke"
        yield from table(
            [
                (s.name, s.task, s.result, f"{s.seconds:.1f} s" if s.device else "", s.device, s.reason)
                for s in report.smoke
            ],
            "  ",
        )
    for skipped in report.skipped:
        yield f"skipped  {escape(skipped.path)}: {skipped.reason}"


def _why(built: Built) -> str:
    return f"  {escape(built.reason)}" if built.reason else ""


def lines(outcome: Outcome) -> Iterator[str]:
    """Yield what goes to stdout for a person."""
    yield from item_lines(outcome.items)
    yield from report_lines(outcome.report)
