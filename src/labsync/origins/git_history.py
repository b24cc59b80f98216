"""The whole history behind one commit: fetched, kept as one bundle, given back as a real checkout.

A repository of labsync's own making holds the commit under `refs/labsync/<commit>`, with every object
behind it. That ref is made last: where it is, the history is whole.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsync.atomic import disk_errors, make_dirs, rename
from labsync.digest import is_commit
from labsync.disk.checkout import GIT_DIR, standing
from labsync.errors import DiskError, IntegrityError, LabsyncError, NotFoundError
from labsync.origins.git import fetch_commit
from labsync.origins.git_command import LONG, MissingError, Remote, damaged, git

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class History:
    """All that led to one commit of one repository."""

    remote: Remote
    commit: str

    @classmethod
    def of(cls, origin: str, commit: str) -> History:
        """Return the history of a `git+…` origin at a full commit."""
        return cls(Remote.of(origin), commit)

    @property
    def ref(self) -> str:
        """The ref that says that the history is whole."""
        return f"refs/labsync/{self.commit}"

    def fetch(self, repository: Path) -> None:
        """Bring the history from the origin into a bare repository, which is made where it is missing."""
        self._ensure(repository)
        if not self.is_in(repository):
            fetch_commit(self.remote, repository, self.commit, whole=True)

    def unbundle(self, bundle: Path, repository: Path) -> None:
        """Bring the history from a bundle into a repository, which is made where it is missing.

        Every object is checked, and that none is missing; `git bundle verify` looks at neither.
        IntegrityError when the bundle does not hold the history.
        """
        self._ensure(repository)
        if self.is_in(repository):
            return
        file = Remote(str(bundle), "file")
        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
        words = ("fetch", *options, "--", str(bundle), f"{self.ref}:{self.ref}")
        try:
            git(*words, remote=file, repository=repository, timeout=LONG)
        except LabsyncError as error:
            if _is_of_the_machine(error):
                raise
            raise damaged(self.remote, "its bundle cannot be read to the end") from error

    def bundle(self, repository: Path, into: Path) -> None:
        """Write the history as one file; the same history need not give the same bytes again."""
        with disk_errors(into):
            make_dirs(into.parent)
        words = ("bundle", "create", "--quiet", str(into), self.ref)
        git(*words, remote=self.remote, repository=repository, timeout=LONG)

    def is_in(self, repository: Path) -> bool:
        """Say whether the repository has the history, whole."""
        asked = ("for-each-ref", "--format=%(objectname)", self.ref)
        found = git(*asked, remote=self.remote, repository=repository).decode().strip()
        return found == self.commit and not (repository / "shallow").exists()

    def prove(self, repository: Path) -> None:
        """Read every object again; IntegrityError (5) when one is damaged or missing."""
        words = ("fsck", "--full", "--no-dangling", self.ref)
        try:
            git(*words, remote=self.remote, repository=repository, timeout=LONG)
        except LabsyncError as error:
            if _is_of_the_machine(error):
                raise
            raise IntegrityError(f"the history in `{repository}` is damaged: {error.what}") from error

    def _ensure(self, repository: Path) -> None:
        if not (repository / "HEAD").exists():
            with disk_errors(repository):
                make_dirs(repository.parent)
            git("init", "--quiet", "--bare", "--template=", "--", str(repository), remote=self.remote)


def _is_of_the_machine(error: LabsyncError) -> bool:
    """Say whether git could not work at all (no git, no room), which says nothing about a history."""
    no_git = isinstance(error, NotFoundError) and not isinstance(error, MissingError)
    return no_git or isinstance(error, DiskError)


def check_out(history: History, repository: Path, tree: Path, skipped: Iterable[str]) -> None:
    """Make a repository that has the history the `.git` of a folder that has the commit's files.

    HEAD is the commit itself, and the origin is the remote `origin`. The index is the commit's; the
    `skipped` paths, which labsync does not carry, count as unchanged. It appears by one rename.
    """
    remote = history.remote
    for key, value in (
        ("core.bare", "false"),
        ("remote.origin.url", remote.shown),
        ("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"),
    ):
        git("config", key, value, remote=remote, repository=repository)
    _stand(history, repository, skipped)
    with disk_errors(tree):
        rename(repository, tree / GIT_DIR)
    _refresh(remote, tree)


def move_on(history: History, tree: Path, skipped: Iterable[str]) -> bool:
    """Let a checkout whose repository has the history stand on its commit, if it stood on an earlier one.

    False, and no change, when it stands on something that the user chose.
    """
    repository, now = tree / GIT_DIR, standing(tree)
    if not (is_commit(now) and History(history.remote, now).is_in(repository)):
        return False
    _stand(history, repository, skipped)
    _refresh(history.remote, tree)
    return True


def _stand(history: History, repository: Path, skipped: Iterable[str]) -> None:
    """Write the index, then HEAD: a run that is killed between the two does both again."""
    remote = history.remote
    git("read-tree", history.commit, remote=remote, repository=repository)
    if paths := "".join(f"{path}\0" for path in skipped):
        words = ("update-index", "--skip-worktree", "-z", "--stdin")
        git(*words, remote=remote, repository=repository, stdin=paths.encode("utf-8", "surrogateescape"))
    git("update-ref", "--no-deref", "HEAD", history.commit, remote=remote, repository=repository)


def _refresh(remote: Remote, tree: Path) -> None:
    """Let the index know the files' stat, so that `git status` need not read them."""
    words = ("--work-tree", str(tree), "update-index", "-q", "--refresh")
    with contextlib.suppress(LabsyncError):  # what the user changed is no failure
        git(*words, remote=remote, repository=tree / GIT_DIR)
