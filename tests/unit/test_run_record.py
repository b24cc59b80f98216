"""The record of a run: written, read again, gone on with, and timed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from labsync.events import Event, FileDone, FileStarted, Note, StageStarted
from labsync.report import ErrorReport, Report, SmokeResult
from labsync.run_record import Earlier, Span, comparisons, continued, read_record, record_text
from labsync.steps.chronicle import Chronicle
from tests.fakes.recorder import Recorder
from tests.fakes.run_records import FAILED, PASSED, PENDING, RECORD


def test_a_record_is_read_as_it_was_written() -> None:
    assert read_record(record_text(RECORD)) == RECORD


def test_the_record_begins_like_the_report_of_every_command() -> None:
    value = json.loads(record_text(RECORD))
    assert (value["type"], value["version"], value["exit_code"]) == ("report", 1, 14)
    assert value["run"]["project"] == "vision-lab"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"version": 1}',
        record_text(RECORD).replace('"version": 1', '"version": 2'),
        record_text(RECORD).replace('"seconds": 49.2', '"seconds": "long"'),
        record_text(RECORD).replace('"kind": "stage"', '"kind": "act"'),
        record_text(RECORD).replace('"spans": [', '"spans": 3, "other": ['),
        record_text(RECORD)[:-40],
    ],
)
def test_what_is_no_record_of_this_version_is_done_without(text: str) -> None:
    assert read_record(text) is None


def test_a_smoke_run_goes_on_with_the_rest_of_the_lab() -> None:
    proven = replace(PENDING, result="pass", reason="features 201x64")
    later = replace(RECORD, command="smoke", time="2026-11-29T08:00:00+00:00", report=Report(smoke=(proven,)))
    whole = continued(RECORD, later)
    assert [result.name for result in whole.report.smoke] == [r.name for r in RECORD.report.smoke]
    assert proven in whole.report.smoke
    assert whole.report.artifacts == RECORD.report.artifacts
    assert whole.report.exit_code == 14  # another model still fails
    assert (whole.command, whole.time) == ("smoke", later.time)


def test_a_healed_model_is_no_failure_any_more() -> None:
    healed = replace(FAILED, result="pass", reason="3 masks", hint="")
    whole = continued(RECORD, replace(RECORD, command="smoke", report=Report(smoke=(healed,))))
    assert (whole.report.exit_code, whole.report.errors) == (0, ())


def test_another_failure_is_told_beside_what_failed_before() -> None:
    gated = ErrorReport(7, "models/dinov3", "", "gated", "ask")
    before = replace(RECORD, report=replace(RECORD.report, errors=(gated, *RECORD.report.errors)))
    again = ErrorReport(14, "checkpoints/sam", "", "still cut off", "")
    whole = continued(before, replace(RECORD, report=Report(14, smoke=(FAILED,), errors=(again,))))
    assert whole.report.errors == (gated, again)
    assert whole.report.exit_code == 4


def test_a_model_that_is_new_is_added() -> None:
    new = SmokeResult("models/new", "python", "pass")
    whole = continued(RECORD, replace(RECORD, report=Report(smoke=(new,))))
    assert whole.report.smoke[-1] == new


def test_a_run_is_compared_with_the_last_one_that_really_ran_the_model() -> None:
    first = replace(RECORD, earlier=(Earlier(PENDING.name, "2026-11-01T00:00:00+00:00", "pass", 9.0, 7),))
    found = {item.name: item for item in comparisons(first)}
    assert found[PASSED.name] == Earlier(PASSED.name, RECORD.time, "pass", PASSED.seconds, PASSED.peak_bytes)
    assert found[PENDING.name].seconds == 9.0
    assert set(found) == {PASSED.name, "models/qwen2-vl-2b", FAILED.name, PENDING.name}


# --- the chronicle -------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_chronicle_tells_stages_and_transfers_and_passes_everything_on() -> None:
    clock, recorder = Clock(), Recorder()
    chronicle = Chronicle(recorder, clock)
    told: list[tuple[float, Event]] = [
        (0.0, StageStarted("lock")),
        (1.0, StageStarted("pull", "2 artifacts")),
        (1.5, FileStarted("models/a", "x")),
        (2.0, FileDone("models/b", "small", 1)),
        (3.0, FileDone("models/a", "x", 10)),
        (3.5, Note("a word")),
        (4.0, StageStarted("environment", "lab")),
        (4.5, StageStarted("environment", "building lab-123")),
    ]
    for at, event in told:
        clock.now = 100.0 + at
        chronicle(event)
    clock.now = 106.0
    assert chronicle.spans() == (
        Span("lock", "stage", 0.0, 1.0),
        Span("pull", "stage", 1.0, 4.0),
        Span("environment", "stage", 4.0, 6.0),
        Span("models/a", "artifact", 1.5, 3.0),
        Span("models/b", "artifact", 2.0, 2.0),
    )
    assert recorder.events == tuple(event for _, event in told)
    assert chronicle.seconds == 6.0


def test_a_run_without_stages_has_a_chronicle_too() -> None:
    assert Chronicle(Recorder(), Clock()).spans() == ()
