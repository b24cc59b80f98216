"""What to do: a pure comparison of what is wanted with what each place holds.

`make_plan` is complete, idempotent, deterministic, safe, frugal and honest; `tests/unit/test_plan.py`
proves each of the six on generated labs. A million files take seconds: what is in place is looked at once,
and costs neither an object nor a place in a table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from labsync.packing import LIMIT, is_packed, layout
from labsync.places import Found, Inventory, Place, Ref, Replace
from labsync.snapshot import EMPTY, FileEntry, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
class Member:
    """One file of a pack: where its bytes begin there, and the places to read them from, in order."""

    entry: FileEntry
    offset: int
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class Pack:
    """A tar shard to write to the mirror as one object of `size` bytes, its members in order.

    Packs are written after all routes, so that what a route brings to the disk is read from there.
    """

    artifact: ArtifactName
    key: str
    size: int
    members: tuple[Member, ...]


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
    there is none. `key_prefix` is the folder of the batch that new content is written to; `packed`
    says that it goes into tar shards there. `unfinished` are the keys, by SHA-256, under which an
    upload was begun that can be continued.
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
    packed: bool = False
    unfinished: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """The actions for one artifact, what is kept and why, what cannot be had."""

    artifact: ArtifactName
    routes: tuple[Route, ...] = ()
    packs: tuple[Pack, ...] = ()
    kept: tuple[Kept, ...] = ()
    unmet: tuple[Unmet, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Say whether there is nothing to do."""
        return not self.routes and not self.packs

    def bytes_from(self, place: Place) -> int:
        """Return how many bytes the plan reads from a place.

        A pack reads each file from the disk, but from farther away each content once.
        """
        size = sum(r.entry.size for r in self.routes if r.sources[0].place == place)
        for pack in self.packs:
            read = (m.entry for m in pack.members if m.sources[0].place == place)
            size += sum(e.size for e in (read if place == "disk" else {e.sha256: e for e in read}.values()))
        return size

    @property
    def bytes_to_mirror(self) -> int:
        """Return how many bytes the plan writes to the mirror."""
        plain = sum(route.entry.size for route in self.routes if route.key)
        return plain + sum(pack.size for pack in self.packs)

    @property
    def files_to_mirror(self) -> int:
        """Return how many files the plan writes to the mirror."""
        return sum(1 for route in self.routes if route.key) + sum(len(pack.members) for pack in self.packs)

    @property
    def bytes_to_disk(self) -> int:
        """Return how many bytes the plan adds to the disk, before anything set aside is removed."""
        return sum(p.entry.size for route in self.routes for p in route.publications)


def make_plan(goal: Goal, limit: int = LIMIT) -> Plan:
    """Return the plan that brings disk and mirror to the goal without harming what the user made.

    `limit` is the size of a shard. Which files share a shard depends on what is wanted and what is
    mirrored alone, not on what the disk or the origin have: a stopped upload is laid out the same
    way again. A shard with a file that no place holds is not planned.
    """
    needs = _Needs(goal, limit)
    sources = _Sources(goal, needs)
    packs, saved = _packs(goal, needs, sources, limit) if goal.packed else ([], set())
    routes, nowhere = [], set()
    for sha256, entry in needs.first.items():
        if not sources.has(sha256):
            nowhere.add(sha256)
            continue
        alone = not goal.packed or sha256 in saved or not is_packed(entry, limit)
        key = _key(goal, entry) if alone and needs.mirror(sha256) else ""
        publications = needs.publications(entry)
        if key or publications:
            routes.append(Route(goal.artifact, entry, sources.of(sha256), publications, key))
    unmet = tuple(Unmet(goal.artifact, e) for e in goal.wanted if e.sha256 in nowhere) if nowhere else ()
    return Plan(goal.artifact, tuple(routes), tuple(packs), tuple(needs.kept), unmet)


class _Needs:
    """What is to be done, by content: `first` has the first path of each that needs something.

    What is needed for a first path is decided again when it is asked for: a million decisions take
    less time than they take room. `replaced` are the paths where something else lies now.
    """

    def __init__(self, goal: Goal, limit: int) -> None:
        self._goal = goal
        self._more: dict[str, list[Publication]] = {}
        self._saved = _saved_before(goal, limit)
        self.first: dict[str, FileEntry] = {}
        self.kept: list[Kept] = []
        self.replaced: set[str] = set()
        self._look()

    def mirror(self, sha256: str) -> bool:
        """Say whether the content is to be written to the mirror."""
        goal = self._goal
        if not goal.to_mirror:
            return False
        return sha256 not in goal.mirrored or sha256 in self._saved

    def publications(self, entry: FileEntry) -> tuple[Publication, ...]:
        """Return what is to be made visible of a content, given its first entry."""
        first = self._publication(entry)
        more = self._more.get(entry.sha256, ())
        return (*more,) if first is None else (first, *more)

    def _look(self) -> None:
        goal, first = self._goal, self.first
        files = goal.disk.files
        for entry in goal.wanted:
            decision = _decide(goal, entry, files.get(entry.path)) if goal.to_disk else None
            if isinstance(decision, str):
                self.kept.append(Kept(goal.artifact, entry.path, decision))
                decision = None
            if decision is None:
                if self.mirror(entry.sha256):
                    first.setdefault(entry.sha256, entry)
                continue
            if decision[0] != "nothing":
                self.replaced.add(entry.path)
            if first.setdefault(entry.sha256, entry) is not entry:
                self._more.setdefault(entry.sha256, []).append(Publication(entry, *decision))

    def _publication(self, entry: FileEntry) -> Publication | None:
        if not self._goal.to_disk:
            return None
        decision = _decide(self._goal, entry, self._goal.disk.files.get(entry.path))
        return None if decision is None or isinstance(decision, str) else Publication(entry, *decision)


