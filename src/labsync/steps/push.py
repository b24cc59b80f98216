"""Push: what was made here goes to the mirror; nothing there is lost, nothing unfinished becomes visible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labsync.artifact_locks import hold
from labsync.errors import LabsyncError, NotFoundError, RefusedError, UsageError
from labsync.events import Note
from labsync.report import ErrorReport
from labsync.snapshot import EMPTY, Snapshot
from labsync.steps.goals import mirrored, unchanged
from labsync.steps.publish import publish_sourced
from labsync.steps.push_results import push_results
from labsync.steps.push_units import complete_units, push_units
from labsync.steps.settled import take_all
from labsync.steps.storing import NotStoredError, Pushed, store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labsync.disk.base import Home
    from labsync.manifest.model import Artifact
    from labsync.places import Inventory
    from labsync.steps.lab import Lab
    from labsync.steps.settled import Take, Taken


def push(lab: Lab, artifacts: Sequence[Artifact], *, prune: bool, take: Take = take_all) -> Pushed:
    """Push the selected artifacts one after the other; one's failure does not stop the others.

    `take` decides what of a made artifact goes.
    """
    pushed = Pushed()
    if not lab.has_mirror:
        raise UsageError(
            "`push` needs the mirror, and `--offline` forbids it", hint="run it without `--offline`"
        )
    if unreached := lab.reach_mirror():
        pushed.errors += unreached
        return pushed
    for artifact in artifacts:
        try:
            with hold(lab.manifest.state_dir, artifact.name, "mirror"):
                _push_one(lab, artifact, pushed, take, prune=prune)
        except NotStoredError:
            continue
        except LabsyncError as error:
            pushed.errors.append(ErrorReport.of(error, artifact.name))
    return pushed


def _push_one(lab: Lab, artifact: Artifact, pushed: Pushed, take: Take, *, prune: bool) -> None:
    if unchanged(lab, artifact):
        pushed.unchanged.add(artifact.name)
    elif artifact.is_made:
        with take(lab, artifact) as taken:
            _push_made(lab, artifact, taken, pushed, prune=prune)
    else:
        home = lab.home(artifact)
        _push_sourced(lab, artifact, home, home.inventory(rehash=False), pushed)


def _push_made(lab: Lab, artifact: Artifact, taken: Taken, pushed: Pushed, *, prune: bool) -> None:
    base = lab.base(artifact)
    if not taken.exists and base is None:
        lab.observe(Note(f"`{artifact.name}`: `{artifact.path}` does not exist yet, nothing to push"))
        return
    _refuse_lost_folder(artifact, taken, base)
    home, settled = taken.home, taken.settled
    pushed.skipped += settled.skipped
    pushed.errors += settled.errors
    if artifact.kind == "checkpoints":
        push_units(lab, artifact, home, complete_units(artifact, home, settled, pushed), pushed)
    else:
        mine, known = settled.snapshot, (base or EMPTY).by_path
        # What cannot be pushed now is as this disk knew it: it must not look deleted.
        waiting = [known[path] for path in taken.here if path in known and path not in mine.by_path]
        push_results(lab, artifact, home, Snapshot.of([*mine, *waiting]), pushed, prune=prune)


def _refuse_lost_folder(artifact: Artifact, taken: Taken, base: Snapshot | None) -> None:
    """Stop before a lost or emptied folder is mistaken for the user's wish (aws/aws-cli#1564)."""
    if not taken.exists:
        raise NotFoundError(
            f"the folder `{artifact.path}` is gone",
            safe="the mirror keeps what it has",
            hint=f"`labsync pull {artifact.name}` brings it back",
        )
    if base is not None and len(base) and not taken.here:
        raise RefusedError(
            f"the folder `{artifact.path}` is suddenly empty",
            safe="the mirror keeps what it has",
            hint=f"`labsync pull {artifact.name}` brings its files back",
        )


def _push_sourced(lab: Lab, artifact: Artifact, home: Home, inventory: Inventory, pushed: Pushed) -> None:
    locked = lab.locked(artifact)
    different = [e.path for e in locked.snapshot if _found(inventory, e.path) != e]
    if different:
        raise RefusedError(
            f"`{different[0]}` of `{artifact.name}` is not what the lock says",
            safe="the mirror keeps what it has",
            hint=f"`labsync pull {artifact.name}` makes the disk match the lock first",
            path=different[0],
        )
    contents = mirrored(lab, artifact, locked.snapshot)
    located = store(lab, artifact, home, locked.snapshot, contents, pushed)
    publish_sourced(lab, artifact, located)


def _found(inventory: Inventory, path: str) -> object:
    found = inventory.files.get(path)
    return found and found.entry
