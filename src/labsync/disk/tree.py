"""A plain folder, or a single file, as the home of an artifact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from labsync.atomic import disk_errors, make_dirs
from labsync.disk.hashing import hash_file
from labsync.disk.known import Look, beside, found_files, identify, sort_out, unrecorded
from labsync.disk.marker import Marker
from labsync.disk.placing import Ways, device_of, lstat, make_way, nearest, set_aside
from labsync.disk.publishing import EXECUTABLE, PLAIN, Publisher, Target
from labsync.disk.walk import OneFile, Walk
from labsync.errors import DiskError, RefusedError
from labsync.names import escape, path_problem, safe_join
from labsync.places import Inventory
from labsync.state import Stat, path_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from labsync.disk.base import Staged
    from labsync.errors import LabsyncError
    from labsync.manifest.model import Artifact
    from labsync.snapshot import FileEntry, Snapshot
    from labsync.state import Remembered, State

STAGE = ".labsync-stage"


class TreeHome:
    """The folder (or the one file) that the manifest names with `path:`.

    `root` is the manifest's folder. A one-file artifact has one entry, named `file_name`; by default
    that is the last segment of the origin's URL. The artifact's folder may itself be a link to a
    folder elsewhere; links inside it are neither followed nor written through.
    """

    def __init__(
        self, root: Path, artifact: Artifact, state: State, state_dir: Path, file_name: str = ""
    ) -> None:
        self._path = safe_join(root, artifact.path.rstrip("/"))
        self._artifact = artifact
        self._state = state
        self._state_dir = state_dir
        self._file_name = ""
        if artifact.is_file:
            self._file_name = file_name or _last_segment(artifact.origin)
        self._wanted = artifact.filter
        if artifact.kind == "libraries":  # a checkout has its repository there
            self._wanted = replace(artifact.filter, exclude=(*artifact.filter.exclude, "/.git/"))
        self._marker = Marker(state_dir, artifact.name)
        self._key = path_key(self._path, root)
        self._publisher = Publisher(state, on_record=True)

    @property
    def path(self) -> Path:
        """The folder or the file."""
        return self._path

    @property
    def stage(self) -> Path:
        """`.labsync/stage`, or `.labsync-stage` on the artifact's own file system where that is another."""
        with disk_errors(self._path):
            device = device_of(self._path.parent if self._artifact.is_file else self._path)
            stage = self._state_dir / "stage"
            if device_of(self._state_dir) != device:
                # A folder that is itself a link or a mount point has its stage inside.
                beside = device_of(self._path.parent) == device
                stage = nearest(self._path.parent if beside else self._path) / STAGE
            make_dirs(stage)
        return stage

    def inventory(self, *, rehash: bool) -> Inventory:
        """Look at every file, as `disk.base.Home` says."""
        complete = not self._marker.is_set
        if not self._exists():
            return Inventory({}, complete=complete, exists=False)
        walk = self._walk()
        known = iter(()) if rehash else self._remembered()
        files = found_files(beside(walk, known), self._locate, self._state)
        return Inventory(files, walk.skipped, complete)

    def look(self) -> Look:
        """Look at every file without reading any: a walk beside what is remembered."""
        if not self._exists():
            return Look({}, {}, exists=False)
        walk = self._walk()
        recorded, fresh = sort_out(beside(walk, self._remembered()))
        return Look(recorded, fresh, walk.skipped)

    def locate(self, path: str) -> tuple[str, str]:
        """Return where a file lies, and its key in the state; RefusedError for a path not of ours."""
        return self._locate(path)

    def identity(self) -> str | None:
        """Return the id of the snapshot that lies here, as `disk.base.Home` says."""
        if self._marker.is_set or not self._exists():
            return None
        walk = self._walk()
        found = identify(beside(walk, self._remembered()))
        return None if walk.skipped or walk.is_refused else found

    def source(self, path: str) -> Path:
        """Return where the bytes of a file lie."""
        return Path(self._locate(path)[0])

    def begin(self) -> None:
        """Mark the artifact incomplete."""
        self._marker.set()

    def publish(self, files: Sequence[Staged]) -> list[LabsyncError | None]:
        """Make verified bytes visible, as `disk.base.Home` says; their mode is 0755 or 0644."""
        ways = Ways(self._path.parent if self._artifact.is_file else self._path)
        return self._publisher.publish(files, lambda file: self._aim(file.entry, ways), self._make_way)

    def finish(self, snapshot: Snapshot) -> None:
        """Record the files that are the snapshot's and take the mark of `begin` away.

        Nothing is written where nothing is new.
        """
        if self._exists():
            files = beside(self._walk(), self._remembered())
            self._state.record_all(unrecorded(files, snapshot.by_path, self._locate, self._state))
        self._publisher.settle()
        self._marker.clear()

    def _aim(self, entry: FileEntry, ways: Ways) -> Target:
        place = self._locate(entry.path)
        ways.open(self._path.name if self._artifact.is_file else entry.path)
        return Target(*place, EXECUTABLE if entry.executable else PLAIN)

    def _make_way(self, file: Staged, target: Target) -> bool:
        path = Path(target.path)
        make_way(
            path,
            file.replace,
            is_recorded=lambda: self._is_recorded(path, target.key),
            aside=lambda: set_aside(path, self._state_dir, target.key.lstrip("/")),
        )
        return True

    def _is_recorded(self, target: Path, key: str) -> bool:
        """Say whether the file still is as recorded: by its stat, or else by its bytes."""
        published, found = self._state.publications([key]).get(key), lstat(target)
        if published is None or found is None:
            return False
        if published.is_untouched(Stat.of(found)):
            return True
        item = hash_file(str(target), key)
        return item is not None and item.sha256 == published.sha256

    def _locate(self, path: str) -> tuple[str, str]:
        """Return the path of a file on the disk and its key in the state."""
        if self._artifact.is_file:
            if path != self._file_name:
                raise RefusedError(
                    f"`{self._artifact.name}` is the one file `{self._file_name}`, not `{path}`", path=path
                )
            return str(self._path), self._key
        if problem := path_problem(path):
            raise RefusedError(f"the path `{escape(path)}` {problem}", path=escape(path))
        return f"{self._path}/{path}", f"{self._key}/{path}"

    def _exists(self) -> bool:
        with disk_errors(self._path):
            if self._artifact.is_file:
                return lstat(self._path) is not None
            if self._path.is_symlink() and not self._path.exists():
                raise DiskError(
                    f"`{self._path}` is a link to nothing",
                    path=str(self._path),
                    hint="mount what it points to, or remove the link",
                )
            try:
                self._path.stat()
            except FileNotFoundError:
                return False
            return True

    def _walk(self) -> Walk | OneFile:
        if self._artifact.is_file:
            return OneFile(self._path, self._file_name)
        return Walk(self._path, self._wanted)

    def _remembered(self) -> Iterator[Remembered]:
        if self._artifact.is_file:
            return self._state.remembered_file(self._key, self._file_name)
        return self._state.remembered(self._key)


def _last_segment(origin: str) -> str:
    """Return the URL's last segment, decoded where URLs are encoded."""
    if origin.startswith(("http://", "https://")):
        return unquote(urlsplit(origin).path.rpartition("/")[2])
    return origin.rpartition("/")[2]
