"""The table of faults is made from the tests, complete and up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

import labsync
from tests import reliability
from tests.faults.catalogue import ROWS, Row
from tests.mutations.catalogue import MUTATIONS, Mutation

SOURCE = Path(labsync.__file__).parent


def test_the_catalogue_has_every_number_once() -> None:
    assert [row.number for row in ROWS if isinstance(row, Row)] == list(range(1, 81))


def test_every_fault_has_a_test_or_a_reason() -> None:
    tests = reliability.collect()
    assert reliability.gaps(tests) == []
    assert set(tests) <= {row.number for row in ROWS if isinstance(row, Row)}


def test_the_page_is_up_to_date() -> None:
    page = reliability.PAGE.read_text("utf-8")
    assert page == reliability.written(page), "run `python -m tests.reliability`"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: str(mutation.id))
def test_each_protection_is_where_the_mutation_looks_for_it(mutation: Mutation) -> None:
    text = (SOURCE / mutation.file).read_text("utf-8")
    assert text.count(mutation.old) == 1
    assert mutation.old != mutation.new
    for test in mutation.tests:
        assert (SOURCE.parent.parent / test.partition("::")[0]).exists()
