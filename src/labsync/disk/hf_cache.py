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
import secrets
import stat
import time
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from labsync.atomic import disk_errors, fsync_dir, make_dirs, refuse_links, rename
from labsync.disk.hashing import Looked, digests, remember_placed
from labsync.disk.hf_records import HfRecords
from labsync.disk.marker import Marker
from labsync.disk.placing import device_of, lstat, put, refuse_in_the_way, set_aside
from labsync.disk.tree import STAGE, judge
from labsync.errors import ConflictError, RefusedError
from labsync.names import safe_join
from labsync.places import Found, Inventory
from labsync.snapshot import FileEntry
from labsync.state import path_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labsync.disk.hashing import Digested
    from labsync.lock import LockedArtifact, LockedFile
    from labsync.manifest.model import Artifact
    from labsync.places import Replace
    from labsync.snapshot import Snapshot
    from labsync.state import Seen, State


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
            looked = {p: item for p, file in self._files.items() if (item := self._look(file))}
            exists = bool(looked) or self.path.is_dir()
        found = digests(looked, {} if rehash else self._known(looked), self._state)
        files = {path: self._found(self._files[path], found[path], looked[path]) for path in sorted(found)}
        with disk_errors(self._repo):
            whole = not exists or self._is_linked(found)
        return Inventory(files, (), whole and not self._marker.is_set, exists)

    def source(self, path: str) -> Path:
        """Return where the bytes of a file lie."""
        pointer, blob = self._pointer(path), self._blob(self._file(path))
        return pointer if _is_real_file(pointer) else blob

    def begin(self) -> None:
        """Mark the artifact incomplete."""
        self._marker.set()

    def publish(self, entry: FileEntry, staged: Path, replace: Replace) -> None:
        """Put the bytes under their blob's name; `finish` makes the links.

        A blob that is there with the right bytes is success, as two files may share it. A real file of
        the user's where the link belongs is replaced as `replace` says.
        """
        file = self._file(entry.path)
        blob, pointer = self._blob(file), self._pointer(entry.path)
        with disk_errors(blob):
            refuse_links(self._cache, blob.relative_to(self._cache).as_posix())
            refuse_links(self._cache, pointer.relative_to(self._cache).as_posix())
            in_the_way = _is_real_file(pointer) and not self._holds(pointer, entry)
            if in_the_way and replace != "aside":
                raise ConflictError(f"`{pointer}` was changed here", path=str(pointer))
            make_dirs(blob.parent)
            self._put_blob(entry, staged, blob, replace)
            if in_the_way:
                self._set_aside(pointer)
                self._point(pointer, blob)

    def finish(self, snapshot: Snapshot) -> None:
        """Make the links, the listing and the ref; nothing is written where nothing is new.

        While a locked file has no bytes there is neither listing nor ref, and the mark stays. Raises
        ConflictError when the ref names another commit that labsync did not write: it is not moved.
        """
        with disk_errors(self._repo):
            missing = [path for path in self._files if not self._link(path)]
            if missing:
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

    def _blob(self, file: LockedFile) -> Path:
        return safe_join(self._repo / "blobs", file.entry.sha256 if file.lfs else file.oid)

    def _pointer(self, path: str) -> Path:
        return safe_join(self.path, path)

    def _known(self, looked: Mapping[str, Looked]) -> Mapping[str, Seen]:
        known = dict(self._state.known_under(self._key(self._repo)))
        for item in looked.values():  # what lies in the shared store
            if item.key not in known and (seen := self._state.seen(item.key)):
                known[item.key] = seen
        return known

    def _look(self, file: LockedFile) -> Looked | None:
        """Return where the file's bytes are: the user's own file, or the blob, which may be a link."""
        pointer = self._pointer(file.entry.path)
        place = pointer if _is_real_file(pointer) else _followed(self._blob(file))
        found = lstat(place)
        if found is None or not stat.S_ISREG(found.st_mode):
            return None
        return Looked(str(place), self._key(place), found)

    def _found(self, file: LockedFile, digest: Digested, looked: Looked) -> Found:
        wanted = file.entry
        if digest.sha256 == wanted.sha256:
            return Found(wanted, "recorded")
        entry = FileEntry(wanted.path, digest.sha256, digest.stat.st_size, wanted.executable)
        if looked.path == str(self._pointer(wanted.path)):
            return Found(entry, judge(digest, self._state.publication(looked.key)))
        return Found(entry, "damaged")

    def _holds(self, place: Path, entry: FileEntry) -> bool:
        """Say whether the file has the entry's bytes."""
        real = _followed(place)
        found = lstat(real)
        if found is None or not stat.S_ISREG(found.st_mode) or found.st_size != entry.size:
            return False
        looked = Looked(str(real), self._key(real), found)
        seen = self._state.seen(looked.key)
        digest = digests({"": looked}, {looked.key: seen} if seen else {}, self._state).get("")
        return digest is not None and digest.sha256 == entry.sha256

    def _put_blob(self, entry: FileEntry, staged: Path, blob: Path, replace: Replace) -> None:
        if self._holds(blob, entry):
            staged.unlink()
            return
        staged.chmod(0o644)
        since, before = time.time_ns(), staged.stat()
        if blob.is_symlink():
            # A link of the shared store, dangling or to wrong bytes: it holds nothing that could be lost.
            rename(staged, blob)
        else:
            put(staged, blob, replace, is_recorded=lambda: False, aside=lambda: self._set_aside(blob))
        remember_placed(self._state, Looked(str(blob), self._key(blob), before), entry.sha256, since)

    def _set_aside(self, path: Path) -> None:
        set_aside(path, self._state_dir, f"huggingface/{path.relative_to(self._cache).as_posix()}")

    def _key(self, path: Path) -> str:
        return path_key(path, self._state_dir.parent)

    # Links.

    def _is_linked(self, found: Mapping[str, Digested]) -> bool:
        links = all(self._is_pointer_right(path) for path in found)
        return links and self._records.are_whole

    def _is_pointer_right(self, path: str) -> bool:
        pointer, blob = self._pointer(path), self._blob(self._file(path))
        if _is_real_file(pointer):
            return True
        if not pointer.is_symlink() or not blob.is_file():
            return False
        usual = os.path.relpath(blob, pointer.parent)
        return str(pointer.readlink()) == usual or pointer.resolve() == blob.resolve()

    def _link(self, path: str) -> bool:
        """Make the file's link where it is missing or wrong; False when its bytes are not there."""
        if self._is_pointer_right(path):
            return True
        blob, pointer = self._blob(self._file(path)), self._pointer(path)
        if not blob.is_file():
            return False
        refuse_links(self._cache, pointer.relative_to(self._cache).as_posix())
        make_dirs(pointer.parent)
        if pointer.is_symlink() and not pointer.resolve().is_relative_to(self._cache.resolve()):
            refuse_in_the_way(pointer)
        self._point(pointer, blob)
        return True

    def _point(self, pointer: Path, blob: Path) -> None:
        staged = self.stage / f"{secrets.token_hex(8)}.link"
        staged.symlink_to(os.path.relpath(blob, pointer.parent))
        try:
            staged.replace(pointer)
        except IsADirectoryError as error:
            raise ConflictError(f"`{pointer}` is a folder where a file must go", path=str(pointer)) from error
        finally:
            staged.unlink(missing_ok=True)
        fsync_dir(pointer.parent)

    def _record(self, snapshot: Snapshot) -> None:
        """Take note of real files with the right bytes, so that damage to them is known as such."""
        for entry in snapshot:
            pointer = self._pointer(entry.path)
            if not _is_real_file(pointer):
                continue
            key, found = self._key(pointer), pointer.lstat()
            published = self._state.publication(key)
            if (published is None or not published.is_untouched(found)) and self._holds(pointer, entry):
                self._state.record(key, found, entry.sha256)


def _folder_name(origin: str) -> str:
    """Return the repository's folder, as huggingface_hub's `repo_folder_name` makes it."""
    parts = origin.removeprefix("hf://").strip("/").split("/")
    kind = parts.pop(0) if parts[0] in {"models", "datasets", "spaces"} and len(parts) > 1 else "models"
    return "--".join([kind, *parts])


def _followed(path: Path) -> Path:
    return path.resolve() if path.is_symlink() else path


def _is_real_file(path: Path) -> bool:
    found = lstat(path)
    return found is not None and stat.S_ISREG(found.st_mode)
