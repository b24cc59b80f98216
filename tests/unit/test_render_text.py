"""Text for people, to the letter."""

from __future__ import annotations

import pytest

from labsync.render import text
from labsync.render.units import size
from labsync.report import (
    ArtifactReport,
    Built,
    ErrorReport,
    Report,
    Skipped,
    SmokeResult,
    Transferred,
)
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


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (1024**2, "1.0 MiB"),
        (2564550879, "2.4 GiB"),
        (1024**4, "1.0 TiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_size(count: int, shown: str) -> None:
    assert size(count) == shown


def test_table_aligns_all_but_the_last_column() -> None:
    assert list(text.table([("a", "long", "x"), ("longer", "b", "y z")], "  ")) == [
        "  a       long  x",
        "  longer  b     y z",
    ]
    assert list(text.table([])) == []
    assert list(text.table([("a", "")])) == ["a"]


def test_an_error_has_three_lines_and_its_issues() -> None:
    error = ErrorReport(
        3, "", "", "2 problems in `labsync.yaml`", "mend them", "nothing was changed", ("f:1: x", "f:2: y")
    )
    assert list(text.error_lines(error)) == [
        "error: 2 problems in `labsync.yaml`",
        "  f:1: x",
        "  f:2: y",
        "safe: nothing was changed",
        "hint: mend them",
    ]
    assert list(text.error_lines(ErrorReport(1, "", "", "it broke", ""))) == ["error: it broke"]


def test_no_line_of_an_error_can_drive_the_terminal() -> None:
    error = ErrorReport(1, "", "", "a\x1b[2Jb", "c\x1b]0;t\x07", "d\re", ("f\x1b",))
    shown = "\n".join(text.error_lines(error))
    assert shown.isprintable() or all(line.isprintable() for line in shown.splitlines())
    assert len(shown.splitlines()) == 4


def test_a_hint_of_several_lines_is_shown_as_lines_and_none_of_them_as_another_error() -> None:
    error = ErrorReport(9, "", "", "it does not fit", "1 B of room for\n  models/a  2 B\nerror: x\x1b\r")
    assert list(text.error_lines(error)) == [
        "error: it does not fit",
        "hint: 1 B of room for",
        "    models/a  2 B",
        "  error: x\\x1b\\r",
    ]


def test_what_befell_several_artifacts_is_said_once_with_their_names() -> None:
    same = [
        ErrorReport(8, name, "", "the mirror does not answer", "wait") for name in ("models/a", "models/b")
    ]
    other = ErrorReport(5, "models/c", "", "`x` of `models/c` is wrong", "")
    assert list(text.all_error_lines([*same, other])) == [
        "error: the mirror does not answer (models/a, models/b)",
        "hint: wait",
        "error: `x` of `models/c` is wrong",
    ]


REPORT = Report(
    artifacts=(
        ArtifactReport("models/sam", "ab" * 32, "ok", "ok", 3, 2048),
        ArtifactReport("results/runs", "", "ahead", "missing", 12, 5, "`x` not pushed"),
    ),
    transferred=Transferred(files=2, bytes=3072, from_origin=2048, from_mirror=1024, to_mirror=10),
    environment=Built("mlgpu", "/envs/mlgpu", "built"),
    kernel=Built("mlgpu", "/envs/mlgpu", "proven"),
    smoke=(
        SmokeResult("models/sam", "segment-anything", "pass", "", 1.25, "cpu"),
        SmokeResult("models/qwen", "image-text-to-text", "pending", "no GPU here"),
    ),
    skipped=(Skipped("link\n", "is a link"),),
)


def test_report() -> None:
    assert list(text.report_lines(REPORT)) == [
        "artifacts",
        "  models/sam    ok     mirror ok       3 files   2.0 KiB",
        "  results/runs  ahead  mirror missing  12 files  5 B      `x` not pushed",
        "moved      2 files, 3.0 KiB: 2.0 KiB from origins, 1.0 KiB from the mirror, 10 B to the mirror",
        "environment  mlgpu  built  /envs/mlgpu",
        "kernel       mlgpu  proven",
        "smoke",
        "  models/sam   segment-anything    pass     1.2 s  cpu",
        "  models/qwen  image-text-to-text  pending              no GPU here",
        "skipped  link\\n: is a link",
    ]
    assert list(text.report_lines(Report())) == []


def test_items() -> None:
    items: list[Item] = [
        Action("models/a", "w\x1b", "origin", ("disk", "mirror"), 1024, "missing on the disk"),
        Action("results/r", "kept", "disk", (), 0, "kept: ahead"),
        SnapshotLine("results/r", "0123456789abcdef", "2026-01-01T00:00:00Z", "box", 2, 10, "head"),
        Location("models/a", "/lab/models/a"),
        Usage("models/a", "/lab/models/a", 2, 10, "comes back by `labsync pull`"),
        Check("git", "warning", "not found", "install it"),
        Check("python", "ok", "3.12"),
        LockLine("models/a", "locked", "0123456789abcdef", 2, 10),
    ]
    assert list(text.item_lines(items)) == [
        "models/a   w\\x1b  origin -> disk + mirror  1.0 KiB  missing on the disk",
        "results/r  kept                            0 B      kept: ahead",
        "results/r@0123456789ab  2026-01-01T00:00:00Z  box  2 files  10 B  head",
        "/lab/models/a",
        "models/a  10 B  2 files  /lab/models/a  comes back by `labsync pull`",
        "!! git     not found (hint: install it)",
        "ok python  3.12",
        "models/a  locked  0123456789ab  2 files  10 B",
    ]


def test_advice_says_what_would_be_lost_and_what_to_type() -> None:
    names = ("results/a", "results/b", "results/c", "results/d")
    assert list(text.lines(Outcome(Report(), (Advice(5, 2048, names, "labsync push"),)))) == [
        "if this box died now: 5 files, 2.0 KiB would be lost (results/a, results/b, results/c …)",
        "next: labsync push",
    ]
    assert list(text.item_lines([Advice(0, 0, (), "")])) == [
        "if this box died now: nothing made here would be lost"
    ]
