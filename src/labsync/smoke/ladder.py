"""The out-of-memory ladder: what is given up, step by step, until a model runs. Pure.

Each rung is a probe process of its own, so that it begins with a clean device. What is given up is
named in the result, which is then `degraded` and never `pass`.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from labsync.smoke.checks import Outcome
    from labsync.smoke.request import ProbeRequest

FEWER_PIXELS: Final = 256 * 28 * 28
FEWER_TOKENS: Final = 8
_BY_PIXELS = {"image-text-to-text"}  # elsewhere the model's own processor decides the size
_BY_INT8 = {"image-text-to-text", "image-feature-extraction", "feature-extraction", "video-classification"}


@dataclass(frozen=True, slots=True)
class Rung:
    """One attempt: what is asked of the probe, and what is given up for it, empty on the first."""

    request: ProbeRequest
    gives_up: str = ""


@dataclass(frozen=True, slots=True)
class Climb:
    """Where the ladder ended: the last rung that was really tried, and its outcome.

    `short` are the rungs before it, on which memory ran out; `untried` says of others why not.
    """

    rung: Rung
    outcome: Outcome
    short: tuple[Rung, ...] = ()
    untried: tuple[str, ...] = ()

    @property
    def history(self) -> str:
        """What happened before the last rung, in words; empty where it was the first."""
        tried = " and ".join(f"with {rung.gives_up}" if rung.gives_up else "as asked" for rung in self.short)
        return "; ".join(filter(None, (tried and f"memory ran out {tried}", *self.untried)))


def rungs(request: ProbeRequest, fallbacks: Sequence[tuple[str, ProbeRequest]]) -> tuple[Rung, ...]:
    """Return the attempts in their order: as asked, with fewer pixels, in int8, each fallback by its name."""
    ladder = [Rung(request)]
    if request.task in _BY_PIXELS and not 0 < request.max_pixels <= FEWER_PIXELS:
        tokens = min(request.max_new_tokens or FEWER_TOKENS, FEWER_TOKENS)
        request = replace(request, max_pixels=FEWER_PIXELS, max_new_tokens=tokens)
        ladder.append(Rung(request, "fewer pixels"))
    if request.task in _BY_INT8 and request.dtype != "int8" and not request.trust_remote_code:
        ladder.append(Rung(replace(request, dtype="int8"), "int8"))
    return (*ladder, *(Rung(asked, f"the fallback {name}") for name, asked in fallbacks))


def climb(ladder: Sequence[Rung], attempt: Callable[[ProbeRequest], Outcome]) -> Climb:
    """Try rung after rung while memory runs out; any other failure ends it, for less would not heal it.

    A rung that the environment has no package for is passed over.
    """
    short: list[Rung] = []
    untried: list[str] = []
    last: Climb | None = None
    for rung in ladder:
        outcome = attempt(rung.request)
        if last is not None and _lacks_package(outcome):
            assert outcome.observation is not None
            untried.append(f"{rung.gives_up} was not tried, because {outcome.observation.problem}")
            continue
        last = Climb(rung, outcome, tuple(short))
        if not ran_out(outcome):
            break
        short.append(rung)
    assert last is not None
    return replace(last, untried=tuple(untried))


def ran_out(outcome: Outcome) -> bool:
    """Say whether memory ran out, as the probe saw it, or as the kernel did that ended it."""
    if outcome.timed_out:
        return False
    told = outcome.observation is not None and outcome.observation.trouble == "memory"
    aborted = outcome.returncode == -signal.SIGABRT and "bad_alloc" in outcome.error_text
    return told or aborted or outcome.returncode == -signal.SIGKILL


def _lacks_package(outcome: Outcome) -> bool:
    return outcome.observation is not None and outcome.observation.trouble == "package"
