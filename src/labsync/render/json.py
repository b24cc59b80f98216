"""One typed JSON object per line; the last one is the report. `docs/formats.md` lists the fields."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from labsync.report import Report
    from labsync.steps.outcome import Item, Outcome

VERSION = 1
_LAYOUTS: dict[str, tuple[str, tuple[str, ...]]] = {}
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))  # `json.dumps` makes one a line


def item_type(item: Item) -> str:
    """Return the `type` of a data line: its class's name in snake case."""
    return _layout(type(item))[0]


def item_line(item: Item) -> str:
    """Return one data line."""
    kind, names = _layout(type(item))
    return _dump({"type": kind, "version": VERSION, **{name: getattr(item, name) for name in names}})


def _layout(kind: type[Item]) -> tuple[str, tuple[str, ...]]:
    """Return the type's name and its fields, which are flat; a plan may have a million lines."""
    known = _LAYOUTS.get(kind.__name__)
    if known is None:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
        known = _LAYOUTS[kind.__name__] = name, tuple(field.name for field in dataclasses.fields(kind))
    return known


def report_line(report: Report) -> str:
    """Return the line that ends every command's output."""
    return _dump({"type": "report", "version": VERSION, **dataclasses.asdict(report)})


def lines(outcome: Outcome) -> Iterator[str]:
    """Yield all lines of a command's outcome."""
    yield from map(item_line, outcome.items)
    yield report_line(outcome.report)


def _dump(value: dict[str, object]) -> str:
    return _ENCODER.encode(value)
