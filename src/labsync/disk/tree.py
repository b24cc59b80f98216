"""A plain folder, or a single file, as the home of an artifact."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from labsync.atomic import disk_errors, make_dirs, refuse_links
from labsync.disk.hashing import Looked, digests, hash_file, remember_placed
from labsync.disk.marker import Marker
from labsync.disk.placing import device_of, lstat, nearest, put, refuse_in_the_way, set_aside
from labsync.disk.walk import Walked, walk
from labsync.errors import ConflictError, DiskError, RefusedError
from labsync.names import safe_join
from labsync.places import Found, FoundState, Inventory
from labsync.report import Skipped
from labsync.snapshot import FileEntry
from labsync.state import path_key

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from labsync.disk.hashing import Digested
    from labsync.manifest.model import Artifact
    from labsync.places import Replace
    from labsync.snapshot import Snapshot
    from labsync.state import Published, Seen, State

EXECUTABLE = 0o755
PLAIN = 0o644
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
        self._root = root
        self._artifact = artifact
        self._state = state
        self._state_dir = state_dir
        self._file_name = ""
        if artifact.is_file:
            self._file_name = file_name or _last_segment(artifact.origin)
        self._marker = Marker(state_dir, artifact.name)
        self._key = path_key(self._path, root)

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
        walked = self._walk()
        known = {} if rehash else self._known()
        published = self._published()
        files = {
            path: self._found(path, digest, published.get(walked.files[path].key))
            for path, digest in sorted(digests(walked.files, known, self._state).items())
        }
        return Inventory(files, walked.skipped, complete)

    def source(self, path: str) -> Path:
        """Return where the bytes of a file lie."""
        return self._target(path)

    def begin(self) -> None:
        """Mark the artifact incomplete."""
        self._marker.set()

    def publish(self, entry: FileEntry, staged: Path, replace: Replace) -> None:
        """Make verified bytes visible, as `disk.base.Home` says; their mode is 0755 or 0644."""
        target = self._target(entry.path)
        key = path_key(target, self._root)
        with disk_errors(target):
            self._clear_way(entry.path)
            make_dirs(target.parent)
            staged.chmod(EXECUTABLE if entry.executable else PLAIN)
            since, before = time.time_ns(), staged.stat()
            put(
                staged,
                target,
                replace,
                is_recorded=lambda: self._is_recorded(target, key),
                aside=lambda: set_aside(target, self._state_dir, key.lstrip("/")),
            )
        self._state.record(key, before, entry.sha256)
        remember_placed(self._state, Looked(str(target), key, before), entry.sha256, since)

    def finish(self, snapshot: Snapshot) -> None:
        """Record the files that are the snapshot's and take the mark of `begin` away.

        Nothing is written where nothing is new.
        """
        if self._exists():
            self._record(snapshot)
        self._marker.clear()

    def _record(self, snapshot: Snapshot) -> None:
        files = self._walk().files
        published = self._published()
        unsure = {
            entry.path: looked
            for entry in snapshot
            if (looked := files.get(entry.path)) and not _is_known(entry, looked, published.get(looked.key))
        }
        if not unsure:
            return
        found = digests(unsure, self._known(), self._state)
        self._state.record_all(
            (unsure[path].key, digest.stat, digest.sha256)
            for path, digest in found.items()
            if digest.sha256 == snapshot.by_path[path].sha256
        )

    def _found(self, path: str, digest: Digested, published: Published | None) -> Found:
        executable = bool(digest.stat.st_mode & 0o100)
        entry = FileEntry(path, digest.sha256, digest.stat.st_size, executable)
        return Found(entry, judge(digest, published))

    def _is_recorded(self, target: Path, key: str) -> bool:
        """Say whether the file still is as recorded: by its stat, or else by its bytes."""
        published, found = self._state.publication(key), lstat(target)
        if published is None or found is None:
            return False
        if published.is_untouched(found):
            return True
        item = hash_file(str(target), key)
        return item is not None and item.sha256 == published.sha256

    def _known(self) -> Mapping[str, Seen]:
        if not self._artifact.is_file:
            return self._state.known_under(self._key)
        seen = self._state.seen(self._key)
        return {self._key: seen} if seen else {}

    def _published(self) -> Mapping[str, Published]:
        if not self._artifact.is_file:
            return self._state.publications_under(self._key)
        published = self._state.publication(self._key)
        return {self._key: published} if published else {}

    def _target(self, path: str) -> Path:
        if not self._artifact.is_file:
            return safe_join(self._path, path)
        if path != self._file_name:
            raise RefusedError(
                f"`{self._artifact.name}` is the one file `{self._file_name}`, not `{path}`", path=path
            )
        return self._path

    def _clear_way(self, path: str) -> None:
        if self._artifact.is_file:
            return
        if self._path.exists() and not self._path.is_dir():
            raise ConflictError(
                f"`{self._path}` is a file where a folder must go", path=str(self._path), hint="move it away"
            )
        refuse_links(self._path, path)

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

    def _walk(self) -> Walked:
        if not self._artifact.is_file:
            return walk(self._path, self._key, self._artifact.filter)
        with disk_errors(self._path):
            found = lstat(self._path)
        if found is None:
            return Walked({}, ())
        try:
            refuse_in_the_way(self._path)
        except RefusedError:
            return Walked({}, (Skipped(self._file_name, "is a link"),))
        return Walked({self._file_name: Looked(os.fspath(self._path), self._key, found)}, ())


def judge(digest: Digested, published: Published | None) -> FoundState:
    """Say what a file is against its record, as `places.Found` defines the words."""
    if published is None:
        return "changed"
    if digest.sha256 == published.sha256:
        return "recorded"
    return "damaged" if published.is_untouched(digest.stat) else "changed"


def _is_known(entry: FileEntry, looked: Looked, published: Published | None) -> bool:
    return published is not None and published.sha256 == entry.sha256 and published.is_untouched(looked.stat)


def _last_segment(origin: str) -> str:
    """Return the URL's last segment, decoded where URLs are encoded."""
    if origin.startswith(("http://", "https://")):
        return unquote(urlsplit(origin).path.rpartition("/")[2])
    return origin.rpartition("/")[2]
