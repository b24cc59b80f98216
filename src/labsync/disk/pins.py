"""Files held fast while they are sent: under a second name, so that nobody can take them away.

```
<stage>/pins/<16 hex>/<number>    a hardlink to the file; a copy where there can be none, or must be none
```

A link shares the bytes with the file: one that is written again in place changes under the link, and the
upload notices. A copy costs room and does not. The beginning of a file that grows is always a copy.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from labsync.atomic import disk_errors, make_dirs, share_blocks
from labsync.digest import BLOCK, sha256_stream
from labsync.disk.hashing import hash_file
from labsync.disk.known import found_files
from labsync.places import Found, Inventory
from labsync.snapshot import FileEntry, Snapshot
from labsync.state import TICK, Stat

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
_CANNOT_LINK = {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


@dataclass(frozen=True, slots=True)
class Wish:
    """A file to hold fast: its path and size as it was seen, and how."""

    path: str
    size: int
    mtime_ns: int
    inode: int
    manner: Manner = "link"


class PinnedHome:
    """A home as it was at one instant: of the files that were wished for, those that could be held.

    A `disk.base.Home` to push from; use it as a context manager, which lets go of the files. `lost`
    are the paths that were gone or other ones when their turn came.
    """

    def __init__(self, home: TreeHome, look: Look, wishes: Sequence[Wish], state: State) -> None:
        self._home = home
        self._state = state
        self._folder = home.stage / FOLDER / secrets.token_hex(8)
        self._pins: dict[str, tuple[Path, Manner]] = {}
        self.lost: set[str] = set()
        self._inventory = Inventory({}, exists=look.exists)
        self._look, self._wishes = look, wishes

    def __enter__(self) -> PinnedHome:  # noqa: PYI034  `Self` came with Python 3.11
        try:
            if self._wishes:
                with disk_errors(self._folder):
                    make_dirs(self._folder)
                for number, wish in enumerate(self._wishes):
                    self._hold(wish, self._folder / str(number))
                time.sleep(TICK / 1e9)  # what changed within a tick of the clock proves nothing
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
        """Record the snapshot's files as known; the beginning of a file is not the file."""
        whole = [e for e in snapshot if self._pins.get(e.path, ("", "link"))[1] != "beginning"]
        self._home.finish(Snapshot.of(whole))

    def _hold(self, wish: Wish, pin: Path) -> None:
        original = self._home.source(wish.path)
        try:
            if wish.manner == "beginning":
                held = _copy(original, pin, wish, whole=False)
            elif wish.manner == "copy" or not _link(original, pin):
                held = _copy(original, pin, wish, whole=True)
            else:
                held = _is(wish, pin.lstat())
        except FileNotFoundError:
            held = False
        except OSError as error:
            with disk_errors(original):
                raise error from None
        if held:
            self._pins[wish.path] = (pin, wish.manner)
        else:
            pin.unlink(missing_ok=True)
            self.lost.add(wish.path)

    def _digests(self) -> dict[str, Found]:
        """Return what is recorded, and what is held with its digest."""
        found = dict(self._look.recorded)
        linked = {p: pin for p, (pin, manner) in self._pins.items() if manner == "link" and _links(pin) > 1}
        triples = [(path, pin.lstat(), None) for path, pin in sorted(linked.items())]
        found.update(
            found_files(triples, lambda path: (str(linked[path]), self._home.locate(path)[1]), self._state)
        )
        for path in self._pins.keys() - linked.keys():
            pin, manner = self._pins[path]
            observed = hash_file(str(pin), "")
            if observed is not None and (manner != "beginning" or self._still_begins(path, observed.sha256)):
                mode = pin.lstat().st_mode
                entry = FileEntry(path, observed.sha256, observed.stat.size, bool(mode & 0o100))
                found[path] = Found(entry, "changed")
            else:
                self.lost.add(path)
        return dict(sorted(found.items()))

    def _still_begins(self, path: str, sha256: str) -> bool:
        """Say whether the file still begins with the bytes that were copied: it only grows."""
        pin, _ = self._pins[path]
        try:
            with self._home.source(path).open("rb", buffering=0) as file:
                return sha256_stream(_first(file.read, pin.lstat().st_size))[0] == sha256
        except OSError:
            return False

    def _let_go(self) -> None:
        for path, (pin, manner) in self._pins.items():
            if manner == "link":
                self._unlink(path, pin)
        self._pins.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _unlink(self, path: str, pin: Path) -> None:
        """Remove a second name, and remember the digest with the ctime that this gives the file."""
        with contextlib.suppress(OSError):
            place, key = self._home.locate(path)
            held, here = pin.lstat(), os.lstat(place)
            if held.st_ino != here.st_ino or held.st_nlink < 2:
                return
            (sha256,) = self._state.known([(key, Stat.of(held))])
            pin.unlink()
            after = os.lstat(place)
            same = (after.st_ino, after.st_size, after.st_mtime_ns)
            if sha256 and same == (held.st_ino, held.st_size, held.st_mtime_ns):
                self._state.record_all((), [(key, Stat.of(after), sha256)])


def sweep(stage: Path) -> None:
    """Remove what killed guards held: nobody else holds anything there."""
    shutil.rmtree(stage / FOLDER, ignore_errors=True)


def _links(pin: Path) -> int:
    return pin.lstat().st_nlink


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
