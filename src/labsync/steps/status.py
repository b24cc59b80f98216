"""Status and verify: how each artifact stands on the disk and in the mirror, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from labsync.disk.checkout import standing
from labsync.errors import ConflictError, IntegrityError, LabsyncError, NotFoundError
from labsync.merge import units
from labsync.mirrors.base import HeadName
from labsync.names import escape
from labsync.report import ArtifactReport, DiskState, ErrorReport, MirrorState, Skipped
from labsync.snapshot import EMPTY, FileEntry, Snapshot
from labsync.steps.goals import open_conflicts, within
from labsync.steps.writers import NEVER_PUSHED, is_secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from labsync.lock import LockedArtifact
    from labsync.manifest.model import Artifact
    from labsync.mirrors.base import Head
    from labsync.places import Found, Inventory
    from labsync.steps.lab import Lab


AT_RISK = ("ahead", "conflict", "modified")


@dataclass(frozen=True)
class Difference:
    """How a disk differs from what is wanted; each a sorted tuple of paths."""

    missing: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


def compare(wanted: Mapping[str, FileEntry], files: Mapping[str, Found]) -> Difference:
    """Return the difference between wanted entries and found files."""
    by_state: dict[str, list[str]] = {"recorded": [], "changed": [], "damaged": []}
    missing = []
    for path, entry in wanted.items():
        found = files.get(path)
        if found is None:
            missing.append(path)
        elif found.entry != entry:
            by_state[found.state].append(path)
    more = len(files) > len(wanted) - len(missing)
    return Difference(
        missing=tuple(sorted(missing)),
        damaged=tuple(sorted(by_state["damaged"])),
        behind=tuple(sorted(by_state["recorded"])),
        changed=tuple(sorted(by_state["changed"])),
        extra=tuple(sorted(path for path in files if path not in wanted)) if more else (),
    )


def sourced_state(wanted: Snapshot, inventory: Inventory) -> tuple[DiskState, str]:
    """Return how a sourced artifact stands on the disk, and why."""
    diff = compare(wanted.by_path, inventory.files)
    if diff.damaged:
        return "modified", f"{_some(diff.damaged)} damaged: `labsync verify --repair`"
    if diff.changed:
        return "modified", f"{_some(diff.changed)} changed here"
    if len(wanted) and len(diff.missing) == len(wanted):
        return "missing", "not on the disk"
    if diff.missing:
        return "incomplete", f"{_some(diff.missing)} missing"
    if diff.behind:
        return "behind", f"the lock has a newer version of {_some(diff.behind)}"
    if not inventory.complete:
        return "incomplete", "an update of it did not end"
    return "ok", ""


def made_state(base: Snapshot | None, head: Snapshot | None, inventory: Inventory) -> tuple[DiskState, str]:
    """Return how a made artifact stands: what is new here, what is new in the head, what conflicts."""
    files = inventory.files
    known, theirs = (base or EMPTY).by_path, (head or EMPTY).by_path
    diff = compare(known, files)
    if diff.damaged:
        return "modified", f"{_some(diff.damaged)} damaged: `labsync verify --repair`"
    mine = {p for p in files if files[p].entry not in (known.get(p), theirs.get(p))}
    news = {p for p in theirs if theirs[p] != known.get(p) and _entry(files, p) != theirs[p]}
    both = sorted(mine & news)
    if both:
        return "conflict", f"{_some(tuple(both))} changed here and in the mirror"
    lost = tuple(sorted(path for path in theirs if path not in files and path not in news))
    also = f"; {_some(lost)} not on the disk" if lost else ""
    if mine:
        return "ahead", f"{_some(tuple(sorted(mine)))} not pushed{also}"
    if news:
        return "behind", f"{_some(tuple(sorted(news)))} newer in the mirror{also}"
    if lost:
        return ("missing" if len(lost) == len(theirs) else "incomplete"), f"{_some(lost)} not on the disk"
    if not inventory.complete:
        return "incomplete", "an update of it did not end"
    return "ok", "" if theirs or files else "nothing made yet"


def checkpoint_state(
    base: Snapshot | None, head: Snapshot | None, inventory: Inventory
) -> tuple[DiskState, str]:
    """Return how made checkpoints stand: units that were never pushed count, rotation does not."""
    files = {path: found.entry for path, found in inventory.files.items()}
    known = {entry for snapshot in (base, head) if snapshot is not None for entry in snapshot}
    fresh = [
        unit or "(files)"
        for unit, members in units(files).items()
        if not all(files[path] in known for path in members)
        and (not known or any(inventory.files[path].state != "recorded" for path in members))
    ]
    behind = head is not None and (base is None or base.id != head.id)
    on_disk = head is not None and all(files.get(entry.path) == entry for entry in head)
    if fresh and behind and not on_disk:
        return "conflict", f"{_some(tuple(fresh))} not pushed, and the mirror has a newer one"
    if fresh:
        return "ahead", f"{_some(tuple(fresh))} not pushed"
    if head is not None and not on_disk:
        return ("behind" if behind else "missing"), "the newest checkpoint is not on the disk"
    return "ok", "" if head or files else "nothing made yet"


def _entry(files: Mapping[str, Found], path: str) -> FileEntry | None:
    found = files.get(path)
    return found.entry if found else None


def _some(paths: tuple[str, ...]) -> str:
    return f"`{escape(paths[0])}`" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


@dataclass(frozen=True)
class Stand:
    """How one artifact stands, with the errors that kept something from being known.

    `inventory` is what was found of a made artifact that holds something to push.
    """

    report: ArtifactReport
    errors: tuple[ErrorReport, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    inventory: Inventory | None = None


def examine(
    lab: Lab,
    artifact: Artifact,
    *,
    rehash: bool = False,
    with_mirror: bool = True,
    unchanged: bool = False,
) -> Stand:
    """Look at one artifact; with `rehash` every byte on the disk is read again.

    Without the mirror it is not asked at all, even where it could be, and its state is `off`. A caller
    that has just found the artifact `unchanged` on the disk spares it another walk.
    """
    asks = with_mirror and lab.has_mirror
    try:
        if not rehash and (stand := _stand_unchanged(lab, artifact, asks=asks, known=unchanged)):
            return stand
        if artifact.is_made:
            return _examine_made(lab, artifact, rehash=rehash, asks=asks)
        return _examine_sourced(lab, artifact, rehash=rehash, asks=asks)
    except LabsyncError as error:
        mirror = _off(artifact, asks=asks)
        report = ArtifactReport(artifact.name, "", "failed", mirror, 0, 0, error.hint or error.what)
        return Stand(report, (ErrorReport.of(error, artifact.name),))


def _stand_unchanged(lab: Lab, artifact: Artifact, *, asks: bool, known: bool) -> Stand | None:
    """Return how an artifact stands whose disk is as it should be, None where a closer look is needed.

    It says what the closer look would: neither the lock's listing nor an index is read.
    """
    if not artifact.is_made:
        locked = lab.locked(artifact)
        if not (known or lab.home(artifact).identity() == locked.snapshot_id):
            return None
        if _lacks_history(lab, artifact):
            return None
        return _sourced_stand(lab, artifact, locked, "ok", asks=asks)
    head = lab.view.newest(artifact.name) if asks else None
    if head is None or open_conflicts(lab, artifact):
        return None
    if not (known or lab.home(artifact).identity() == head.snapshot):
        return None
    files, size = lab.view.counts(head.index)
    # Of an artifact without files there is more to say.
    return Stand(ArtifactReport(artifact.name, head.snapshot, "ok", "ok", files, size)) if files else None


def _off(artifact: Artifact, *, asks: bool) -> MirrorState:
    return "missing" if artifact.mirror and asks else "off"


def _examine_sourced(lab: Lab, artifact: Artifact, *, rehash: bool, asks: bool) -> Stand:
    locked = lab.locked(artifact)
    inventory = lab.home(artifact).inventory(rehash=rehash)
    disk, reason = sourced_state(locked.snapshot, inventory)
    if disk == "ok" and _lacks_history(lab, artifact):
        disk, reason = "incomplete", "its history is not here"
    stand = _sourced_stand(lab, artifact, locked, disk, reason, asks=asks)
    if not rehash:
        return stand
    errors = (*_damage(artifact, locked.snapshot, inventory), *_in_history(lab, artifact))
    return replace(stand, errors=errors)


def _lacks_history(lab: Lab, artifact: Artifact) -> bool:
    return artifact.history and not standing(lab.home(artifact).path)


def _in_history(lab: Lab, artifact: Artifact) -> Iterator[ErrorReport]:
    """Yield what is wrong with a library's history, every object of which is read."""
    from labsync.steps.histories import damage

    if artifact.history and (error := damage(lab, artifact)):
        error.safe = "it is left as it is"
        error.hint = f"`labsync verify --repair {artifact.name}` sets it aside and brings it again"
        yield ErrorReport.of(error, artifact.name)


