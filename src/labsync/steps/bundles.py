"""The bundle of a git history in the mirror: an artifact of its own, `libraries/<name>.history`.

```
libraries/<name>.history/<batch>/…                one bundle for each commit that was locked
.labsync/heads/libraries/<name>.history@<id12>.json
```

Git may write another bundle of the same history, so the lock does not name it: its bytes are proven by
the index, and what is in it by the commit.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from labsync.atomic import disk_errors
from labsync.errors import ExitCode, IntegrityError
from labsync.filters import Filter
from labsync.manifest.model import HISTORY
from labsync.plan import Goal
from labsync.report import NOTHING_MOVED, ErrorReport
from labsync.snapshot import Snapshot
from labsync.steps.carry import carry_out, prepare
from labsync.steps.publish import publish_sourced

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from labsync.manifest.model import Artifact
    from labsync.mirrors.base import Located
    from labsync.steps.carry import Carried, Task
    from labsync.steps.lab import Lab


class MirroredBundle:
    """The bundle of a library's history at one commit; counts what it moves and keeps its failures."""

    def __init__(self, lab: Lab, library: Artifact, commit: str) -> None:
        # As an artifact, so that plan, engine and records do with it what they do with any other.
        short_name = f"{library.short_name}{HISTORY}"
        path = f"{lab.manifest.state_dir.name}/history/{library.short_name}"
        self._artifact = replace(library, short_name=short_name, path=path, filter=Filter(), history=False)
        self._lab = lab
        self._library = library
        self._home = lab.home(self._artifact)
        self._file = f"{commit}.bundle"
        self.transferred = NOTHING_MOVED
        self.errors: list[ErrorReport] = []

    def find(self) -> Located | None:
        """Return where the mirror has it, None where it has not or cannot be asked."""
        if not self._lab.has_mirror:
            return None
        view = self._lab.view
        for name in view.names(self._artifact.name):
            head = view.head(name)
            index = view.readable(head) if head else None
            for file in index.files if index else ():
                if file.entry.path == self._file and file.key not in view.damaged:
                    return file
        return None

    @contextlib.contextmanager
    def fetched(self, located: Located) -> Iterator[Path]:
        """Give the file, proven, for the block; IntegrityError where the mirror does not give it back."""
        wanted = Snapshot.of([located.entry])
        goal = Goal(
            self._artifact.name,
            wanted,
            disk=self._home.inventory(rehash=False),
            mirrored={located.entry.sha256: located.ref},
            to_mirror=False,
        )
        with self._emptied():
            carried = self._carry(prepare(self._lab, self._artifact, goal, self._home))
            if carried.errors:
                if {error.code for error in carried.errors} <= {ExitCode.INTEGRITY, ExitCode.NOT_FOUND}:
                    self._lab.view.condemn(frozenset({located.key}))
                raise IntegrityError(f"the mirror does not give it back: {carried.errors[0].message}")
            self._home.finish(wanted)
            yield self._home.path / self._file

    @contextlib.contextmanager
    def stored(self) -> Iterator[Path]:
        """Give the path to write the file to; what lies there at the end of the block goes to the mirror."""
        with self._emptied():
            yield self._home.path / self._file
            found = self._home.inventory(rehash=True)
            wanted = Snapshot.of(file.entry for file in found.files.values())
            goal = Goal(self._artifact.name, wanted, disk=found, to_disk=False)
            task = prepare(self._lab, self._artifact, goal, self._home)
            carried = self._carry(task)
            self.errors += (replace(error, artifact=self._library.name) for error in carried.errors)
            if (located := carried.located(task)) is not None:
                publish_sourced(self._lab, self._artifact, located)

    def _carry(self, task: Task) -> Carried:
        carried = carry_out(self._lab, [task], f"history of {self._library.name}")
        self.transferred += carried.transferred
        return carried

    @contextlib.contextmanager
    def _emptied(self) -> Iterator[None]:
        """Leave nothing of the file on the disk: what is in it lies in the repository."""
        try:
            yield
        finally:
            with disk_errors(self._home.path), contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self._home.path)
