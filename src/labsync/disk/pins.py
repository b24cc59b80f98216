"""Files held fast while they are sent: under a second name, so that nobody can take them away.

```
<stage>/pins/<holder>/<16 hex>/<number>   a hardlink to the file; a copy where none can or may be
```

A link shares the bytes with the file: one that is written again in place changes under the link, and the
upload notices. A copy costs room and does not. The beginning of a file that grows is always a copy.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import secrets
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

from labsync.atomic import disk_errors, make_dirs, share_blocks
from labsync.digest import BLOCK, sha256_stream
from labsync.disk.hashing import THREADS, Digested, hash_file
from labsync.disk.known import judge
from labsync.errors import DiskError, LockedError
from labsync.places import Found, Inventory
from labsync.snapshot import FileEntry, Snapshot
from labsync.state import COARSE_WINDOW, FINE_WINDOW, Observed, Stat

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from labsync.disk.base import Staged
    from labsync.disk.known import Look
    from labsync.disk.tree import TreeHome
    from labsync.errors import LabsyncError
    from labsync.state import State

Manner = Literal["link", "copy", "beginning"]
FOLDER = "pins"
SAMPLE = 1 << 16  # bytes
_CANNOT_LINK = {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


@dataclass(frozen=True, slots=True)
class Wish:
    """A file to hold fast, as it was seen, and how.

    Of the beginning of a file, `sample` is what was seen of it, and `before` the size and the digest of
    a shorter beginning that it must still have, where one is known.
    """

    path: str
    size: int
    mtime_ns: int
    inode: int
    manner: Manner = "link"
    sample: str = ""
    before: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds files: a name that is its alone, and how many bytes its copies may take."""

    name: str
    spare: float = math.inf


class PinnedHome:
    """A home as it was at one instant: of the files that were wished for, those that could be held.

    A `disk.base.Home` to push from; use it as a context manager, which lets go of the files. `lost`
    are the paths that were gone or other ones when their turn came, or for whose copy there was no room.
    """

    def __init__(
        self, home: TreeHome, look: Look, wishes: Sequence[Wish], state: State, holder: Holder
    ) -> None:
        self._home = home
        self._state = state
        self._folder = home.stage / FOLDER / holder.name / secrets.token_hex(8)
        self._pins: dict[str, tuple[Path, Manner]] = {}
        self._observed: dict[str, Observed] = {}
        self._finished: dict[str, FileEntry] = {}
        self.lost: set[str] = set()
        self._inventory = Inventory({}, exists=look.exists)
        self._look, self._wishes = look, {wish.path: wish for wish in wishes}
        self._spare = holder.spare

    def __enter__(self) -> PinnedHome:  # noqa: PYI034  `Self` came with Python 3.11
        try:
            if self._wishes:
                with disk_errors(self._folder):
                    make_dirs(self._folder)
                for number, wish in enumerate(self._wishes.values()):
                    self._hold(wish, self._folder / str(number))
            self._inventory = Inventory(self._digests(), self._look.skipped, exists=self._look.exists)
        except BaseException:
            self._let_go()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._let_go()

    @property
    def path(self) -> Path:
        """Where a person finds the artifact."""
        return self._home.path

    @property
    def stage(self) -> Path:
        """The home's own."""
        return self._home.stage

    def inventory(self, *, rehash: bool) -> Inventory:
        """Return what was recorded and what is held, as it was then; nothing is read again."""
        del rehash
        return self._inventory

    def identity(self) -> str | None:
        """Return None: there is something new here."""
        return None

    def source(self, path: str) -> Path:
        """Return where the bytes are held; of a file that is not held, where it lies."""
        held = self._pins.get(path)
        return held[0] if held else self._home.source(path)

    def begin(self) -> None:
        """Mark the home itself."""
        self._home.begin()

    def publish(self, files: Sequence[Staged]) -> list[LabsyncError | None]:
        """Publish to the home itself; what is held stays as it is."""
        return self._home.publish(files)

    def finish(self, snapshot: Snapshot) -> None:
        """Record the snapshot's files as known; those that are held, when they are let go.

        The beginning of a file is not the file, and a copy's stat is not the file's.
        """
        self.know(snapshot)
        rest = (entry for entry in snapshot if entry.path not in self._pins)
        self._home.finish(Snapshot.of(rest))

    def know(self, snapshot: Snapshot) -> None:
        """Record those of these files that are held, when they are let go: the mirror has them."""
        self._finished.update(snapshot.by_path)

    def _hold(self, wish: Wish, pin: Path) -> None:
        original = self._home.source(wish.path)
        try:
            if wish.manner == "link" and _link(original, pin):
                held = _is(wish, pin.lstat())
            else:
                held = self._copy(original, pin, wish)
        except FileNotFoundError:
            held = False
        except OSError as error:
            with disk_errors(original):
                raise error from None
        if held:
            manner = "copy" if wish.manner == "link" and not _is(wish, pin.lstat()) else wish.manner
            self._pins[wish.path] = (pin, manner)
        else:
            pin.unlink(missing_ok=True)
            self.lost.add(wish.path)

    def _copy(self, original: Path, pin: Path, wish: Wish) -> bool:
        """Copy what is to be held; False where that is not what was seen, or where there is no room."""
        if wish.size > self._spare:
            return False
        self._spare -= wish.size
        return _copy(original, pin, wish, whole=wish.manner != "beginning")

    def _digests(self) -> dict[str, Found]:
        """Return what is recorded, and what is held with its digest."""
        found = dict(self._look.recorded)
        paths = sorted(self._pins)
        keys = {path: self._home.locate(path)[1] for path in paths}
        published = self._state.publications(keys.values())
        with ThreadPoolExecutor(THREADS) as pool:
            hashed = pool.map(hash_file, [str(self._pins[path][0]) for path in paths], keys.values())
            for path, observed in zip(paths, hashed, strict=True):
                _, manner = self._pins[path]
                if observed is None or not self._is_as_wished(path, observed):
                    self.lost.add(path)
                    continue
                self._observed[path] = observed
                digest = Digested(observed.sha256, observed.stat)
                executable = bool(observed.stat.mode & 0o100)
                entry = FileEntry(path, observed.sha256, observed.stat.size, executable)
                state = judge(digest, published.get(keys[path])) if manner == "link" else "changed"
                found[path] = Found(entry, state)
        return dict(sorted(found.items()))

    def _is_as_wished(self, path: str, observed: Observed) -> bool:
        """Say whether what was hashed is what was seen: a file may be written anew under its second name."""
        wish, (_, manner) = self._wishes[path], self._pins[path]
        if manner == "beginning":
            return self._begins(path, observed.sha256)
        seen = (wish.inode, wish.size, wish.mtime_ns)
        return observed.stat.size == wish.size and (manner == "copy" or _core(observed.stat) == seen)

    def _begins(self, path: str, digest: str) -> bool:
        """Say whether the file only grows: it begins with what was copied, seen, and known before."""
        wish, (pin, _) = self._wishes[path], self._pins[path]
        try:
            if sample(pin, wish.size) != wish.sample:
                return False
            if wish.before and _digest(pin, wish.before[0]) != wish.before[1]:
                return False
            return _digest(self._home.source(path), wish.size) == digest
        except OSError:
            return False

    def _let_go(self) -> None:
        known = [self._release(path) for path, (_, manner) in self._pins.items() if manner == "link"]
        shutil.rmtree(self._folder, ignore_errors=True)
        self._pins.clear()
        files = [(item.path_key, item.stat, item.sha256) for item in known if item is not None]
        sure = [i for i in known if i is not None and i.stat.mtime_ns < i.since - _window(i.stat)]
        # On a disk that is full the files are read once more the next time.
        with contextlib.suppress(DiskError, LockedError):
            self._state.record_all(files, ((i.path_key, i.stat, i.sha256) for i in sure))

    def _release(self, path: str) -> Observed | None:
        """Remove a second name; return the digest with the stat that the file has now, if it is known.

        The ctime moved, and nobody but us moved it.
        """
        pin, _ = self._pins[path]
        observed = self._observed.get(path)
        with contextlib.suppress(OSError):
            held = pin.lstat()
            pin.unlink()
            after = os.lstat(self._home.locate(path)[0])
            entry = self._finished.get(path)
            if observed is None or entry is None or entry.sha256 != observed.sha256:
                return None
            as_hashed = (observed.stat.inode, observed.stat.size, observed.stat.mtime_ns)
            if all(_core(stat) == as_hashed for stat in map(Stat.of, (held, after))):
                return observed._replace(stat=Stat.of(after))
        return None


