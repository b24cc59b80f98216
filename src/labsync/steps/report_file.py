"""The report beside the manifest, for people and programs that come later."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from labsync import atomic

if TYPE_CHECKING:
    from pathlib import Path

    from labsync.steps.outcome import Outcome

REPORT = "labsync-report.json"
VERSION = 1


def write_report(folder: Path, outcome: Outcome) -> Path:
    """Write the report of a bootstrap beside the manifest, wholly or not at all, and return its path."""
    value = {"type": "report", "version": VERSION, **dataclasses.asdict(outcome.report)}
    path = folder / REPORT
    atomic.write_bytes(path, json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n")
    return path
