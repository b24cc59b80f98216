"""What to do: a pure comparison of what is wanted with what each place holds.

`make_plan` is complete, idempotent, deterministic, safe, frugal and honest; `tests/unit/test_plan.py`
proves each of the six on generated labs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from labsync.places import Found, Inventory, Place, Ref, Replace
from labsync.snapshot import EMPTY, FileEntry, Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labsync.names import ArtifactName

Reason = Literal[
    "missing on the disk",
    "behind",
    "damaged",
    "changed here, replaced by --force",
    "missing in the mirror",
]
KeptReason = Literal["ahead", "conflict"]
NO_FILES: Inventory = Inventory({}, exists=False)


@dataclass(frozen=True, slots=True)
class Source:
    """A place that holds a route's bytes, and where they lie there."""

    place: Place
    ref: Ref


@dataclass(frozen=True, slots=True)
class Publication:
    """A file to make visible on the disk, and what it may replace there."""

    entry: FileEntry
    replace: Replace
    reason: Reason


@dataclass(frozen=True, slots=True)
class Route:
    """All steps of one content, in order: fetch it, write it to the mirror, publish it on the disk.

    `sources` are tried in order; the first one is the plan, the others are for when it fails. `key`
    is empty when nothing is written to the mirror.
    """

    artifact: ArtifactName
    entry: FileEntry
    sources: tuple[Source, ...]
    publications: tuple[Publication, ...] = ()
    key: str = ""

    @property
    def reason(self) -> Reason:
        """Why the route is taken."""
        return self.publications[0].reason if self.publications else "missing in the mirror"


@dataclass(frozen=True, slots=True)
class Kept:
    """A file on the disk that is left as it is although something else is wanted."""

    artifact: ArtifactName
    path: str
    reason: KeptReason


@dataclass(frozen=True, slots=True)
class Unmet:
    """A wanted file that no reachable place holds; every path of such a content is named."""

    artifact: ArtifactName
    entry: FileEntry


@dataclass(frozen=True)
class Goal:
    """What one artifact should be, and everything known that decides how to get there.

    `mirrored` tells where contents lie in the mirror, by SHA-256, from any index of the artifact;
    `origin` where each wanted path lies in the origin (empty when it must not be asked). `base` is
    the snapshot this disk last pulled or pushed of a made artifact, None for a sourced one or when
    there is none. `key_prefix` is the folder of the batch that new content is written to.
    """

    artifact: ArtifactName
    wanted: Snapshot
    disk: Inventory = NO_FILES
    mirrored: Mapping[str, Ref] = field(default_factory=dict)
    origin: Mapping[str, Ref] = field(default_factory=dict)
    base: Snapshot | None = None
    made: bool = False
    to_disk: bool = True
    to_mirror: bool = True
    force: bool = False
    key_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """The actions for one artifact, what is kept and why, what cannot be had."""

    artifact: ArtifactName
    routes: tuple[Route, ...] = ()
    kept: tuple[Kept, ...] = ()
    unmet: tuple[Unmet, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Say whether there is nothing to do."""
        return not self.routes

    def bytes_from(self, place: Place) -> int:
        """Return how many bytes the plan reads from a place."""
        return sum(r.entry.size for r in self.routes if r.sources[0].place == place)

    @property
    def bytes_to_mirror(self) -> int:
        """Return how many bytes the plan writes to the mirror."""
        return sum(route.entry.size for route in self.routes if route.key)

    @property
    def bytes_to_disk(self) -> int:
        """Return how many bytes the plan adds to the disk, before anything set aside is removed."""
        return sum(p.entry.size for route in self.routes for p in route.publications)


def make_plan(goal: Goal) -> Plan:
    """Return the plan that brings disk and mirror to the goal without harming what the user made."""
    publications, kept = _publications(goal) if goal.to_disk else ([], [])
    groups: dict[str, list[Publication]] = {}
    for publication in publications:
        groups.setdefault(publication.entry.sha256, []).append(publication)
    to_write = _to_write(goal) if goal.to_mirror else {}
    held = _held(goal)
    routes, nowhere = [], set()
    for sha256 in groups.keys() | to_write.keys():
        if sha256 not in held:
            nowhere.add(sha256)
            continue
        targets = tuple(groups.get(sha256, ()))
        entry = to_write[sha256] if sha256 in to_write else targets[0].entry
        key = f"{goal.key_prefix}{entry.path}" if sha256 in to_write else ""
        routes.append(Route(goal.artifact, entry, held[sha256], targets, key))
    routes.sort(key=lambda route: route.entry.path.encode())
    unmet = tuple(Unmet(goal.artifact, entry) for entry in goal.wanted if entry.sha256 in nowhere)
    return Plan(goal.artifact, tuple(routes), tuple(kept), unmet)


def _publications(goal: Goal) -> tuple[list[Publication], list[Kept]]:
    publications, kept = [], []
    for entry in goal.wanted:
        match _decide(goal, entry, goal.disk.files.get(entry.path)):
            case None:
                pass
            case "ahead" | "conflict" as reason:
                kept.append(Kept(goal.artifact, entry.path, reason))
            case replace, reason:
                publications.append(Publication(entry, replace, reason))
    return publications, kept


def _decide(goal: Goal, wanted: FileEntry, found: Found | None) -> KeptReason | tuple[Replace, Reason] | None:
    if found is None:
        return "nothing", "missing on the disk"
    if found.entry == wanted:
        return None
    if found.state == "damaged":
        return "aside", "damaged"
    if found.state == "recorded" and not goal.made:
        return "recorded", "behind"
    base = (goal.base or EMPTY).by_path.get(wanted.path)
    if goal.made and base is not None and found.entry == base:
        # A touched file has the base's bytes without a valid record: a home replaces it only aside.
        return "recorded" if found.state == "recorded" else "aside", "behind"
    if goal.force:
        return "aside", "changed here, replaced by --force"
    if goal.made and base is not None and wanted == base:
        return "ahead"
    return "conflict"


def _to_write(goal: Goal) -> dict[str, FileEntry]:
    missing: dict[str, FileEntry] = {}
    for entry in goal.wanted:
        if entry.sha256 not in goal.mirrored:
            missing.setdefault(entry.sha256, entry)
    return missing


def _held(goal: Goal) -> dict[str, tuple[Source, ...]]:
    """Return the places of every wanted content that some place holds: disk, mirror, origin."""
    disk: dict[str, Source] = {}
    for path, found in sorted(goal.disk.files.items()):
        disk.setdefault(found.entry.sha256, Source("disk", Ref(path, path=path)))
    origin: dict[str, Source] = {}
    for entry in goal.wanted:
        if entry.path in goal.origin:
            origin.setdefault(entry.sha256, Source("origin", goal.origin[entry.path]))
    held = {}
    for sha256 in {entry.sha256 for entry in goal.wanted}:
        mirror = Source("mirror", goal.mirrored[sha256]) if sha256 in goal.mirrored else None
        if sources := tuple(s for s in (disk.get(sha256), mirror, origin.get(sha256)) if s):
            held[sha256] = sources
    return held
