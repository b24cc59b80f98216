"""The table of faults is made from the tests, complete and up to date."""

from __future__ import annotations

from tests import reliability
from tests.faults.catalogue import ROWS, Row


def test_the_catalogue_has_every_number_once() -> None:
    assert [row.number for row in ROWS if isinstance(row, Row)] == list(range(1, 81))


def test_every_fault_has_a_test_or_a_reason() -> None:
    tests = reliability.collect()
    assert reliability.gaps(tests) == []
    assert set(tests) <= {row.number for row in ROWS if isinstance(row, Row)}


def test_the_page_is_up_to_date() -> None:
    page = reliability.PAGE.read_text("utf-8")
    fresh = reliability.replaced(page, reliability.table(reliability.collect()))
    assert page == fresh, "run `python -m tests.reliability`"
