"""The Hugging Face cache as the home of an `hf://` artifact without a path, so that `from_pretrained` works.

```
<cache>/models--org--name/
  blobs/<sha256 for LFS | git sha1 else>       the bytes; in newer caches a link into <cache>/blobs
  snapshots/<commit>/<path> -> ../../blobs/…   relative links
  trees/<commit>.json                          the listing, only when nothing was filtered out
  refs/<revision>                              the commit, without a newline, last of all
```
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, NamedTuple

from labsync.atomic import disk_error, disk_errors, fsync_dir, make_dirs, refuse_links
from labsync.digest import sha256_bytes
from labsync.disk.hashing import Digested, Looked, hash_all
from labsync.disk.hf_records import HfRecords
from labsync.disk.known import judge
from labsync.disk.marker import Marker
from labsync.disk.placing import Ways, device_of, lstat, make_way, refuse_in_the_way, set_aside
from labsync.disk.publishing import PLAIN, Publisher, Target
from labsync.disk.tree import STAGE
from labsync.errors import ConflictError, LabsyncError, RefusedError
from labsync.names import escape, path_problem
from labsync.places import Found, Inventory
from labsync.snapshot import FileEntry
from labsync.state import Stat, path_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from labsync.disk.base import Staged
    from labsync.lock import LockedArtifact, LockedFile
    from labsync.manifest.model import Artifact
    from labsync.snapshot import Snapshot
    from labsync.state import State


def hf_cache_dir(env: Mapping[str, str]) -> Path:
    """Return the cache folder that huggingface_hub uses in this environment."""
    if named := env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE"):
        return _expand(named, env).absolute()
    if home := env.get("HF_HOME"):
        return (_expand(home, env) / "hub").absolute()
    above = env.get("XDG_CACHE_HOME") or str(_home(env) / ".cache")
    return (_expand(above, env) / "huggingface" / "hub").absolute()


def _home(env: Mapping[str, str]) -> Path:
    return Path(env["HOME"]) if env.get("HOME") else Path.home()


def _expand(text: str, env: Mapping[str, str]) -> Path:
    text = Template(text).safe_substitute(env)
    if text == "~" or text.startswith("~/"):
        return _home(env).joinpath(*text.split("/")[1:])
    return Path(text)


class _Bytes(NamedTuple):
    """Where the bytes of a file are, and whether they are found under its path in the snapshot."""

    looked: Looked
    is_linked: bool


class HfCacheHome:
    """One repository's snapshot at the locked commit, in the layout that huggingface_hub reads offline.

    A blob's name says what its bytes must be, so wrong ones are damage whatever their mtime. A real
    file where a link belongs is the user's: fine with the right bytes, changed with others. `finish`
    is due whenever the inventory is not complete, even if every file is there.
    """

    def __init__(
        self, artifact: Artifact, locked: LockedArtifact, state: State, state_dir: Path, cache_dir: Path
    ) -> None:
        self._artifact = artifact
        self._locked = locked
        self._files = {file.entry.path: file for file in locked.files}
        self._state = state
        self._state_dir = state_dir
        self._cache = cache_dir
        self._repo = cache_dir / _folder_name(artifact.origin)
        self._records = HfRecords(self._repo, artifact, locked, state, state_dir.parent)
        self._marker = Marker(state_dir, artifact.name)
        self._publisher = Publisher(state, on_record=False)
        self._blobs_key = self._key(self._repo / "blobs")

    @property
    def path(self) -> Path:
        """The snapshot's folder."""
        return self._repo / "snapshots" / self._locked.revision

    @property
    def stage(self) -> Path:
        """`.labsync/stage`, or a folder on the cache's own file system where that is another.

        Never in the cache folder itself, where `scan_cache_dir` would warn about it.
        """
        with disk_errors(self._cache):
            device = device_of(self._repo)
            stage = self._state_dir / "stage"
            if device_of(self._state_dir) != device:
                beside = self._cache.parent
                stage = (beside if device_of(beside) == device else self._repo) / STAGE
            make_dirs(stage)
        return stage

    def inventory(self, *, rehash: bool) -> Inventory:
        """Look at every locked file, as `disk.base.Home` says; a blob that is a link is followed."""
        with disk_errors(self._repo):
            places = self._look_all()
            exists = bool(places) or self.path.is_dir()
            whole = not exists or (all(p.is_linked for p in places.values()) and self._records.are_whole)
        digests = self._digests({path: place.looked for path, place in places.items()}, rehash=rehash)
        files = {
            path: self._found(self._files[path], digest, places[path].looked)
            for path, digest in sorted(digests.items())
        }
        return Inventory(files, (), whole and not self._marker.is_set, exists)

    def identity(self) -> str | None:
        """Return the id of the locked snapshot if that is what lies here, as `disk.base.Home` says."""
        with disk_errors(self._repo):
            if self._marker.is_set or not self._files:
                return None
            places = self._look_all()
            if len(places) < len(self._files) or not all(place.is_linked for place in places.values()):
                return None
            known = self._state.known((p.looked.key, p.looked.stat) for p in places.values())
            if known != [self._files[path].entry.sha256 for path in places]:
                return None
            return self._locked.snapshot.id if self._records.are_whole else None

    def source(self, path: str) -> Path:
        """Return where the bytes of a file lie."""
        pointer, blob = self._pointer(path), self._blob(self._file(path))
        return Path(pointer if _is_real_file(pointer) else blob)

    def begin(self) -> None:
        """Mark the artifact incomplete."""
        self._marker.set()

    def publish(self, files: Sequence[Staged]) -> list[LabsyncError | None]:
        """Put the bytes under their blobs' names, as `disk.base.Home` says; `finish` makes the links.

        A blob that is there with the right bytes is success, as two files may share it. A real file of
        the user's where the link belongs is replaced as `replace` says.
        """
        ways = Ways(self._cache)
        answers = self._publisher.publish(files, lambda file: self._aim(file, ways), self._make_way)
        for index, file in enumerate(files):
            if file.replace == "aside" and answers[index] is None:
                answers[index] = self._clear(file.entry)
        return answers

    def finish(self, snapshot: Snapshot) -> None:
        """Make the links, the listing and the ref; nothing is written where nothing is new.

        While a locked file has no bytes there is neither listing nor ref, and the mark stays. Raises
        ConflictError when the ref names another commit that labsync did not write: it is not moved.
        """
        with disk_errors(self._repo):
            is_whole = self._link_all()
            self._publisher.settle()
            if not is_whole:
                return
            self._record(snapshot)
        refuse_links(self._cache, f"{self._repo.name}/refs/here")
        self._records.write_listing()
        self._marker.clear()
        self._records.write_ref()

    # One file.

    def _file(self, path: str) -> LockedFile:
        if path not in self._files:
            raise RefusedError(f"`{path}` is not in the lock of `{self._artifact.name}`", path=path)
        return self._files[path]

    def _blob(self, file: LockedFile) -> str:
        return _joined(f"{self._repo}/blobs", _blob_name(file))

    def _pointer(self, path: str) -> str:
        return _joined(f"{self._repo}/snapshots/{self._locked.revision}", path)

    def _look_all(self) -> dict[str, _Bytes]:
        """Return where the bytes are of every file that has any."""
        return {path: place for path, file in self._files.items() if (place := self._look(file))}

    def _look(self, file: LockedFile) -> _Bytes | None:
        """Return where the file's bytes are: the user's own file, or the blob, which may be a link."""
        pointer, blob = self._pointer(file.entry.path), self._blob(file)
        here = lstat(pointer)
        if here is not None and stat.S_ISREG(here.st_mode):
            return _Bytes(Looked(pointer, self._key(Path(pointer)), Stat.of(here)), is_linked=True)
        key, there = f"{self._blobs_key}/{_blob_name(file)}", lstat(blob)
        if there is not None and stat.S_ISLNK(there.st_mode):
            blob = os.path.realpath(blob)
            key, there = self._key(Path(blob)), lstat(blob)
        if there is None or not stat.S_ISREG(there.st_mode):
            return None
        is_linked = here is not None and stat.S_ISLNK(here.st_mode) and _leads(pointer, _link(file), blob)
        return _Bytes(Looked(blob, key, Stat.of(there)), is_linked)

    def _digests(self, looked: Mapping[str, Looked], *, rehash: bool) -> dict[str, Digested]:
        asked = [] if rehash else [(item.key, item.stat) for item in looked.values()]
        known = dict(zip(looked, self._state.known(asked), strict=False))
        digests = {path: Digested(sha256, looked[path].stat) for path, sha256 in known.items() if sha256}
        unknown = [path for path in looked if path not in digests]
        read = zip(unknown, hash_all([looked[path] for path in unknown], self._state), strict=True)
        return {**digests, **{path: digest for path, digest in read if digest is not None}}

    def _found(self, file: LockedFile, digest: Digested, looked: Looked) -> Found:
        wanted = file.entry
        if digest.sha256 == wanted.sha256:
            return Found(wanted, "recorded")
        entry = FileEntry(wanted.path, digest.sha256, digest.stat.size, wanted.executable)
        if looked.path == self._pointer(wanted.path):
            published = self._state.publications([looked.key]).get(looked.key)
            return Found(entry, judge(digest, published))
        return Found(entry, "damaged")

    def _holds(self, place: str, entry: FileEntry) -> bool:
        """Say whether the file has the entry's bytes."""
        real = os.path.realpath(place) if os.path.islink(place) else place
        found = lstat(real)
        if found is None or not stat.S_ISREG(found.st_mode) or found.st_size != entry.size:
            return False
        looked = Looked(real, self._key(Path(real)), Stat.of(found))
        digest = self._digests({"": looked}, rehash=False).get("")
        return digest is not None and digest.sha256 == entry.sha256

    def _is_changed(self, pointer: str, entry: FileEntry) -> bool:
        """Say whether a file of the user's with other bytes is where the link belongs."""
        return _is_real_file(pointer) and not self._holds(pointer, entry)

    def _aim(self, staged: Staged, ways: Ways) -> Target:
        entry, file = staged.entry, self._file(staged.entry.path)
        blob, pointer = self._blob(file), self._pointer(entry.path)
        ways.open(f"{self._repo.name}/blobs/{_blob_name(file)}")
        ways.check(f"{self._repo.name}/snapshots/{self._locked.revision}/{entry.path}")
        if staged.replace != "aside" and self._is_changed(pointer, entry):
            raise ConflictError(f"`{pointer}` was changed here", path=pointer)
        return Target(blob, f"{self._blobs_key}/{_blob_name(file)}", PLAIN)

    def _make_way(self, staged: Staged, target: Target) -> bool:
        blob = Path(target.path)
        if self._holds(target.path, staged.entry):
            return False
        # A link of the shared store, dangling or to wrong bytes, holds nothing that could be lost.
        if not blob.is_symlink():
            make_way(
                blob, staged.replace, is_recorded=lambda: False, aside=lambda: self._set_aside(target.path)
            )
        return True

    def _clear(self, entry: FileEntry) -> LabsyncError | None:
        """Set a file of the user's aside that is where a link belongs; return what went wrong."""
        pointer = self._pointer(entry.path)
        try:
            if self._is_changed(pointer, entry):
                self._set_aside(pointer)
                self._point(self._files[entry.path], self.stage)
                fsync_dir(os.path.dirname(pointer))
        except OSError as error:
            return disk_error(error, pointer)
        except LabsyncError as error:
            return error
        return None

    def _set_aside(self, path: str) -> None:
        kept = Path(path).relative_to(self._cache).as_posix()
        set_aside(Path(path), self._state_dir, f"huggingface/{kept}")

    def _key(self, path: Path) -> str:
        return path_key(path, self._state_dir.parent)

    # Links.

    def _link_all(self) -> bool:
        """Make the links that are missing or wrong, durably; False when a file has no bytes."""
        ways, folders = Ways(self._cache), set[str]()
        is_whole, stage = True, None
        for path, file in self._files.items():
            place = self._look(file)
            if place is None:
                is_whole = False
            elif not place.is_linked:
                pointer = Path(self._pointer(path))
                ways.open(pointer.relative_to(self._cache).as_posix())
                if pointer.is_symlink() and not pointer.resolve().is_relative_to(self._cache.resolve()):
                    refuse_in_the_way(pointer)
                stage = stage or self.stage
                self._point(file, stage)
                folders.add(str(pointer.parent))
        for folder in folders:
            fsync_dir(folder)
        return is_whole

    def _point(self, file: LockedFile, stage: Path) -> None:
        """Make the file's link; its name is not durable yet."""
        pointer = self._pointer(file.entry.path)
        # One name for one link, which this artifact's lock makes ours: what a killed run left is replaced.
        staged = stage / f"{sha256_bytes(pointer.encode('utf-8', 'surrogateescape'))}.link"
        staged.unlink(missing_ok=True)
        staged.symlink_to(_link(file))
        try:
            staged.replace(pointer)
        except IsADirectoryError as error:
            raise ConflictError(f"`{pointer}` is a folder where a file must go", path=pointer) from error
        finally:
            staged.unlink(missing_ok=True)

    def _record(self, snapshot: Snapshot) -> None:
        """Take note of real files with the right bytes, so that damage to them is known as such."""
        for entry in snapshot:
            pointer = self._pointer(entry.path)
            found = lstat(pointer)
            if found is None or not stat.S_ISREG(found.st_mode):
                continue
            key, here = self._key(Path(pointer)), Stat.of(found)
            published = self._state.publications([key]).get(key)
            if (published is None or not published.is_untouched(here)) and self._holds(pointer, entry):
                self._state.record_all([(key, here, entry.sha256)])


def _folder_name(origin: str) -> str:
    """Return the repository's folder, as huggingface_hub's `repo_folder_name` makes it."""
    parts = origin.removeprefix("hf://").strip("/").split("/")
    kind = parts.pop(0) if parts[0] in {"models", "datasets", "spaces"} and len(parts) > 1 else "models"
    return "--".join([kind, *parts])


def _blob_name(file: LockedFile) -> str:
    return file.entry.sha256 if file.lfs else file.oid


def _link(file: LockedFile) -> str:
    """Return what the file's link says: the way from its folder below `snapshots/<commit>/` to the blob."""
    return f"{'../' * (2 + file.entry.path.count('/'))}blobs/{_blob_name(file)}"


def _leads(pointer: str, usual: str, blob: str) -> bool:
    return os.readlink(pointer) == usual or os.path.realpath(pointer) == os.path.realpath(blob)


def _joined(folder: str, relative: str) -> str:
    if problem := path_problem(relative):
        raise RefusedError(f"the path `{escape(relative)}` {problem}", path=escape(relative))
    return f"{folder}/{relative}"


def _is_real_file(path: str) -> bool:
    found = lstat(path)
    return found is not None and stat.S_ISREG(found.st_mode)
