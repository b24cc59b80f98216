"""Errors: one exit code each, and how the codes of many failures become the run's."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labsync import errors
from labsync.errors import ExitCode, InvalidError, LabsyncError, UnavailableError, combine

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LabsyncError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_every_error_says_what_is_safe_and_has_a_documented_code(kind: type[LabsyncError]) -> None:
    error = kind("it broke", hint="mend it", artifact="models/m", path="a")
    assert error.exit_code in ExitCode
    assert error.exit_code != ExitCode.OK
    assert (str(error), error.what, error.hint) == ("it broke", "it broke", "mend it")
    assert (error.artifact, error.path) == ("models/m", "a")
    assert error.safe == kind.default_safe != ""
    assert kind("x", safe="all is well").safe == "all is well"
    assert not re.search(r"[.]$|^[A-Z]", error.safe)


def test_only_what_is_found_before_anything_begins_says_that_nothing_was_changed() -> None:
    for before in (errors.UsageError, InvalidError):
        assert before("x").safe == "nothing was changed"
    for within in (errors.NotFoundError, errors.NotAllowedError, errors.DiskError):
        assert within("x").safe == "what was finished before is kept, nothing else was changed"


def test_every_deliberate_failure_but_a_bug_has_its_own_error() -> None:
    signals = {ExitCode.HANGUP, ExitCode.TERMINATED}
    only_combined = {ExitCode.OK, ExitCode.DEADLINE}
    assert {kind.exit_code for kind in KINDS} == set(ExitCode) - signals - only_combined


def test_only_what_may_pass_is_retryable() -> None:
    assert {kind.__name__ for kind in KINDS if kind.retryable} == {
        "IntegrityError", "ChangedError", "UnavailableError",
    }  # fmt: skip


def test_the_fields_that_single_errors_add() -> None:
    assert InvalidError("x", issues=("f:1: y",)).issues == ("f:1: y",)
    assert UnavailableError("x", retry_after=2.5).retry_after == 2.5


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([], 0),
        ([0, 0], 0),
        ([5], 5),
        ([5, 5, 0], 5),
        ([5, 7], 4),
        ([4, 5], 4),
        ([5, 15], 15),
        ([15, 130], 130),
        ([7, 143, 15], 143),
        ([129, 15], 129),
        ([1, 130], 1),
    ],
)
def test_the_code_of_a_run(codes: list[int], expected: int) -> None:
    assert combine(codes) == expected


@given(st.lists(st.sampled_from([int(code) for code in ExitCode]), max_size=6))
def test_the_code_of_a_run_is_zero_exactly_when_nothing_failed(codes: list[int]) -> None:
    assert (combine(codes) == 0) is (set(codes) <= {0})
    assert combine(codes) == combine(reversed(codes))
    assert combine([*codes, *codes]) == combine(codes)
