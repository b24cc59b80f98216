"""Which bytes of a content are missing, and who fetches which of them: bookkeeping without effects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Extent: TypeAlias = "tuple[int, int]"
"""The bytes from the first number up to, not with, the second."""


@dataclass(slots=True, eq=False)
class Lease:
    """A range that one connection fetches: what lies before `at` has arrived, before `told` is told.

    One that was `recalled` is given back by whoever did so: no more bytes are taken from the connection.
    """

    at: int
    stop: int
    told: int
    recalled: bool = False


class Ranges:
    """Hands out the missing ranges of a content of `size` bytes in their order; not safe for threads."""

    def __init__(self, size: int, arrived: Iterable[Extent] = ()) -> None:
        self._size = size
        self._missing = gaps(size, arrived)
        self._leases: list[Lease] = []
        self._untold: list[Extent] = []

    @property
    def is_complete(self) -> bool:
        """Say whether every byte has arrived and no range is handed out."""
        return not self._missing and not self._leases

    @property
    def has_missing(self) -> bool:
        """Say whether there is a range that nobody fetches."""
        return bool(self._missing)

    @property
    def is_lent(self) -> bool:
        """Say whether anybody fetches a range."""
        return bool(self._leases)

    @property
    def first_missing(self) -> int:
        """The first byte that has not arrived; the size when all have."""
        starts = [lease.at for lease in self._leases if lease.at < lease.stop]
        return min([*starts, *(start for start, _ in self._missing[:1])], default=self._size)

    def take(self, most: int) -> Lease | None:
        """Hand out the first range that nobody fetches, `most` bytes of it at most."""
        if not self._missing:
            return None
        start, stop = self._missing[0]
        end = min(stop, start + most)
        self._missing[:1] = [(end, stop)] if end < stop else []
        lease = Lease(start, end, start)
        self._leases.append(lease)
        return lease

    def give_back(self, lease: Lease) -> None:
        """End a lease; what of it has not arrived is missing again."""
        self._leases.remove(lease)
        if lease.told < lease.at:
            self._untold.append((lease.told, lease.at))
        if lease.at < lease.stop:
            self._missing = merged([*self._missing, (lease.at, lease.stop)])

    def recall(self) -> list[Lease]:
        """Mark all leases as recalled; `give_back` them once nobody can write any more."""
        for lease in self._leases:
            lease.recalled = True
        return list(self._leases)

    def untold(self) -> list[Extent]:
        """Return what has arrived since the last call."""
        extents, self._untold = self._untold, []
        for lease in self._leases:
            if lease.told < lease.at:
                extents.append((lease.told, lease.at))
                lease.told = lease.at
        return extents


def merged(extents: Iterable[Extent]) -> list[Extent]:
    """Return the same bytes in as few extents as there can be, in order."""
    found: list[Extent] = []
    for start, stop in sorted(extents):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        elif start < stop:
            found.append((start, stop))
    return found


def gaps(size: int, extents: Iterable[Extent]) -> list[Extent]:
    """Return the bytes below `size` that none of the extents has."""
    ends, found = 0, []
    for start, stop in merged(extents):
        if ends < start:
            found.append((ends, start))
        ends = stop
    if ends < size:
        found.append((ends, size))
    return found


def total(extents: Iterable[Extent]) -> int:
    """Return how many bytes the extents have, none of which overlap."""
    return sum(stop - start for start, stop in extents)
