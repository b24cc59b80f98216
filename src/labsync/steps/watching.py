"""One made artifact under the guard's eyes: what is new in it, and whether that is finished."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from labsync.disk.known import Look
from labsync.disk.pins import Manner, Wish, sample
from labsync.guard.formats import missing_shards, wholeness
from labsync.guard.phases import patience
from labsync.guard.settled import (
    Judgement,
    Sight,
    Sighting,
    Unit,
    View,
    judge_result,
    judge_unit,
    observe,
    observe_unit,
)
from labsync.merge import units
from labsync.snapshot import EMPTY
from labsync.steps.push_units import is_finished, is_older, note_older
from labsync.steps.writers import held_open, is_secret

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from labsync.disk.tree import TreeHome
    from labsync.guard.formats import Wholeness
    from labsync.guard.loop import Order
    from labsync.manifest.model import Artifact
    from labsync.names import ArtifactName
    from labsync.steps.lab import Lab

INDEX = ".safetensors.index.json"
DIRECT = "."  # the files that lie directly in the folder, as a unit
NOT_NEWER = "it is older than the newest checkpoint in the mirror"


@dataclass(frozen=True, slots=True)
class Watched:
    """Something new: a file of results, or a checkpoint; `changed` is when it last did, since the boot."""

    artifact: ArtifactName
    name: str
    paths: tuple[str, ...]
    size: int
    changed: float
    judgement: Judgement
    is_unit: bool
    sights: tuple[Sight, ...]

    @property
    def key(self) -> tuple[ArtifactName, str]:
        """What tells it from everything else."""
        return self.artifact, self.name

    @property
    def moment(self) -> tuple[float, int]:
        """When it last changed; of what one look found changed, the files' own times tell the order."""
        return self.changed, max((sight.mtime_ns for sight in self.sights), default=0)


