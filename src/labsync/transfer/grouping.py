"""Which routes are carried together: many small files from one place."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsync.transfer.carry import SMALL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from labsync.names import ArtifactName
    from labsync.places import Place, Ref
    from labsync.plan import Route, Source
    from labsync.transfer.work import Work

FILES = 64  # in a batch of single objects
SPAN = 8 << 20  # bytes of a batch from packs
LEAST = 1 << 20  # bytes of a batch from packs, so that a request is worth it
GAP = 64 << 10  # bytes that are rather read and dropped than asked around
BATCHES = 32  # at least, where there is enough: all threads are to have work
_PLACES: tuple[Place, ...] = ("disk", "mirror", "origin")


def batches(
    routes: Sequence[Route], work: Mapping[ArtifactName, Work]
) -> tuple[list[list[Route]], list[Route]]:
    """Return which routes are carried together, and the rest, in their order.

    A batch has small files of one artifact from one place, the first that may be asked: single
    objects, or neighbours in packs, or files of the disk for the mirror. What was fetched from the
    origin already is no part of one.
    """
    rules = {artifact: _Rule(one) for artifact, one in work.items()}
    groups: dict[tuple[ArtifactName, Place, bool], list[Route]] = {}
    rest = []
    for route in routes:
        source = rules[route.artifact].source(route)
        if source is None:
            rest.append(route)
        else:
            alike = route.artifact, source.place, source.ref.offset is not None
            groups.setdefault(alike, []).append(route)
    found = []
    for (_, place, in_packs), group in groups.items():
        found += _near(group, place) if in_packs else _slices(group)
    alone = {id(batch[0]) for batch in found if len(batch) == 1}
    if alone:
        alone.update(id(route) for route in rest)
        rest = [route for route in routes if id(route) in alone]
    return [batch for batch in found if len(batch) > 1], rest


class _Rule:
    """What of one artifact is carried together."""

    def __init__(self, work: Work) -> None:
        self._places = {place for place in _PLACES if work.reader(place)}
        self._fetched = _names(work.fetched)

    def source(self, route: Route) -> Source | None:
        """Return where a route of a batch reads, None for one that is carried alone."""
        if route.entry.size > SMALL:
            return None
        source = next((s for s in route.sources if s.place in self._places), None)
        if source is None or (source.place == "disk" and route.publications):
            return None
        return None if source.place != "disk" and route.entry.sha256 in self._fetched else source


def _names(folder: Path | None) -> set[str]:
    try:
        return set(os.listdir(folder)) if folder else set()
    except OSError:
        return set()


def _slices(routes: list[Route]) -> list[list[Route]]:
    count = min(FILES, max(4, -(-len(routes) // BATCHES)))
    return [routes[at : at + count] for at in range(0, len(routes), count)]


def _near(routes: list[Route], place: Place) -> list[list[Route]]:
    """Return the routes in the order of their packs, in batches that several threads can share."""
    total = sum(route.entry.size for route in routes)
    room = min(SPAN, max(LEAST, total // BATCHES))
    found: list[list[Route]] = []
    taken = room
    for route in sorted(routes, key=lambda route: _begin(ref_in(route, place))):
        needed = route.entry.size + 1024
        taken += needed
        if taken > room:
            found.append([])
            taken = needed
        found[-1].append(route)
    return found


def ref_in(route: Route, place: Place) -> Ref:
    """Return where the route's bytes lie in a place that holds them."""
    return next(source.ref for source in route.sources if source.place == place)


def _begin(ref: Ref) -> tuple[str, int]:
    assert ref.offset is not None
    return ref.location, ref.offset


@dataclass(frozen=True, slots=True)
class Lying:
    """A route's file in a pack: its bytes from `start` up to `stop`."""

    route: Route
    location: str
    start: int
    stop: int


def spans(routes: Iterable[Route], place: Place) -> list[list[Lying]]:
    """Return what is read from packs at once: neighbours, with not much between them."""
    found: list[list[Lying]] = []
    last: Lying | None = None
    for route in routes:
        location, start = _begin(ref_in(route, place))
        file = Lying(route, location, start, start + route.entry.size)
        if last is None or last.location != location or not 0 <= start - last.stop <= GAP:
            found.append([])
        found[-1].append(file)
        last = file
    return found
