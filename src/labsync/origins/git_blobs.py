"""The files of a scratch repository, read through gits that stay: starting one for each file takes longer."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from labsync.digest import BLOCK
from labsync.origins.git_command import MissingError, Remote, damaged, failure, git, git_servant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from labsync.errors import LabsyncError
    from labsync.process import Servant

DRAINED = 1 << 20  # bytes of a blob that are rather read than spared by ending git


class Blob:
    """One blob whose bytes are about to come."""

    def __init__(self, servant: Servant, size: int, died: Callable[[], LabsyncError]) -> None:
        self.size = size
        self.unread = size + 1  # git ends the bytes with a line break
        self._servant = servant
        self._died = died

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes in order; raises what the end of git means when it ends before."""
        while self.unread:
            block = self._servant.read(min(self.unread, BLOCK))
            if not block:
                raise self._died()
            self.unread -= len(block)
            if block := block if self.unread else block[:-1]:
                yield block


class Blobs:
    """Reads blobs of one repository; safe for several threads, each of which gets a git of its own."""

    def __init__(self, remote: Remote, repository: Path) -> None:
        self.repository = repository
        self._remote = remote
        self._idle: list[Servant] = []
        self._names: dict[str, Mapping[str, str]] = {}
        self._listing = threading.Lock()

    def name(self, commit: str, path: str) -> str:
        """Return the name of the blob that a commit has at a path; MissingError when it has none.

        From a listing that is kept: git searches a folder anew for every file it is asked for by path.
        """
        with self._listing:
            if commit not in self._names:
                self._names[commit] = self._list(commit)
        name = self._names[commit].get(path)
        if name is None:
            raise MissingError(f"`{self._remote.shown}` has no such file at {commit[:12]}", path=path)
        return name

    def _list(self, commit: str) -> Mapping[str, str]:
        words = ("ls-tree", "-r", "-z", "--full-tree", commit)
        names: dict[str, str] = {}
        for record in git(*words, remote=self._remote, repository=self.repository).split(b"\0")[:-1]:
            head, _, path = record.partition(b"\t")
            _, kind, name = head.decode().split()
            if kind == "blob":
                names[path.decode("utf-8", "surrogateescape")] = name
        return names

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[Blob]:
        """Give the blob of a name, to be read in the block; IntegrityError when the repository lost it."""
        try:
            servant = self._idle.pop()
        except IndexError:
            servant = git_servant("cat-file", "--batch", remote=self._remote, repository=self.repository)
        try:
            blob = self._ask(servant, name)
            yield blob
            if blob.unread <= DRAINED:
                for _ in blob.blocks():
                    pass
        except BaseException:
            servant.end()
            raise
        if blob.unread:
            servant.end()
        else:
            self._idle.append(servant)

    def _ask(self, servant: Servant, name: str) -> Blob:
        def died() -> LabsyncError:
            return failure(self._remote, servant.end().error_text)

        servant.tell(f"{name}\n".encode())
        match servant.line().decode("utf-8", "replace").split(" "):
            case [oid, "blob", size] if oid == name:
                return Blob(servant, int(size), died)
            case [""]:
                raise died()
            case said:
                raise damaged(self._remote, " ".join(said))