def _core(stat: Stat) -> tuple[int, int, int]:
    return stat.inode, stat.size, stat.mtime_ns


def _window(stat: Stat) -> int:
    """Return how far back a file must have been written for its digest to hold; see `Observed.is_racy`."""
    return COARSE_WINDOW if stat.is_coarse else FINE_WINDOW


def sample(path: Path, size: int) -> str:
    """Return a digest of the first and the last bytes of a file's first `size` bytes; raises OSError.

    It tells a file that grows from one that was written anew, without reading all of it.
    """
    with path.open("rb", buffering=0) as file:
        digest = sha256(b"".join(_first(file.read, min(size, SAMPLE))))
        file.seek(max(size - SAMPLE, 0))
        digest.update(b"".join(_first(file.read, min(size, SAMPLE))))
    return digest.hexdigest()


def _digest(path: Path, size: int) -> str:
    with path.open("rb", buffering=0) as file:
        return sha256_stream(_first(file.read, size))[0]


def sweep(stage: Path, name: str) -> None:
    """Remove what a killed holder of this name held."""
    shutil.rmtree(stage / FOLDER / name, ignore_errors=True)


def _is(wish: Wish, found: os.stat_result) -> bool:
    seen = (wish.size, wish.mtime_ns, wish.inode)
    return seen == (found.st_size, found.st_mtime_ns, found.st_ino)


def _link(original: Path, pin: Path) -> bool:
    """Give the file a second name; False where the file system cannot."""
    try:
        os.link(original, pin, follow_symlinks=False)
    except OSError as error:
        if error.errno in _CANNOT_LINK:
            return False
        raise
    return True


def _copy(original: Path, pin: Path, wish: Wish, *, whole: bool) -> bool:
    """Copy the file as it was seen, or its beginning; False when it is another one before or after."""
    with original.open("rb", buffering=0) as reader, pin.open("wb") as writer:
        before = os.fstat(reader.fileno())
        if whole and not _is(wish, before):
            return False
        if before.st_ino != wish.inode or before.st_size < wish.size:
            return False
        if not share_blocks(reader, writer):
            for block in _first(reader.read, wish.size):
                writer.write(block)
        writer.truncate(wish.size)
        after = os.fstat(reader.fileno())
    os.chmod(pin, before.st_mode & 0o777)
    return not whole or _is(wish, after)


def _first(read: object, size: int) -> Iterator[bytes]:
    """Yield the first bytes, in blocks."""
    assert callable(read)
    while size > 0 and (block := read(min(BLOCK, size))):
        size -= len(block)
        yield block
