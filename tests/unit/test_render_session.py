"""The session, the guard and the last session, as a tired person reads them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from labsync.render.json import item_line
from labsync.render.text import item_lines
from labsync.steps.outcome import Advice, GuardStatus, LastSession, SessionStatus

if TYPE_CHECKING:
    from labsync.steps.outcome import Item

STUDIO = SessionStatus(
    "studio-lab-gpu", 11520.0, "the time left that you typed", (), 9000.0, 3600.0, 14400.0, 28800.0
)
CUT = LastSession(
    "2026-11-27T08:00:00Z",
    "2026-11-27T11:58:12Z",
    "",
    ("checkpoints/tuned@0123456789ab",),
    ("results/runs log.txt: it is being written",),
    3,
    2048,
    "labsync push",
)


@pytest.mark.parametrize(
    ("item", "lines"),
    [
        (STUDIO, ["time left: 3h12m (the time left that you typed)",
                  "used in the last 24 h: GPU 2.5 of 4 h, CPU 1.0 of 8 h"]),
        (SessionStatus("generic", None, "no limit is known"), []),
        (SessionStatus("sm-training", None, "no limit is known"),
         ["time left: not known for sm-training; `labsync guard start --remaining 3h12m` tells it"]),
        (SessionStatus("generic", 60.0, "a guess", ("not counted: another guess",)),
         ["time left: 1m (a guess)", "  not counted: another guess"]),
        (GuardStatus("off"), []),
        (GuardStatus("off", 7), ["guard: not running"]),
        (GuardStatus("running", 7, "watch", 600.0, 12.0, 65.0),
         ["guard: running (process 7, watch), pushed 1m05s ago"]),
        (GuardStatus("running", 7, "drain", 600.0, 500.0, None, 2, 10, 1, "x.log"),
         ["guard: running (process 7, drain), nothing pushed yet",
          "  warning: its last sign of life came 8m20s ago: see x.log",
          "  2 waiting, 10 B", "  its last round met errors: see x.log"]),
        (GuardStatus("died", 7, "watch", 600.0, 3600.0, 3700.0, log="x.log"),
         ["guard: it died 1h ago without a word, see x.log; `labsync guard start`"]),
        (CUT, ["last session: was cut off, 2026-11-27 11:58 UTC (begun 2026-11-27 08:00 UTC)",
               "  safe: checkpoints/tuned@0123456789ab", "  not safe: 3 files and checkpoints, 2.0 KiB",
               "    results/runs log.txt: it is being written", "  continue: labsync push"]),
        (LastSession("2026-11-27T08:00:00Z", "2026-11-27T11:58:12Z", "you stopped it"),
         ["last session: ended: you stopped it, 2026-11-27 11:58 UTC (begun 2026-11-27 08:00 UTC)"]),
    ],
)  # fmt: skip
def test_what_is_said(item: Item, lines: list[str]) -> None:
    assert list(item_lines([item])) == lines


def test_the_session_is_told_before_the_advice() -> None:
    advice = Advice(0, 0, (), "labsync guard start")
    told = list(item_lines([advice, STUDIO, GuardStatus("off", 7), CUT]))
    assert [line.partition(":")[0] for line in told if not line.startswith(" ")] == [
        "time left", "used in the last 24 h", "guard", "last session", "if this box died now", "next",
    ]  # fmt: skip


def test_an_unknown_end_is_null_for_machines() -> None:
    assert json.loads(item_line(SessionStatus("generic", None, "")))["seconds_left"] is None
