"""Hypothesis strategies for the values that decide: entries, snapshots, inventories, goals."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from labsync.names import ArtifactName, check_paths
from labsync.places import Found, FoundState, Inventory, Ref
from labsync.plan import Goal
from labsync.snapshot import FileEntry, Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

# A busy machine is slow; that is no finding.
settings.register_profile("labsync", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("labsync")

# Few paths and few contents, so that the interesting meetings are frequent; none is another's folder.
PATHS = ("a.bin", "b.bin", "sub/a.bin", "sub/é.txt", "z/deep/c")
SIZES = (0, 1, 3, 7)
NAME = ArtifactName("results/runs")
PREFIX = "results/runs/20260101T000000Z-0000/"


def content(number: int) -> bytes:
    """Return the bytes of one of a handful of contents, all of different sizes but for a pair."""
    return bytes([65 + number]) * (*SIZES, 7)[number]


def entry_of(path: str, data: bytes, *, executable: bool = False) -> FileEntry:
    """Return the entry of these bytes."""
    return FileEntry(path, hashlib.sha256(data).hexdigest(), len(data), executable)


DATA: Mapping[str, bytes] = {hashlib.sha256(content(n)).hexdigest(): content(n) for n in range(5)}


def paths() -> st.SearchStrategy[str]:
    """Any path that labsync carries, however odd."""
    segment = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/"), min_size=1)
    usable = segment.filter(lambda s: s not in {".", ".."} and len(s.encode()) <= 60)
    return st.lists(usable, min_size=1, max_size=3).map("/".join)


def entries(path: str) -> st.SearchStrategy[FileEntry]:
    """An entry under this path, with one of the few contents."""
    return st.builds(
        lambda number, executable: entry_of(path, content(number), executable=executable),
        st.integers(0, len(DATA) - 1),
        st.sampled_from((False, False, False, True)),
    )


def snapshots() -> st.SearchStrategy[Snapshot]:
    """A snapshot over the few paths and contents."""
    return st.lists(st.sampled_from(PATHS), unique=True).flatmap(
        lambda names: st.tuples(*(entries(name) for name in names)).map(Snapshot.of)
    )


def odd_snapshots() -> st.SearchStrategy[Snapshot]:
    """A snapshot with any names that can stand beside each other."""
    return (
        st.lists(paths(), max_size=5, unique=True)
        .filter(_can_stand_together)
        .flatmap(lambda names: st.tuples(*(entries(name) for name in names)).map(Snapshot.of))
    )


def _can_stand_together(names: list[str]) -> bool:
    from labsync.errors import RefusedError

    try:
        check_paths(names)
    except RefusedError:
        return False
    return True


@st.composite
def inventories(draw: st.DrawFn, like: Snapshot | None = None) -> Inventory:
    """An inventory; with `like`, files often are the ones of that snapshot."""
    states: tuple[FoundState, ...] = ("recorded", "recorded", "changed", "damaged")
    files = {}
    for path in draw(st.lists(st.sampled_from((*PATHS, "extra.txt")), unique=True)):
        same = like.by_path.get(path) if like else None
        entry = same if same and draw(st.booleans()) else draw(entries(path))
        files[path] = Found(entry, draw(st.sampled_from(states)))
    return Inventory(files, exists=bool(files))


@st.composite
def goals(draw: st.DrawFn) -> Goal:
    """What an artifact should be, and what each place holds, in every combination."""
    wanted = draw(snapshots())
    made = draw(st.booleans())
    base = draw(st.none() | snapshots() | st.just(wanted)) if made else None
    disk = draw(inventories(like=draw(st.sampled_from([s for s in (wanted, base) if s is not None]))))
    held = draw(st.sets(st.sampled_from(sorted(DATA))))
    known = [e.path for e in wanted if not made and draw(st.booleans())]
    return Goal(
        artifact=NAME,
        wanted=wanted,
        disk=disk,
        mirrored={sha256: Ref(f"old/{sha256[:6]}", path="x") for sha256 in sorted(held)},
        origin={path: Ref("fake://origin", "r1", path) for path in known},
        base=base,
        made=made,
        to_disk=draw(st.booleans()),
        to_mirror=draw(st.booleans()),
        force=draw(st.booleans()),
        key_prefix=PREFIX,
    )
