"""Libraries with `history: true`: a real checkout beside their files, and its bundle in the mirror."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from labsync.artifact_locks import hold
from labsync.atomic import disk_errors, make_dirs, rename
from labsync.disk.checkout import GIT_DIR, standing
from labsync.errors import IntegrityError, LabsyncError, NotFoundError
from labsync.events import Note
from labsync.origins.git_history import History, check_out, move_on
from labsync.report import NOTHING_MOVED, ErrorReport, Transferred
from labsync.steps.bundles import MirroredBundle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from labsync.manifest.model import Artifact
    from labsync.steps.lab import Lab


@dataclass(frozen=True)
class Brought:
    """What bringing histories did."""

    errors: tuple[ErrorReport, ...] = ()
    transferred: Transferred = NOTHING_MOVED


def bring_histories(lab: Lab, artifacts: Iterable[Artifact], *, repair: bool = False) -> Brought:
    """Give each library that asks for it, and whose files are here, its checkout, and the mirror its bundle.

    With `repair` every object is read again; a damaged repository is set aside and made anew.
    """
    return _each(lab, artifacts, lambda library: library.bring(repair=repair))


def mirror_histories(lab: Lab, artifacts: Iterable[Artifact]) -> Brought:
    """Give the mirror the bundle of each library that asks for one, past the disk."""
    return _each(lab, artifacts, lambda library: library.keep(None))


def damage(lab: Lab, artifact: Artifact) -> IntegrityError | None:
    """Read a library's history again, every object; return what is wrong with it, None for nothing."""
    locked, tree = lab.locked(artifact), lab.home(artifact).path
    if not standing(tree):
        return None
    try:
        History.of(artifact.origin, locked.revision).prove(tree / GIT_DIR)
    except IntegrityError as error:
        return error
    return None


def _each(lab: Lab, artifacts: Iterable[Artifact], act: Callable[[_Library], None]) -> Brought:
    errors: list[ErrorReport] = []
    moved = NOTHING_MOVED
    for artifact in artifacts:
        if not artifact.history:
            continue
        try:
            with hold(lab.manifest.state_dir, artifact.name, "history"):
                library = _Library(lab, artifact)
                try:
                    act(library)
                finally:
                    moved += library.bundle.transferred
                    errors += library.bundle.errors
        except LabsyncError as error:
            errors.append(ErrorReport.of(error, artifact.name))
    return Brought(tuple(errors), moved)


class _Library:
    """One library of a lab, with its history at the locked commit."""

    def __init__(self, lab: Lab, artifact: Artifact) -> None:
        locked, home = lab.locked(artifact), lab.home(artifact)
        self._lab = lab
        self._artifact = artifact
        self._history = History.of(artifact.origin, locked.revision)
        self._skipped = [path for path, _ in locked.skipped]
        self._home = home
        self._tree = home.path
        self.bundle = MirroredBundle(lab, artifact, locked.revision)

    def bring(self, *, repair: bool) -> None:
        """Make the checkout, or let it move on to the lock's commit; then see to the bundle."""
        if not self._tree.is_dir():
            return  # why the files are not here was said
        if repair:
            self._set_damaged_aside()
        if standing(self._tree) != self._history.commit:
            self._check_out()
        self.keep(self._tree / GIT_DIR)

    def keep(self, repository: Path | None) -> None:
        """Give the mirror the bundle if it lacks it, from this repository or else from the origin."""
        if not self._lab.mirrors(self._artifact) or self.bundle.find():
            return
        with self._scratch() as scratch, self.bundle.stored() as path:
            if repository is None:
                self._history.fetch(repository := scratch)
            self._history.bundle(repository, path)

    def _check_out(self) -> None:
        if not standing(self._tree):
            with self._scratch() as repository:
                self._obtain(repository)
                check_out(self._history, repository, self._tree, self._skipped)
            return
        repository = self._tree / GIT_DIR
        is_new = not self._history.is_in(repository)
        if is_new:
            self._obtain(repository)
        if not move_on(self._history, self._tree, self._skipped) and is_new:
            kept = f"the checkout of {self._artifact.name} stays where you put it"
            self._lab.observe(Note(f"{kept}; the lock's commit is in its repository"))

    def _obtain(self, repository: Path) -> None:
        """Bring the history into a repository: from the mirror's bundle, or else from the origin."""
        failure: LabsyncError | None = None
        if located := self.bundle.find():
            try:
                with self.bundle.fetched(located) as path:
                    self._history.unbundle(path, repository)
            except LabsyncError as error:
                failure = error
            else:
                return
        if not self._lab.may_ask_origin(self._artifact):
            raise failure or NotFoundError(
                f"the history of `{self._artifact.name}` is in no place that may be asked",
                hint="run it without `--offline`",
            )
        self._lab.observe(Note(f"fetching the history of {self._artifact.name} from {self._artifact.origin}"))
        self._history.fetch(repository)

    def _set_damaged_aside(self) -> None:
        if wrong := damage(self._lab, self._artifact):
            stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
            aside = self._lab.manifest.state_dir / "aside" / stamp / self._artifact.name / GIT_DIR
            with disk_errors(aside):
                make_dirs(aside.parent)
                rename(self._tree / GIT_DIR, aside)
            self._lab.observe(Note(f"{wrong.what}: it was set aside as `{aside}`", "warning"))

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        """Give the path of a repository to be made, on the tree's file system; nothing is left of it."""
        path = self._home.stage / f"{self._artifact.short_name}.git"
        _remove(path)
        try:
            yield path
        finally:
            _remove(path)


def _remove(folder: Path) -> None:
    with disk_errors(folder), contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
