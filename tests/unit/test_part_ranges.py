"""Which bytes of a part are missing and who fetches them: nothing is lost, nothing is handed out twice."""

from __future__ import annotations

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from labsync.transfer.ranges import Extent, Lease, Ranges, gaps, merged, total

SIZE = 40


def extents() -> st.SearchStrategy[list[Extent]]:
    pair = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(lambda p: (min(p), max(p)))
    return st.lists(pair, max_size=6)


def covered(found: list[Extent]) -> set[int]:
    return {at for start, stop in found for at in range(start, stop)}


@given(extents())
def test_merged_extents_have_the_same_bytes_and_do_not_touch(found: list[Extent]) -> None:
    once = merged(found)
    assert covered(once) == covered(found)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(once))
    assert all(start < stop for start, stop in once)
    assert total(once) == len(covered(found))


@given(extents())
def test_gaps_are_all_that_no_extent_has(found: list[Extent]) -> None:
    assert covered(gaps(SIZE, found)) == set(range(SIZE)) - covered(found)
    assert merged(gaps(SIZE, found)) == gaps(SIZE, found)


@given(extents(), st.integers(0, 1 << 32).map(random.Random))
def test_every_missing_byte_is_handed_out_in_order_until_it_has_arrived(
    here: list[Extent], chance: random.Random
) -> None:
    ranges = Ranges(SIZE, here)
    leases: list[Lease] = []
    arrived, told = covered(here), covered(here)
    while not ranges.is_complete:
        if not leases or (ranges.has_missing and chance.random() < 0.5):
            lease = ranges.take(chance.randint(1, 12))
            assert lease is not None
            assert lease.at == min(set(range(SIZE)) - arrived - _lent(leases))
            leases.append(lease)
            continue
        lease = chance.choice(leases)
        count = chance.randint(0, lease.stop - lease.at)
        arrived |= set(range(lease.at, lease.at + count))
        lease.at += count
        if lease.at == lease.stop or chance.random() < 0.5:
            ranges.give_back(lease)
            leases.remove(lease)
        assert ranges.first_missing == min(set(range(SIZE)) - arrived, default=SIZE)
        if chance.random() < 0.5:
            new = ranges.untold()
            assert not covered(new) & told
            told |= covered(new)
            assert told == arrived
    assert arrived == set(range(SIZE))
    assert told | covered(ranges.untold()) == arrived


def _lent(leases: list[Lease]) -> set[int]:
    return {at for lease in leases for at in range(lease.at, lease.stop)}


def test_range_that_is_given_back_is_handed_out_before_those_behind_it() -> None:
    ranges = Ranges(SIZE)
    first, second = ranges.take(10), ranges.take(10)
    assert first
    assert second
    first.at = 4
    ranges.give_back(first)
    third = ranges.take(100)
    assert third
    assert (third.at, third.stop) == (4, 10)
    assert ranges.first_missing == 4


def test_recalled_ranges_are_missing_as_far_as_they_have_not_arrived() -> None:
    ranges = Ranges(SIZE)
    first, second = ranges.take(10), ranges.take(10)
    assert first
    assert second
    second.at = 15
    assert ranges.recall() == [first, second]
    second.at = 16  # somebody was writing
    ranges.give_back(first)
    ranges.give_back(second)
    assert first.recalled
    assert second.recalled
    assert not ranges.is_lent
    assert ranges.untold() == [(10, 16)]
    again = [ranges.take(SIZE), ranges.take(SIZE)]
    assert [(lease.at, lease.stop) for lease in again if lease] == [(0, 10), (16, SIZE)]
