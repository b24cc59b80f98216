"""The guard's rounds over a project: look at what is made here, choose, hold it fast, push it.

What is pushed, and how, is `push`'s business; this only takes less at a time than a person would.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from labsync.disk.budget import measure, reserve_of
from labsync.disk.pins import Holder, PinnedHome, sweep
from labsync.errors import ExitCode, LabsyncError
from labsync.guard.admission import UNMEASURED, Admitted, Candidate, admit, result_rank, unit_rank
from labsync.guard.loop import Round, Safe, Waiting
from labsync.report import ErrorReport
from labsync.snapshot import Snapshot
from labsync.steps.push import push
from labsync.steps.settled import Taken, settle
from labsync.steps.watching import Watch, Watched, is_still

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from labsync.disk.tree import TreeHome
    from labsync.guard.loop import Order
    from labsync.guard.settled import Judgement
    from labsync.manifest.model import Artifact
    from labsync.names import ArtifactName
    from labsync.settings import Options
    from labsync.snapshot import FileEntry
    from labsync.steps.lab import Lab
    from labsync.steps.storing import Pushed

LEARNING = 0.3  # how much of a new measurement counts
WORTH_MEASURING = 1 << 20  # bytes
RESUMABLE = 16 << 20  # bytes; larger objects go to S3 in parts that stay for the next session

Key = tuple["ArtifactName", str]


@dataclass
class Project:
    """Looks and pushes round after round; `open_lab` opens the project anew for each.

    So what changed meanwhile counts: the manifest, credentials, the mirror's heads; and no connection
    has to outlive the sleep of a laptop.
    """

    open_lab: Callable[[Options], Lab]
    options: Options
    now: Callable[[], float]
    watches: dict[ArtifactName, Watch] = field(default_factory=dict)
    rate: float = 0.0
    largest: int = 0
    safe: tuple[Safe, ...] = ()

    def sweep(self) -> None:
        """Let go of what a killed guard held."""
        lab = self.open_lab(self.options)
        for artifact in _made(lab):
            with contextlib.suppress(LabsyncError):
                sweep(lab.tree(artifact).stage, lab.manifest.path.stem)
        lab.state.close()

    def round(self, order: Order) -> Round:
        """Look, and push what is settled, as `guard.loop.Rounds` says."""
        try:
            lab = self.open_lab(replace(self.options, stop=order.stop))
        except LabsyncError as error:
            return Round(errors=(ErrorReport.of(error),), rate=self.rate)
        try:
            return _Turn(self, lab, order).take_turn()
        finally:
            lab.state.close()

    def measured(self, sent: int, seconds: float) -> None:
        """Learn how fast the mirror takes bytes."""
        if sent >= WORTH_MEASURING and seconds > 0:
            now = sent / seconds
            self.rate = now if not self.rate else (1 - LEARNING) * self.rate + LEARNING * now


def _made(lab: Lab) -> list[Artifact]:
    return [artifact for artifact in lab.manifest.artifacts if artifact.is_made]


class _Turn:
    """One round."""

    def __init__(self, project: Project, lab: Lab, order: Order) -> None:
        self._project = project
        self._lab = lab
        self._order = order
        self._errors: list[ErrorReport] = []
        self._chosen: dict[Key, Watched] = {}
        self._taken: dict[Key, list[FileEntry]] = {}
        self._head_entries: dict[ArtifactName, frozenset[FileEntry]] = {}
        self._units: dict[ArtifactName, set[str]] = {}
        self._reasons: dict[Key, Judgement] = {}

    def take_turn(self) -> Round:
        """Do it."""
        found = self._look()
        ready = [i for i in found if i.judgement.verdict != "waiting" and not self._watch(i).is_safe(i)]
        if not self._order.push or not (ready or self._order.ask):
            return self._told(found, Round())
        admitted = self._admit(ready)
        begin, done = self._project.now(), Round(pushed=True)
        for names in self._passes(admitted):
            done = self._push(names, done)
        self._project.measured(done.sent, self._project.now() - begin)
        return self._told(found, replace(done, safe=self._safe()))

    def _look(self) -> list[Watched]:
        """Return everything that is new here, artifact by artifact; nothing is read but ends of files."""
        found: list[Watched] = []
        for artifact in _made(self._lab):
            watch = self._project.watches.setdefault(artifact.name, Watch())
            try:
                found += watch.look(self._lab, artifact, self._order, self._project.now())
            except LabsyncError as error:
                self._errors.append(ErrorReport.of(error, artifact.name))
        return found

    def _admit(self, ready: Sequence[Watched]) -> Admitted[Watched]:
        """Choose what is sent now; of checkpoints that cannot all be sent in time, the newest alone."""
        rate = self._project.rate or UNMEASURED
        seconds = self._order.seconds
        units = [item for item in ready if item.is_unit]
        if sum(item.size for item in units) > rate * min(seconds, self._order.interval):
            newest = {item.artifact: item for item in sorted(units, key=lambda item: item.moment)}
            ready = [item for item in ready if not item.is_unit or item is newest[item.artifact]]
        candidates = [Candidate(item, item.size, _rank(item, ready, rate * seconds)) for item in ready]
        if seconds == math.inf:
            return Admitted(tuple(candidates), ())
        admitted = admit(candidates, seconds, rate, self._can_resume)
        for candidate in admitted.left_out:
            self._note(candidate.what, "too large for the time that is left")
        return admitted

    def _can_resume(self, size: int) -> bool:
        return size > RESUMABLE and self._lab.manifest.mirror.url.startswith("s3://")

    def _passes(self, admitted: Admitted[Watched]) -> Iterator[list[ArtifactName]]:
        """Yield the artifacts to push, with what of them is chosen; rank by rank when time is short."""
        ranks = sorted({candidate.rank for candidate in admitted.sent})
        if not self._order.is_short or len(ranks) < 2:
            self._chosen = {item.what.key: item.what for item in admitted.sent}
            yield [artifact.name for artifact in _made(self._lab)]
            return
        for rank in ranks:
            items = [c.what for c in admitted.sent if c.rank == rank]
            self._chosen = {item.key: item for item in items}
            yield sorted({item.artifact for item in items})

    def _push(self, names: Sequence[ArtifactName], before: Round) -> Round:
        if self._order.stop.is_set():
            return before
        artifacts = [artifact for artifact in _made(self._lab) if artifact.name in names]
        self._head_entries.clear()
        self._units.clear()
        pushed = push(self._lab, artifacts, prune=False, take=self._take)
        again = self._learn(pushed)
        return replace(before, sent=before.sent + pushed.transferred.to_mirror, again=before.again or again)

    @contextlib.contextmanager
    def _take(self, lab: Lab, artifact: Artifact) -> Iterator[Taken]:
        """Hold fast what was chosen, and take that and what is in the mirror already."""
        watch, home = self._project.watches[artifact.name], lab.tree(artifact)
        chosen = [item for item in self._chosen.values() if item.artifact == artifact.name]
        look = watch.seen if artifact.kind != "checkpoints" else replace(watch.seen, recorded={})
        wishes = [wish for item in chosen for wish in watch.wishes(item)]
        with PinnedHome(home, look, wishes, lab.state, _holder(lab, home)) as pinned:
            torn = [item for item in chosen if not self._is_whole(item, home, pinned)]
            inventory = pinned.inventory(rehash=False)
            left = {path for item in torn for path in item.paths}
            kept = {path: found for path, found in inventory.files.items() if path not in left}
            settled = settle(artifact, pinned, replace(inventory, files=kept))
            for item in chosen:
                entries = [settled.snapshot.by_path.get(path) for path in item.paths]
                self._taken[item.key] = [entry for entry in entries if entry is not None]
            yield Taken(pinned, settled, watch.here, watch.seen.exists)
            for item in chosen:
                if self._has_arrived(item):  # also what was there before, and this disk had no record of
                    pinned.know(Snapshot.of(self._taken[item.key]))
        watch.released(home, chosen)

    def _is_whole(self, item: Watched, home: TreeHome, pinned: PinnedHome) -> bool:
        """Say whether all of it could be held as it was seen."""
        if lost := sorted(pinned.lost & set(item.paths)):
            is_copy = item.judgement.verdict == "growing" or lost[0] in self._watch(item).rewritten
            self._note(item, f"it changed while it was looked at{_NO_ROOM if is_copy else ''}")
            return False
        if item.is_unit and not is_still(home, item):
            self._note(item, "files of it came or went while it was looked at")
            return False
        return True

    def _learn(self, pushed: Pushed) -> bool:
        """Take note of what arrived and what changed while it was sent; say whether to try again soon."""
        for item in self._chosen.values():
            if self._has_arrived(item):
                self._project.watches[item.artifact].pushed(item)
        changed = {(e.artifact, e.path) for e in pushed.errors if e.code == ExitCode.PARTIAL and e.path}
        for item in self._chosen.values():
            if again := {path for path in item.paths if (item.artifact, path) in changed}:
                self._watch(item).rewritten |= again
                self._note(item, "it was written again while it was sent")
        errors = [e for e in pushed.errors if (e.artifact, e.path) not in changed]
        if self._order.stop.is_set():  # what the end interrupted is no failure
            errors = [e for e in errors if e.code != ExitCode.INTERRUPTED]
        self._errors += errors
        lost = any(len(self._taken.get(i.key, ())) < len(i.paths) for i in self._chosen.values())
        return lost or bool(changed)

    def _has_arrived(self, item: Watched) -> bool:
        """Say whether the newest head, or one before it, names what was taken of it."""
        taken = self._taken.get(item.key, [])
        if len(taken) < len(item.paths) or not self._lab.has_mirror:
            return False
        try:
            head = self._lab.view.newest(item.artifact)
            if head is None:
                return False
            if not item.is_unit:
                return all(entry in self._head_entries_of(item.artifact, head.index) for entry in taken)
            return Snapshot.of(taken).id in self._known_units(item.artifact)
        except LabsyncError:
            return False

    def _head_entries_of(self, artifact: ArtifactName, index_id: str) -> frozenset[FileEntry]:
        known = self._head_entries.get(artifact)
        if known is None:
            known = self._head_entries[artifact] = frozenset(self._lab.view.index(index_id).snapshot)
        return known

    def _known_units(self, artifact: ArtifactName) -> set[str]:
        """Return the snapshots of checkpoints that the mirror has, as of the last push."""
        known = self._units.get(artifact)
        if known is None:
            known = self._units[artifact] = {
                index.snapshot.id for _, index in self._lab.view.history(artifact)
            }
        return known

    def _note(self, item: Watched, reason: str) -> None:
        self._reasons[item.key] = replace(item.judgement, verdict="waiting", reason=reason)

    def _watch(self, item: Watched) -> Watch:
        return self._project.watches[item.artifact]

    def _safe(self) -> tuple[Safe, ...]:
        """Return what the mirror has, as far as it could be asked; otherwise what was known before."""
        view, safe = self._lab.view, list[Safe]()
        with contextlib.suppress(LabsyncError):
            for artifact in _made(self._lab) if self._lab.has_mirror else ():
                if head := view.newest(artifact.name):
                    safe += [Safe(artifact.name, head.snapshot, *view.counts(head.index))]
        self._project.safe = tuple(safe) or self._project.safe
        return self._project.safe

    def _told(self, found: Sequence[Watched], done: Round) -> Round:
        """Return the round with what is left on this disk alone."""
        project = self._project
        for item in found:
            if item.is_unit:
                project.largest = max(project.largest, item.size)
        return replace(
            done,
            waiting=tuple(self._waiting(item) for item in found if not self._watch(item).is_safe(item)),
            errors=tuple(self._errors),
            rate=project.rate,
            largest=project.largest,
        )

    def _waiting(self, item: Watched) -> Waiting:
        judgement = self._reasons.get(item.key, item.judgement)
        reason = judgement.reason or "it is not pushed yet"
        return Waiting(item.artifact, item.name, item.size, reason, judgement.ready_at)


_NO_ROOM = ", or there is no room on this disk for a copy of it"


def _holder(lab: Lab, home: TreeHome) -> Holder:
    """Return this manifest's guard as a holder, whose copies leave the disk's reserve alone."""
    _, free, total = measure(home.stage)
    return Holder(lab.manifest.path.stem, free - reserve_of(total, lab.manifest.disk))


def _rank(item: Watched, others: Sequence[Watched], budget: float) -> int:
    if not item.is_unit:
        return result_rank(item.size, budget)
    newest = max(other.moment for other in others if other.is_unit and other.artifact == item.artifact)
    return unit_rank(newest=item.moment == newest)
