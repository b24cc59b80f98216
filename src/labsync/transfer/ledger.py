"""What a run has moved, finished and failed so far; shared by its threads."""

from __future__ import annotations

import collections
import contextlib
import errno
import threading
from typing import TYPE_CHECKING, Literal, TypeAlias

from labsync.errors import DiskError, LabsyncError, UnavailableError
from labsync.plan import Pack
from labsync.report import Transferred

if TYPE_CHECKING:
    from collections.abc import Iterator

    from labsync.names import ArtifactName
    from labsync.places import Place
    from labsync.plan import Route

Leg: TypeAlias = Literal["disk", "mirror", "origin", "to_mirror"]
Item: TypeAlias = "Route | Pack"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


class Ledger:
    """Takes notes of everything that happens to routes, packs, places and devices."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._bytes: collections.Counter[str] = collections.Counter()
        self._contents: set[tuple[ArtifactName, str]] = set()
        self._done: set[int] = set()
        self._written: set[int] = set()
        self._damaged: set[int] = set()
        self._failures: dict[int, list[LabsyncError]] = {}
        self._full: dict[int, DiskError] = {}
        self._noted: list[DiskError] = []  # what several threads met at once, each about one room
        self._down: dict[tuple[ArtifactName, Place], UnavailableError] = {}

    def moved(self, leg: Leg, count: int) -> None:
        """Count bytes on a leg; a negative number rewinds: those bytes have to move again."""
        with self._mutex:
            if count > 0:
                self._bytes[leg] += count
            elif leg != "disk":
                self._bytes["resent"] -= count

    def written(self, item: Item) -> None:
        """Note that its bytes are in the mirror."""
        with self._mutex:
            self._written.add(id(item))

    def damaged(self, item: Route) -> None:
        """Note that the mirror did not have the right bytes, and that another place did."""
        with self._mutex:
            self._damaged.add(id(item))

    def finish(self, item: Item) -> None:
        """Note that every step is done."""
        with self._mutex:
            self._done.add(id(item))
            entries = (m.entry for m in item.members) if isinstance(item, Pack) else (item.entry,)
            self._contents.update((item.artifact, entry.sha256) for entry in entries)

    def fail(self, item: Item, error: LabsyncError) -> None:
        """Note a failure; there may be several."""
        with self._mutex:
            self._failures.setdefault(id(item), []).append(error)

    def has_failed(self, item: Item) -> bool:
        """Say whether a step failed."""
        return bool(self.errors_of(item))

    def is_done(self, item: Item) -> bool:
        """Say whether every step is done."""
        with self._mutex:
            return id(item) in self._done

    def is_damaged(self, item: Route) -> bool:
        """Say whether the mirror did not have the right bytes, and another place did."""
        with self._mutex:
            return id(item) in self._damaged

    def is_written(self, item: Item) -> bool:
        """Say whether its bytes were written to the mirror."""
        with self._mutex:
            return id(item) in self._written

    def errors_of(self, item: Item) -> tuple[LabsyncError, ...]:
        """Return its failures so far."""
        with self._mutex:
            return tuple(self._failures.get(id(item), ()))

    @contextlib.contextmanager
    def room(self, device: int) -> Iterator[None]:
        """Refuse to begin on a device that is full or read-only, and note when the block finds so.

        Such an error is permanent (9): trying with the next file would only fill the last bytes. It is
        about the innermost of several rooms.
        """
        with self._mutex:
            known = self._full.get(device)
        if known:
            raise DiskError(known.what, safe=known.safe, hint=known.hint)
        try:
            yield
        except DiskError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL:
                with self._mutex:
                    if all(error is not noted for noted in self._noted):
                        self._noted.append(error)
                        self._full.setdefault(device, error)
            raise

    def take_down(self, artifact: ArtifactName, place: Place, error: UnavailableError) -> None:
        """Note that the retry budget was spent while the place did not serve this artifact."""
        with self._mutex:
            self._down.setdefault((artifact, place), error)

    def check_up(self, artifact: ArtifactName, place: Place) -> None:
        """Raise the UnavailableError that took the place down for this artifact, if any did.

        Otherwise each further file would wait once more for a place that is known not to answer.
        """
        with self._mutex:
            known = self._down.get((artifact, place))
        if known:
            raise UnavailableError(known.what, safe=known.safe, hint=known.hint)

    def transferred(self) -> Transferred:
        """Return what was moved: `files` counts contents, wherever they went; `bytes` is all that came
        from the origin or crossed to or from the mirror, `resent` the part of it that moved again.
        """
        with self._mutex:
            origin, mirror = self._bytes["origin"], self._bytes["mirror"]
            out = self._bytes["to_mirror"]
            return Transferred(
                files=len(self._contents),
                bytes=origin + mirror + out,
                from_origin=origin,
                from_mirror=mirror,
                to_mirror=out,
                resent=self._bytes["resent"],
            )