@dataclass
class Watch:
    """What is remembered of an artifact from look to look.

    `seen` is the last look, `rewritten` the files that were written again in place while they were
    sent: they are copied the next time.
    """

    seen: Look = field(default_factory=lambda: Look({}, {}))
    rewritten: set[str] = field(default_factory=set)
    _sightings: dict[str, Sighting] = field(default_factory=dict)
    _units: dict[str, Unit] = field(default_factory=dict)
    _samples: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    _growing: set[str] = field(default_factory=set)
    _before: dict[str, tuple[int, str]] = field(default_factory=dict)
    _whole: dict[str, tuple[Sight, Wholeness]] = field(default_factory=dict)
    _safe: dict[str, tuple[tuple[Sight, ...], ...]] = field(default_factory=dict)
    _newest_pushed: tuple[float, int] = (float("-inf"), 0)

    @property
    def here(self) -> Collection[str]:
        """All paths that were there."""
        return [*self.seen.recorded, *self.seen.fresh]

    def look(self, lab: Lab, artifact: Artifact, order: Order, now: float) -> list[Watched]:
        """Return what is new, and what each of it is judged to be."""
        home = lab.tree(artifact)
        look = home.look()
        fresh = {path: stat for path, stat in look.fresh.items() if not is_secret(path)}
        self.seen = Look(look.recorded, fresh, look.skipped, look.exists)
        sights = {path: Sight.of(stat) for path, stat in fresh.items()}
        self._whole = {p: known for p, known in self._whole.items() if sights.get(p) == known[0]}
        if artifact.kind == "checkpoints":
            found = self._look_at_units(lab, artifact, sights, order, now)
        else:
            found = self._look_at_files(lab, artifact, sights, order, now)
        names = {item.name for item in found}
        self._safe = {name: known for name, known in self._safe.items() if name in names}
        return found

    def _look_at_files(
        self, lab: Lab, artifact: Artifact, sights: Mapping[str, Sight], order: Order, now: float
    ) -> list[Watched]:
        """Return the files that are new."""
        home = lab.tree(artifact)
        self._sightings = observe(self._sightings, sights, now)
        view = self._view(home, sights, order, now)
        self._sample(home, view)
        base = (lab.base(artifact) or EMPTY).by_path if self._growing else {}
        self._before = {p: (base[p].size, base[p].sha256) for p in self._growing if p in base}
        return [self._file(artifact, path, seen, view) for path, seen in self._sightings.items()]

    def _sample(self, home: TreeHome, view: View) -> None:
        """Look into the files that do not rest, whether they begin as they did."""
        before, self._samples, self._growing = self._samples, {}, set()
        for path, seen in self._sightings.items():
            if path not in view.writers and view.now - seen.since >= view.rest(seen.first):
                continue
            with contextlib.suppress(OSError):
                place, size = home.source(path), seen.sight.size
                self._samples[path] = (seen.sight.inode, size, sample(place, size))
                inode, shorter, told = before.get(path, (0, 0, ""))
                if inode == seen.sight.inode and shorter <= size and sample(place, shorter) == told:
                    self._growing.add(path)

    def _file(self, artifact: Artifact, path: str, seen: Sighting, view: View) -> Watched:
        judgement = judge_result(path, seen, view)
        size = seen.sight.size
        return Watched(
            artifact.name, path, (path,), size, seen.since, judgement, is_unit=False, sights=(seen.sight,)
        )

    def _look_at_units(
        self, lab: Lab, artifact: Artifact, fresh: Mapping[str, Sight], order: Order, now: float
    ) -> list[Watched]:
        """Return the checkpoints of which any file is new."""
        home, new = lab.tree(artifact), units(fresh)
        members = {unit: paths for unit, paths in units(self.here).items() if unit in new}
        sights = dict(fresh)
        for path in (path for paths in members.values() for path in paths if path not in sights):
            with contextlib.suppress(OSError):
                sights[path] = Sight.of(home.source(path).lstat())
        self._sightings = observe(self._sightings, sights, now)
        view = self._view(home, sights, order, now)
        before, self._units = self._units, {}
        for unit, paths in members.items():
            self._units[unit] = observe_unit(
                before.get(unit),
                {path: self._sightings[path] for path in paths if path in sights},
                now,
                finished=is_finished(artifact, home.path, unit, paths),
                missing=_missing(home, unit, paths),
            )
        return [self._unit(lab, artifact, name, unit, view) for name, unit in self._units.items()]

    def _unit(self, lab: Lab, artifact: Artifact, name: str, unit: Unit, view: View) -> Watched:
        judgement = judge_unit(unit, view)
        sights = tuple(seen.sight for _, seen in sorted(unit.members.items()))
        item = Watched(
            artifact.name,
            name or DIRECT,
            tuple(sorted(unit.members)),
            unit.size,
            unit.changed,
            judgement,
            is_unit=True,
            sights=sights,
        )
        if (
            judgement.verdict == "ready"
            and not self.is_safe(item)
            and self._is_older(lab, artifact, name, item)
        ):
            return replace(item, judgement=Judgement("waiting", NOT_NEWER))
        return item

    def _is_older(self, lab: Lab, artifact: Artifact, unit: str, item: Watched) -> bool:
        """Say whether a newer checkpoint is in the mirror, and remember it for a guard that comes after."""
        stats = [sight[:2] for sight in item.sights]
        if item.moment < self._newest_pushed:
            note_older(lab, artifact, unit, stats)
        return is_older(lab, artifact, unit, stats)

    def _view(self, home: TreeHome, sights: Mapping[str, Sight], order: Order, now: float) -> View:
        places = {home.source(path): path for path in sights}
        writers = {places[place]: pid for place, pid in held_open(places).items()}
        return View(
            now,
            lambda first: patience(order.settle, order.interval, now - first),
            writers,
            lambda path: self._wholeness(home.source(path), path, sights[path]),
            lambda path: path in self._growing,
        )

    def _wholeness(self, place: Path, path: str, sight: Sight) -> Wholeness:
        """Return what the file's format tells, asked once for each content."""
        if path not in self._whole:
            try:
                with place.open("rb") as file:
                    self._whole[path] = (sight, wholeness(path, file, sight.size))
            except OSError:
                return "unknown"  # it is gone, or cannot be read: holding it will tell
        return self._whole[path][1]

    def wishes(self, item: Watched) -> list[Wish]:
        """Return how each file of it is to be held."""
        manner: Manner = "beginning" if item.judgement.verdict == "growing" else "link"
        return [
            Wish(
                path,
                sight.size,
                sight.mtime_ns,
                sight.inode,
                "copy" if manner == "link" and path in self.rewritten else manner,
                self._samples.get(path, (0, 0, ""))[2],
                self._before.get(path),
            )
            for path, sight in zip(item.paths, item.sights, strict=True)
        ]

    def pushed(self, item: Watched) -> None:
        """Take note that the mirror has it as it was seen, and as it is now that nothing holds it."""
        seen = zip(item.paths, item.sights, strict=True)
        now = tuple(self._sightings[path].sight if path in self._sightings else old for path, old in seen)
        self._safe[item.name] = (item.sights, now)
        if item.is_unit:
            self._newest_pushed = max(self._newest_pushed, item.moment)

    def is_safe(self, item: Watched) -> bool:
        """Say whether the mirror has it as it was last seen."""
        return any(
            len(known) == len(item.sights) and all(map(Sight.is_like, known, item.sights))
            for known in self._safe.get(item.name, ())
        )

    def released(self, home: TreeHome, items: Collection[Watched]) -> None:
        """See the files anew that were held under a second name: losing it again is no change."""
        for path in (path for item in items for path in item.paths if path in self._sightings):
            with contextlib.suppress(OSError):
                seen, now = self._sightings[path], Sight.of(home.source(path).lstat())
                if now[:2] == seen.sight[:2] and now.inode == seen.sight.inode:
                    self._sightings[path] = replace(seen, sight=now)


def is_still(home: TreeHome, item: Watched) -> bool:
    """Say whether a checkpoint still has just the files that it had: rotation may have begun on it."""
    look = home.look()
    now = units([*look.recorded, *look.fresh])
    return item.paths in now.values()


def _missing(home: TreeHome, unit: str, paths: Collection[str]) -> list[str]:
    """Return the shards that an index among the files names and that are not there."""
    prefix = f"{unit}/" if unit else ""
    names = {path.removeprefix(prefix) for path in paths}
    missing: list[str] = []
    for path in paths:
        if path.endswith(INDEX):
            with contextlib.suppress(OSError):
                missing += missing_shards(home.source(path).read_bytes(), names)
    return missing