def _sourced_stand(
    lab: Lab, artifact: Artifact, locked: LockedArtifact, disk: DiskState, reason: str = "", *, asks: bool
) -> Stand:
    wanted = locked.snapshot_id
    mirror: MirrorState = _off(artifact, asks=asks)
    if mirror != "off":
        head = lab.view.head(HeadName.sourced(artifact.name, wanted))
        mirror = _sourced_mirror(lab, head) if head and head.snapshot == wanted else "missing"
    report = ArtifactReport(artifact.name, wanted, disk, mirror, len(locked.files), locked.size, reason)
    return Stand(report, (), tuple(Skipped(f"{artifact.name}/{path}", why) for path, why in locked.skipped))


def _sourced_mirror(lab: Lab, head: Head) -> MirrorState:
    """Return `behind` where something the index names is known to be damaged: a pull writes it anew."""
    if not lab.view.damaged:
        return "ok"
    index = lab.view.readable(head)
    whole = index is not None and not any(file.key in lab.view.damaged for file in index.files)
    return "ok" if whole else "behind"


def _examine_made(lab: Lab, artifact: Artifact, *, rehash: bool, asks: bool) -> Stand:
    inventory = without_secrets(lab.home(artifact).inventory(rehash=rehash))
    head = lab.view.newest(artifact.name) if asks else None
    # A mirror that has no head has lost what was pushed, or is another one: nothing is safe there.
    base = lab.base(artifact) if head is not None or not asks else None
    base = within(artifact, base) if base is not None else None
    theirs = within(artifact, lab.view.index(head.index).snapshot) if head else None
    judge = checkpoint_state if artifact.kind == "checkpoints" else made_state
    # A mirror that is not asked counts as unchanged: what was there is still wanted here.
    disk, reason = judge(base, theirs if asks else base, inventory)
    mirror = _made_mirror(lab, artifact, disk, theirs) if asks else "off"
    here = Snapshot.of(found.entry for found in inventory.files.values())
    report = ArtifactReport(
        artifact.name, head.snapshot if head else "", disk, mirror, len(here), here.size, reason
    )
    errors = _damage(artifact, base or EMPTY, inventory) if rehash else ()
    return Stand(report, errors, inventory.skipped, inventory if disk in AT_RISK else None)


