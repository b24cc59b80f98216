"""Uploads under way: what a stopped run wrote is not sent again, and what nobody continues is dropped."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from labsync.digest import sha256_bytes
from labsync.errors import LabsyncError
from labsync.mirrors.base import HeadName
from labsync.mirrors.records import new_batch
from labsync.packing import repack
from labsync.plan import Pack, Route
from labsync.state import Uploaded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from labsync.manifest.model import Artifact
    from labsync.plan import Goal, Plan
    from labsync.state import State
    from labsync.steps.lab import Lab

FLUSH_FILES = 16
FLUSH_BYTES = 4 << 20


class Notes:
    """Journals what was written to the mirror, small files together; safe for several threads.

    A killed run forgets at most the last few small files. They are sent once more, under their keys.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._mutex = threading.Lock()
        self._waiting: dict[str, list[Uploaded]] = {}
        self._files = self._bytes = 0

    def take(self, item: Route | Pack) -> None:
        """Take note of a route or a pack that the mirror has."""
        rows = list(_rows(item))
        with self._mutex:
            self._waiting.setdefault(_batch_of(item.key), []).extend(rows)
            self._files += len(rows)
            self._bytes += item.entry.size if isinstance(item, Route) else item.size
            if self._files >= FLUSH_FILES or self._bytes >= FLUSH_BYTES:
                self._flush()

    def flush(self) -> None:
        """Make durable what was taken note of."""
        with self._mutex:
            self._flush()

    def _flush(self) -> None:
        for batch, rows in self._waiting.items():
            self._state.record_uploads(batch, rows)
        self._waiting = {}
        self._files = self._bytes = 0


def _rows(item: Route | Pack) -> Iterable[Uploaded]:
    if isinstance(item, Route):
        yield Uploaded(item.entry.sha256, item.key)
        return
    for member in item.members:
        yield Uploaded(member.entry.sha256, item.key, member.offset, item.size)


def _batch_of(key: str) -> str:
    return key.split("/")[2]


def for_packs(lab: Lab, artifact: Artifact, goal: Goal) -> Goal:
    """Let the goal write packs where its artifact is kept in packs; shards that are mostly dead are renewed.

    That waits until this disk has what is alive in them (without a disk: until the origin may be asked),
    so that nothing is fetched for it. A snapshot that the mirror has stays where it lies.
    """
    if not (artifact.is_packed and goal.to_mirror):
        return goal
    goal = replace(goal, packed=True)
    if HeadName.sourced(artifact.name, goal.wanted.id) in lab.view.names(artifact.name):
        return goal
    here = {found.entry.sha256 for found in goal.disk.files.values()}
    if not goal.to_disk:
        here |= {entry.sha256 for entry in goal.wanted if entry.path in goal.origin}
    stale = repack(goal.mirrored, lab.view.packs, goal.wanted)
    away = {goal.mirrored[sha256].location for sha256 in stale - here}
    renewed = {s for s in stale if goal.mirrored[s].location not in away}
    return replace(goal, mirrored={s: ref for s, ref in goal.mirrored.items() if s not in renewed})


def begin_upload(lab: Lab, artifact: Artifact, goal: Goal) -> tuple[Goal, Mapping[str, Uploaded]]:
    """Give the goal a batch that is journalled before its first byte, and what stopped runs left there.

    The second value tells, by SHA-256, which members of packs of this batch are in the mirror already:
    a pack is laid out the same way again, and skipped when it is whole.
    """
    memory = lab.memory_key(artifact)
    done, lost = _still_there(lab, artifact, goal)
    if lost:  # the batch is given up: its other keys may hold anything, and a key is written once
        lab.state.close_batches(memory)
    batch = lab.state.open_batch(memory, _identity(goal), lambda: new_batch(datetime.now(timezone.utc)))
    if lost:
        lab.state.record_uploads(batch, done.values())
    prefix = f"{artifact.name}/{batch}/"
    in_packs = {sha256: row for sha256, row in done.items() if row.offset is not None}
    plain = {sha256: row.ref for sha256, row in done.items() if row.offset is None}
    unfinished = {} if lost else dict(lab.state.multipart(memory).keys())
    if goal.packed:
        # Which contents are packed decides where each lies: nothing but this batch may have a say.
        plain = {sha256: ref for sha256, ref in plain.items() if ref.location.startswith(prefix)}
        unfinished = {sha256: key for sha256, key in unfinished.items() if key.startswith(prefix)}
    else:
        plain |= {sha256: row.ref for sha256, row in in_packs.items()}
    resumed = replace(goal, mirrored={**plain, **goal.mirrored}, key_prefix=prefix, unfinished=unfinished)
    return resumed, {sha256: row for sha256, row in in_packs.items() if row.key.startswith(prefix)}


def without_stored(plan: Plan, stored: Mapping[str, Uploaded]) -> tuple[Plan, tuple[Pack, ...]]:
    """Return the plan without the packs that are in the mirror already, and those packs."""
    whole = tuple(pack for pack in plan.packs if all(stored.get(row.sha256) == row for row in _rows(pack)))
    if not whole:
        return plan, ()
    return replace(plan, packs=tuple(pack for pack in plan.packs if pack not in whole)), whole


def end_uploads(lab: Lab, artifact: Artifact) -> None:
    """Forget the artifact's uploads, for an index names their keys now, and drop what was not completed."""
    memory = lab.memory_key(artifact)
    journal = lab.state.multipart(memory)
    lab.state.close_batches(memory)
    for key in journal.keys().values():
        with contextlib.suppress(LabsyncError):  # a rule of the bucket removes it as well
            lab.mirror.abandon(key, journal)


def _identity(goal: Goal) -> str:
    """Return what an upload must agree in to be continued: the snapshot, and what of it is left to pack."""
    if not goal.packed:
        return goal.wanted.id
    missing = sorted({entry.sha256 for entry in goal.wanted} - goal.mirrored.keys())
    return f"{goal.wanted.id} {sha256_bytes(''.join(missing).encode())}"


def _still_there(lab: Lab, artifact: Artifact, goal: Goal) -> tuple[dict[str, Uploaded], bool]:
    """Return what a stopped run wrote of the wanted contents, and whether any of it is gone again.

    It may lie in any batch that was not finished: what is wanted may have changed since one was
    stopped. The mirror may have been emptied since, and a bucket may have rules of its own.
    """
    sizes = {entry.sha256: entry.size for entry in goal.wanted if entry.sha256 not in goal.mirrored}
    rows = lab.state.uploaded_of(lab.memory_key(artifact))
    claimed = {row.sha256: row for row in rows if row.sha256 in sizes}

    folders = sorted({f"{artifact.name}/{_batch_of(row.key)}/" for row in claimed.values()})
    there = {key: size for folder in folders for key, size in lab.mirror.stored(folder).items()}

    def is_there(row: Uploaded) -> bool:
        return there.get(row.key) == (sizes[row.sha256] if row.pack_size is None else row.pack_size)

    kept = {sha256: row for sha256, row in claimed.items() if is_there(row)}
    return kept, len(kept) < len(claimed)