def _saved_before(goal: Goal, limit: int) -> set[str]:
    """Return what a stopped run of this batch wrote beside its packs, as `_packs` wants it at times."""
    if not (goal.packed and goal.key_prefix):
        return set()
    return {
        entry.sha256
        for entry in goal.wanted
        if (ref := goal.mirrored.get(entry.sha256)) is not None
        and ref.offset is None
        and ref.location.startswith(goal.key_prefix)
        and is_packed(entry, limit)
    }


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


class _Sources:
    """The places that hold the contents which need something: disk, mirror, origin, in this order."""

    def __init__(self, goal: Goal, needs: _Needs) -> None:
        self._goal = goal
        self._needs = needs
        self._disk = self._on_disk()
        self._origin = self._in_origin()

    def has(self, sha256: str) -> bool:
        """Say whether any place holds the content."""
        return sha256 in self._disk or sha256 in self._goal.mirrored or sha256 in self._origin

    def of(self, sha256: str) -> tuple[Source, ...]:
        """Return where the content lies before anything is done."""
        path = self._disk.get(sha256)
        return self._far(sha256) if path is None else (_on_disk(path), *self._far(sha256))

    def later(self, entry: FileEntry) -> tuple[Source, ...]:
        """Return where a content lies when all routes have been taken."""
        if not self.has(entry.sha256):
            return ()
        path = self._disk.get(entry.sha256)
        if path is None or path in self._needs.replaced:
            publications = self._needs.publications(self._needs.first[entry.sha256])
            path = publications[0].entry.path if publications else None
        return self._far(entry.sha256) if path is None else (_on_disk(path), *self._far(entry.sha256))

    def _far(self, sha256: str) -> tuple[Source, ...]:
        mirror, origin = self._goal.mirrored.get(sha256), self._origin.get(sha256)
        if origin is None:
            return () if mirror is None else (Source("mirror", mirror),)
        if mirror is None:
            return (Source("origin", origin),)
        return Source("mirror", mirror), Source("origin", origin)

    def _on_disk(self) -> dict[str, str]:
        """Return a path of each content on the disk, rather one that nothing is to replace."""
        paths: dict[str, str] = {}
        needed, replaced = self._needs.first, self._needs.replaced
        for path, found in self._goal.disk.files.items() if needed else ():
            sha256 = found.entry.sha256
            if sha256 in needed:
                other = paths.get(sha256)
                if other is None or (path in replaced, path) < (other in replaced, other):
                    paths[sha256] = path
        return paths

    def _in_origin(self) -> dict[str, Ref]:
        """Return the first ref of each content in the origin."""
        refs: dict[str, Ref] = {}
        needed, origin = self._needs.first, self._goal.origin
        for entry in self._goal.wanted if needed and origin else ():
            if entry.sha256 in needed and entry.path in origin:
                refs.setdefault(entry.sha256, origin[entry.path])
        return refs


def _on_disk(path: str) -> Source:
    return Source("disk", Ref(path, path=path))


def _packs(goal: Goal, needs: _Needs, sources: _Sources, limit: int) -> tuple[list[Pack], set[str]]:
    """Return the packs, and the contents that must be in the mirror before the packs are written.

    Such a content lies only where a route publishes another one.
    """
    packs, saved = [], set[str]()
    for shard in layout(_to_pack(goal, needs, limit), limit):
        members = []
        for entry, offset in shard.members:
            held = sources.later(entry)
            if not held and sources.has(entry.sha256):
                saved.add(entry.sha256)
                held = (Source("mirror", Ref(_key(goal, needs.first[entry.sha256]))),)
            members.append(Member(entry, offset, held))
        if all(member.sources for member in members):
            packs.append(Pack(goal.artifact, f"{goal.key_prefix}{shard.name}", shard.size, tuple(members)))
    return packs, saved


def _to_pack(goal: Goal, needs: _Needs, limit: int) -> Iterator[FileEntry]:
    """Yield every path of the contents that are packed, so that `tar` alone gives all files back."""
    for entry in goal.wanted:
        if entry.sha256 in needs.first and is_packed(entry, limit) and needs.mirror(entry.sha256):
            yield entry


def _key(goal: Goal, entry: FileEntry) -> str:
    return goal.unfinished.get(entry.sha256) or f"{goal.key_prefix}{entry.path}"
