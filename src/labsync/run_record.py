"""A run as `labsync-report.json` keeps it: the report, and when, where and how long. Pure values.

The next run reads it again, to compare; what it cannot read it does without.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from labsync.report import Report, exit_code_of

T = TypeVar("T")

VERSION = 1


@dataclass(frozen=True, slots=True)
class Span:
    """A stage of the run, or the transfer of one artifact from its first file's turn to its last one's end.

    `start` and `end` in seconds of the run.
    """

    name: str
    kind: Literal["stage", "artifact"]
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class DiskUse:
    """What takes how many bytes of the disk that the lab lies on."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class DiskReport:
    """The file system of the lab in bytes; `budget` is 0 where the manifest sets none."""

    total: int = 0
    free: int = 0
    reserve: int = 0
    budget: int = 0
    uses: tuple[DiskUse, ...] = ()


@dataclass(frozen=True, slots=True)
class MachineReport:
    """The machine that the run was on; `memory` in bytes, `gpu` the driver or empty."""

    host: str = ""
    system: str = ""
    python: str = ""
    cores: int = 0
    memory: int = 0
    gpu: str = ""


@dataclass(frozen=True, slots=True)
class Earlier:
    """What is compared of an earlier run: one model's result, time and memory."""

    name: str
    time: str
    result: str
    seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of `command`: `time` is its beginning in UTC, `seconds` its length."""

    project: str
    command: str
    time: str
    seconds: float
    labsync: str
    mirror: str
    report: Report
    spans: tuple[Span, ...] = ()
    disk: DiskReport = DiskReport()
    machine: MachineReport = MachineReport()
    earlier: tuple[Earlier, ...] = field(default=())


def record_text(record: RunRecord) -> str:
    """Return the record as JSON: the report's own fields as every command prints them, the rest as `run`."""
    run = {name: value for name, value in dataclasses.asdict(record).items() if name != "report"}
    value = {"type": "report", "version": VERSION, **dataclasses.asdict(record.report), "run": run}
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def read_record(text: str) -> RunRecord | None:
    """Return the record that `record_text` wrote, None for anything else, an older or newer form included."""
    try:
        value = json.loads(text)
        if value["version"] != VERSION:
            return None
        names = {item.name for item in dataclasses.fields(Report)}
        report = {name: item for name, item in value.items() if name in names}
        return _decode(RunRecord, {**value["run"], "report": report})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _decode(kind: type[T], value: Any) -> T:  # noqa: ANN401  JSON's own
    hints = get_type_hints(kind)
    if not isinstance(value, dict) or value.keys() != hints.keys():
        raise TypeError(f"{kind.__name__} has other fields")
    return kind(**{name: _decode_as(hints[name], item) for name, item in value.items()})


def _decode_as(hint: Any, value: Any) -> Any:  # noqa: ANN401  JSON's own
    if dataclasses.is_dataclass(hint):
        return _decode(hint, value)  # type: ignore[arg-type]  # a class, which mypy cannot know
    if get_origin(hint) is tuple:
        return tuple(_decode_as(get_args(hint)[0], item) for item in value)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise TypeError(f"`{value}` is not one of {get_args(hint)}")
        return value
    options = get_args(hint)
    if type(None) in options:
        return None if value is None else _decode_as(options[0], value)
    if not isinstance(value, (int, float) if hint is float else hint):
        raise TypeError(f"{value!r} is no {hint}")
    return value


def continued(earlier: RunRecord, record: RunRecord) -> RunRecord:
    """Return the record of a run that only proved models, with the rest of the lab as it was before.

    Models that it did not run keep their earlier results; their failures are still failures.
    """
    mine = {result.name: result for result in record.report.smoke}
    kept = tuple(mine.pop(result.name, result) for result in earlier.report.smoke)
    failed = {result.name for result in kept if result.result == "fail"} - {
        result.name for result in record.report.smoke
    }
    errors = tuple(
        error for error in earlier.report.errors if error.code != _SMOKE_CODE or error.artifact in failed
    )
    errors += record.report.errors
    report = replace(
        earlier.report,
        smoke=(*kept, *mine.values()),
        errors=errors,
        exit_code=exit_code_of(errors),
        environment=record.report.environment or earlier.report.environment,
    )
    return replace(record, report=report, spans=earlier.spans)


_SMOKE_CODE = 14


def comparisons(earlier: RunRecord) -> tuple[Earlier, ...]:
    """Return what the next run compares itself with: of each model that ran its last result."""
    ran = [r for r in earlier.report.smoke if r.result in {"pass", "degraded", "fail"}]
    fresh = {r.name: Earlier(r.name, earlier.time, r.result, r.seconds, r.peak_bytes) for r in ran}
    older = {item.name: item for item in earlier.earlier}
    return tuple((older | fresh).values())
