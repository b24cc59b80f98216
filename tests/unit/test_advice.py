"""The next command: one line for a tired person, the most urgent first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from labsync.report import ArtifactReport
from labsync.steps.advice import next_command, with_guard
from labsync.steps.outcome import Advice, GuardStatus, SessionStatus

if TYPE_CHECKING:
    from labsync.report import DiskState, MirrorState


def stand(name: str, disk: DiskState = "ok", mirror: MirrorState = "ok", reason: str = "") -> ArtifactReport:
    return ArtifactReport(name, "", disk, mirror, 1, 1, reason)


@pytest.mark.parametrize(
    ("reports", "at_risk", "command"),
    [
        ([], [], ""),
        ([stand("models/a")], [], ""),
        ([stand("models/a", "extra")], [], ""),
        ([stand("models/a", "failed", reason="`labsync lock` resolves it")], [], "labsync lock"),
        # `lock` inside another word is not the lock
        ([stand("models/a", "failed", reason="access to `org/blocked` was blocked")], [], ""),
        ([stand("results/r", "conflict")], ["results/r"],
         ("labsync pull results/r --force (theirs; yours is set aside)"
         " or labsync push results/r --force (yours)")),
        ([stand("results/r", "ahead"), stand("models/a", "behind")], ["results/r"], "labsync push results/r"),
        ([stand("models/a", "modified", reason="`x` damaged: …")], [], "labsync verify --repair"),
        ([stand("models/a", "missing")], [], "labsync pull models/a"),
        ([stand("models/a", "behind"), stand("models/b", "missing")], [], "labsync pull models/a models/b"),
        ([stand(f"models/{n}", "missing") for n in range(4)], [], "labsync pull"),
        ([stand("models/a", mirror="missing")], [], "labsync mirror models/a"),
        ([stand("models/a", mirror="off")], [], ""),
    ],
)  # fmt: skip
def test_next_command(reports: list[ArtifactReport], at_risk: list[str], command: str) -> None:
    assert next_command(reports, at_risk) == command


def test_made_artifacts_are_never_advised_to_be_mirrored_from_an_origin() -> None:
    reports = [stand("results/r", mirror="missing"), stand("results/s", "failed", "missing")]
    assert next_command(reports, [], {"results/r", "results/s"}) == ""


PUSH = Advice(1, 1, ("results/r",), "labsync push results/r")
NOTHING = Advice(0, 0, (), "")
LIMITED, UNLIMITED = SessionStatus("studio-lab-gpu", 60.0, ""), SessionStatus("generic", None, "")
RUNS = GuardStatus("running", 7, pushed_age=5.0)


@pytest.mark.parametrize(
    ("advice", "session", "guard", "command"),
    [
        (NOTHING, LIMITED, GuardStatus("off"), "labsync guard start"),
        (NOTHING, UNLIMITED, GuardStatus("off"), ""),
        (NOTHING, UNLIMITED, GuardStatus("died", 7), "labsync guard start"),
        (NOTHING, LIMITED, RUNS, ""),
        (replace(NOTHING, embedded=True), LIMITED, GuardStatus("off"), ""),
        (PUSH, LIMITED, GuardStatus("off"), "labsync push results/r"),
        # the guard will push it, unless it has looked and left it
        (PUSH, LIMITED, RUNS, ""),
        (PUSH, LIMITED, replace(RUNS, pushed_age=None, waiting_files=1), ""),
        (PUSH, LIMITED, replace(RUNS, waiting_files=1), "labsync push results/r"),
        (replace(PUSH, next_command="labsync pull"), LIMITED, RUNS, "labsync pull"),
    ],
)
def test_the_guard_is_advised_where_a_session_ends_by_the_clock(
    advice: Advice, session: SessionStatus, guard: GuardStatus, command: str
) -> None:
    assert with_guard(advice, session, guard).next_command == command
