"""The out-of-memory ladder: every rung with a simulated shortage, and what is told of it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from labsync.smoke.checks import Outcome, judge
from labsync.smoke.ladder import FEWER_PIXELS, climb, ran_out, rungs
from labsync.smoke.request import Observation, ProbeRequest

if TYPE_CHECKING:
    from labsync.report import SmokeResult
    from labsync.smoke.ladder import Rung

TALK = ProbeRequest("image-text-to-text", "/models/qwen", device="cuda", max_new_tokens=32)
SEGMENT = ProbeRequest("segment-anything", "/checkpoints/sam_vit_h.pth")
SMALLER = (("checkpoints/sam-vit-b", ProbeRequest("segment-anything", "/checkpoints/sam_vit_b.pth")),)

GOOD = Outcome(
    0,
    Observation(
        shape=(1, 3), expected=(1, 3), minimum=0, maximum=1, difference=1, text="a frog", device="cuda"
    ),
)
SHORT = Outcome(1, Observation(problem="memory ran out: CUDA out of memory", trouble="memory"))
KILLED = Outcome(-signal.SIGKILL, None)
ABORTED = Outcome(-signal.SIGABRT, None, error_text="terminate called after throwing: std::bad_alloc")
NO_PACKAGE = Outcome(1, Observation(problem="the package `bitsandbytes` is not installed", trouble="package"))
DAMAGED = Outcome(1, Observation(problem="`model.safetensors` is cut off", trouble="file"))


class Machine:
    """A machine on which each attempt ends as it was told beforehand."""

    def __init__(self, *outcomes: Outcome) -> None:
        self._outcomes = list(outcomes)
        self.asked: list[ProbeRequest] = []

    def __call__(self, request: ProbeRequest) -> Outcome:
        self.asked.append(request)
        return self._outcomes.pop(0)


def _names(ladder: tuple[Rung, ...]) -> list[str]:
    return [rung.gives_up for rung in ladder]


def _run(machine: Machine, ladder: tuple[Rung, ...]) -> SmokeResult:
    return judge("models/it", ladder[0].request.task, "cuda", climb(ladder, machine))


def test_the_rungs_give_up_pixels_then_precision_then_the_model() -> None:
    ladder = rungs(TALK, [("models/small", ProbeRequest(TALK.task, "/models/small"))])
    assert _names(ladder) == ["", "fewer pixels", "int8", "the fallback models/small"]
    assert ladder[0].request == TALK
    assert (ladder[1].request.max_pixels, ladder[1].request.max_new_tokens) == (FEWER_PIXELS, 8)
    assert (ladder[2].request.dtype, ladder[2].request.max_pixels) == ("int8", FEWER_PIXELS)
    assert ladder[3].request.model == "/models/small"


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        (SEGMENT, [""]),
        (ProbeRequest("python", "/m"), [""]),
        (ProbeRequest("image-feature-extraction", "/m"), ["", "int8"]),
        (ProbeRequest("image-feature-extraction", "/m", dtype="int8"), [""]),
        (ProbeRequest("video-classification", "/m", trust_remote_code="c" * 40), [""]),
        (ProbeRequest("image-text-to-text", "/m", max_pixels=FEWER_PIXELS), ["", "int8"]),
        (ProbeRequest("image-text-to-text", "/m", max_pixels=FEWER_PIXELS + 1), ["", "fewer pixels", "int8"]),
    ],
)
def test_a_rung_that_would_change_nothing_is_left_out(request_: ProbeRequest, names: list[str]) -> None:
    assert _names(rungs(request_, [])) == names


def test_with_room_for_it_the_model_passes_at_once() -> None:
    machine = Machine(GOOD)
    result = _run(machine, rungs(TALK, []))
    assert (result.result, result.rung, result.reason) == ("pass", "", "a frog")
    assert len(machine.asked) == 1


@pytest.mark.parametrize("shortage", [SHORT, KILLED, ABORTED])
@pytest.mark.parametrize(
    ("failures", "rung"), [(1, "fewer pixels"), (2, "int8"), (3, "the fallback models/small")]
)
def test_each_rung_is_degraded_and_named(failures: int, rung: str, shortage: Outcome) -> None:
    ladder = rungs(TALK, [("models/small", ProbeRequest(TALK.task, "/models/small"))])
    result = _run(Machine(*[shortage] * failures, GOOD), ladder)
    assert (result.result, result.rung) == ("degraded", rung)
    assert result.reason.startswith(f"only with {rung}, because memory ran out as asked")
    assert result.reason.endswith(": a frog")
    assert "`fallback:`" in result.hint


def test_sam_falls_back_to_the_smaller_checkpoint() -> None:
    result = _run(Machine(SHORT, GOOD), rungs(SEGMENT, SMALLER))
    assert (result.result, result.rung) == ("degraded", "the fallback checkpoints/sam-vit-b")


def test_when_nothing_helps_every_rung_is_told() -> None:
    machine = Machine(SHORT, SHORT, SHORT)
    result = _run(machine, rungs(TALK, []))
    assert result.result == "fail"
    assert result.reason == (
        "memory ran out: CUDA out of memory; before that memory ran out as asked and with fewer pixels"
    )
    assert result.rung == "int8"


def test_a_rung_without_its_package_is_passed_over() -> None:
    ladder = rungs(TALK, [("models/small", ProbeRequest(TALK.task, "/models/small"))])
    result = _run(Machine(SHORT, SHORT, NO_PACKAGE, GOOD), ladder)
    assert (result.result, result.rung) == ("degraded", "the fallback models/small")
    assert "int8 was not tried, because the package `bitsandbytes` is not installed" in result.reason
    last = _run(Machine(SHORT, SHORT, NO_PACKAGE), rungs(TALK, []))
    assert (last.result, last.rung) == ("fail", "fewer pixels")
    assert last.reason.startswith("memory ran out")
    assert "`bitsandbytes`" in last.reason


def test_any_other_failure_ends_the_ladder_where_it_is() -> None:
    machine = Machine(DAMAGED)
    assert _run(machine, rungs(TALK, SMALLER)).reason == "`model.safetensors` is cut off"
    assert len(machine.asked) == 1
    assert _run(Machine(NO_PACKAGE), rungs(TALK, SMALLER)).reason.startswith("the package `bitsandbytes`")
    lower = _run(Machine(SHORT, DAMAGED), rungs(TALK, SMALLER))
    assert (lower.result, lower.rung) == ("fail", "fewer pixels")


@pytest.mark.parametrize(
    ("outcome", "ran"),
    [
        (SHORT, True),
        (KILLED, True),
        (ABORTED, True),
        (GOOD, False),
        (DAMAGED, False),
        (Outcome(-signal.SIGKILL, None, timed_out=True), False),  # labsync ended it itself
        (Outcome(-signal.SIGABRT, None, error_text="Assertion failed"), False),
        (Outcome(-signal.SIGSEGV, None), False),
    ],
)
def test_what_counts_as_a_shortage_of_memory(outcome: Outcome, ran: bool) -> None:
    assert ran_out(outcome) == ran
