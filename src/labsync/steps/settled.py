"""What of a folder may be pushed now: whole files that no process is writing and that hold no secrets."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from labsync.errors import IntegrityError, RefusedError
from labsync.names import escape
from labsync.report import ErrorReport, Skipped
from labsync.snapshot import Snapshot
from labsync.steps.writers import ALLOWED, NEVER_PUSHED, held_open, is_secret, secret_inside

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from contextlib import AbstractContextManager

    from labsync.disk.base import Home
    from labsync.manifest.model import Artifact
    from labsync.places import Inventory
    from labsync.steps.lab import Lab


@dataclass(frozen=True)
class Settled:
    """What may be pushed; `busy` are the paths that must wait, because of a writer or of damage."""

    snapshot: Snapshot
    busy: frozenset[str]
    skipped: tuple[Skipped, ...]
    errors: tuple[ErrorReport, ...]


@dataclass(frozen=True)
class Taken:
    """What a push takes of a made artifact: where from, what may go, and all the paths that are `here`."""

    home: Home
    settled: Settled
    here: Collection[str]
    exists: bool = True


class Take(Protocol):
    """How a push comes by the files of a made artifact; they stay as they are while the context is open."""

    def __call__(self, lab: Lab, artifact: Artifact) -> AbstractContextManager[Taken]:
        """Look at the artifact, and take what may be pushed."""


@contextlib.contextmanager
def take_all(lab: Lab, artifact: Artifact) -> Iterator[Taken]:
    """Take every file that nobody has open, as it is now: a person who pushes does not wait."""
    home = lab.home(artifact)
    inventory = home.inventory(rehash=False)
    yield Taken(home, settle(artifact, home, inventory), inventory.files, inventory.exists)


def settle(artifact: Artifact, home: Home, inventory: Inventory) -> Settled:
    """Sort the files of an inventory into those that may be pushed now and those that may not."""
    writers = held_open(home.source(path) for path in inventory.files)
    kept, busy, errors = [], set(), []
    skipped = list(inventory.skipped)
    for path, found in inventory.files.items():
        if is_secret(path):
            skipped.append(Skipped(path, NEVER_PUSHED))
        elif pid := writers.get(home.source(path)):
            skipped.append(Skipped(path, f"process {pid} has it open for writing"))
            busy.add(path)
        elif what := secret_inside(home.source(path)):
            errors.append(ErrorReport.of(_secret(artifact, path, what)))
            busy.add(path)
        elif found.state == "damaged":
            errors.append(ErrorReport.of(_damaged(artifact, path)))
            busy.add(path)
        else:
            kept.append(found.entry)
    return Settled(Snapshot.of(kept), frozenset(busy), tuple(skipped), tuple(errors))


def _secret(artifact: Artifact, path: str, what: str) -> RefusedError:
    return RefusedError(
        f"`{escape(path)}` of `{artifact.name}` holds {what} and is not pushed",
        safe="the other files are pushed; nobody has seen it",
        hint=(
            "remove it, also from a notebook's output, and renew it; or leave the file out by `exclude:`; "
            f"a line that only looks like one may end with `# {ALLOWED}`"
        ),
        artifact=artifact.name,
        path=path,
    )


def _damaged(artifact: Artifact, path: str) -> IntegrityError:
    return IntegrityError(
        f"`{escape(path)}` of `{artifact.name}` changed although its size and time did not",
        safe="it was not pushed; the mirror keeps what it has",
        hint=f"`labsync verify --repair {artifact.name}` restores it; `touch` it if the change is yours",
        artifact=artifact.name,
        path=path,
    )
