"""Two boxes publish at once, in every order, with lost requests, lost replies and deaths: nothing is lost."""

from __future__ import annotations

import pytest

from tests.faults.depth import ALL
from tests.faults.protocol import Box, BrokenError, Rules, explore

APART = (Box("a", frozenset({("x", "a")})), Box("b", frozenset({("y", "b")})))
SAME = (Box("a", frozenset({("x", "a"), ("y", "a")})), Box("b", frozenset({("x", "b")})))
THREE = (*APART, Box("c", frozenset({("x", "c")}), lives=0, mishaps=0))


@pytest.mark.fault(65, 66)
@pytest.mark.parametrize("boxes", [APART, SAME], ids=["apart", "same path"])
def test_no_history_loses_anything(boxes: tuple[Box, ...]) -> None:
    assert explore(boxes, Rules()) > 1000


@pytest.mark.fault(65)
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not ALL, reason="many states: `make faults`")
def test_three_boxes_lose_nothing_either() -> None:
    assert explore(THREE, Rules()) > 10_000


@pytest.mark.fault(65)
@pytest.mark.parametrize(
    ("without", "boxes", "problem"),
    [
        (Rules(conditional=False), APART, "not in the head's history"),
        (Rules(nonce=False), APART, "nowhere"),
        (Rules(data_first=False), APART, "bytes that are not there"),
        (Rules(index_first=False), APART, "index that is not there"),
        (Rules(keeps_losers=False), SAME, "nowhere"),
    ],
    ids=["compare-and-swap", "nonce", "data first", "index first", "losers kept"],
)
def test_without_a_rule_a_history_is_found_that_loses_something(
    without: Rules, boxes: tuple[Box, ...], problem: str
) -> None:
    with pytest.raises(BrokenError, match=problem):
        explore(boxes, without)