def without_secrets(inventory: Inventory) -> Inventory:
    """Return the inventory without the files that are never pushed; they are listed as skipped."""
    secret = {path for path in inventory.files if is_secret(path)}
    if not secret:
        return inventory
    return replace(
        inventory,
        files={path: found for path, found in inventory.files.items() if path not in secret},
        skipped=(*inventory.skipped, *(Skipped(path, NEVER_PUSHED) for path in sorted(secret))),
    )


def _made_mirror(lab: Lab, artifact: Artifact, disk: DiskState, theirs: Snapshot | None) -> MirrorState:
    if unsettled_conflicts(lab, artifact, theirs):
        return "conflict"
    if disk in ("ahead", "conflict"):
        return "behind" if theirs else "missing"
    return "ok"


def unsettled_conflicts(lab: Lab, artifact: Artifact, theirs: Snapshot | None) -> tuple[HeadName, ...]:
    """Return the losers of conflicts that nobody chose about: kept, and nowhere in the newest push."""
    heads = open_conflicts(lab, artifact)
    contents = {entry.sha256 for entry in theirs or EMPTY} if heads else set()
    return tuple(
        head.name
        for head in heads
        if not {entry.sha256 for entry in lab.view.index(head.index).snapshot} <= contents
    )


def _damage(artifact: Artifact, wanted: Snapshot, inventory: Inventory) -> tuple[ErrorReport, ...]:
    """Return one error per file that is not what it should be, as `verify` names them."""
    diff = compare(wanted.by_path, inventory.files)
    name = artifact.name
    repair = f"`labsync verify --repair {name}` fetches it again"
    errors: list[LabsyncError] = [
        IntegrityError(
            f"`{escape(path)}` of `{name}` does not have the promised bytes",
            safe="it is left as it is",
            hint=repair,
            path=path,
        )
        for path in (*diff.damaged, *(() if artifact.is_made else diff.behind))
    ]
    if not artifact.is_made:
        errors += [
            ConflictError(
                f"`{escape(path)}` of `{name}` was changed here",
                safe="it is left as it is",
                hint=f"`labsync pull {name} --force` takes the locked one and sets yours aside",
                path=path,
            )
            for path in diff.changed
        ]
    lost = () if artifact.kind == "checkpoints" and artifact.is_made else diff.missing
    errors += [
        NotFoundError(f"`{escape(path)}` of `{name}` is missing on the disk", hint=repair, path=path)
        for path in lost
    ]
    return tuple(ErrorReport.of(error, name) for error in errors)
