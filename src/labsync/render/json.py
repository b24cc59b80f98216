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


def item_type(item: Item) -> str:
    """Return the `type` of a data line: its class's name in snake case."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(item).__name__).lower()


def item_line(item: Item) -> str:
    """Return one data line."""
    return _dump({"type": item_type(item), "version": VERSION, **dataclasses.asdict(item)})


def report_line(report: Report) -> str:
    """Return the line that ends every command's output."""
    return _dump({"type": "report", "version": VERSION, **dataclasses.asdict(report)})


def lines(outcome: Outcome) -> Iterator[str]:
    """Yield all lines of a command's outcome."""
    yield from map(item_line, outcome.items)
    yield report_line(outcome.report)


def _dump(value: dict[str, object]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
