"""JSON lines: typed, versioned, the report last."""

from __future__ import annotations

import dataclasses
import json

import pytest

from labsync.render.json import item_line, item_type, lines, report_line
from labsync.report import ErrorReport, Report, Skipped
from labsync.steps.outcome import (
    Action,
    Advice,
    Check,
    Item,
    Location,
    LockLine,
    Outcome,
    SnapshotLine,
    Usage,
)

ITEMS: list[tuple[Item, str]] = [
    (Action("models/a", "w", "origin", ("disk",), 1, "behind"), "action"),
    (SnapshotLine("results/r", "00", "t", "h", 1, 2, "head"), "snapshot_line"),
    (Location("models/a", "/x"), "location"),
    (Usage("models/a", "/x", 1, 2), "usage"),
    (Check("git", "ok", "2.5"), "check"),
    (LockLine("models/a", "locked", "r", 1, 2), "lock_line"),
    (Advice(0, 0, (), ""), "advice"),
]


@pytest.mark.parametrize(("item", "name"), ITEMS)
def test_every_item_carries_its_type_version_and_fields(item: Item, name: str) -> None:
    assert item_type(item) == name
    value = json.loads(item_line(item))
    assert list(value)[:2] == ["type", "version"]
    assert (value["type"], value["version"]) == (name, 1)
    assert set(value) == {"type", "version", *(field.name for field in dataclasses.fields(item))}


def test_the_report_is_last_and_one_line_whatever_is_in_it() -> None:
    report = Report(
        exit_code=5, errors=(ErrorReport(5, "models/a", "p\n", "é \x1b", ""),), skipped=(Skipped("x", "y"),)
    )
    shown = list(lines(Outcome(report, tuple(item for item, _ in ITEMS))))
    assert all("\n" not in line for line in shown)
    assert [json.loads(line)["type"] for line in shown] == [*(name for _, name in ITEMS), "report"]
    last = json.loads(shown[-1])
    assert last["exit_code"] == 5
    assert last["errors"][0]["path"] == "p\n"
    assert shown[-1] == report_line(report)
    assert "é" in shown[-1]
