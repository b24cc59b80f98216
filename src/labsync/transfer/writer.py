"""Puts the bytes of several connections into one part file, hashes them in file order, journals them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from typing import TYPE_CHECKING

from labsync.atomic import disk_errors
from labsync.digest import BLOCK
from labsync.errors import DiskError, IntegrityError
from labsync.names import escape
from labsync.transfer.ranges import Ranges, total
from labsync.transfer.retry import POLL
from labsync.transfer.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from labsync.places import Buffer
    from labsync.snapshot import FileEntry
    from labsync.transfer.parts import Part
    from labsync.transfer.ranges import Extent, Lease

# A kill loses what is not journalled: at most this much in the file, and a block of 1 MiB in the hands
# of each of the four connections. Together 8 MiB.
UNKEPT = 4 << 20
KEEP_AT = UNKEPT // 2  # so that the others can go on writing while one waits for the disk
# Where the network is faster than SHA-256, connections wait for it at this distance: what is hashed is in
# the page cache still, and the processor is not busy receiving when it could be hashing.
BEHIND = 16 << 20
LOOK = 0.1  # seconds before it is known whether hashing waits for the network or the other way round


class PartWriter:
    """The way into one part file; `check` raises when the run is to stop. Safe for several threads.

    Every thread writes and reads by a descriptor of its own, so that one which hangs in a read can
    be left alone. Who writes the byte that is hashed next also hashes it, while it is in the
    processor's cache; what came out of order is hashed by `hash_on`, by whoever has nothing to do.
    """

    def __init__(self, part: Part, entry: FileEntry, check: Callable[[], None]) -> None:
        self._part = part
        self._entry = entry
        self._check = check
        self._changed = threading.Condition()
        self._ranges = Ranges(entry.size, part.arrived)
        self._writing = 0
        self._unkept = 0
        self._is_keeping = False
        self._hashing = threading.Lock()
        self._digest, self._hashed = hashlib.sha256(), 0
        self._here_before = self._ranges.first_missing
        self._began, self._spent = time.monotonic(), 0.0

    # Ranges.

    @property
    def is_complete(self) -> bool:
        """Say whether every byte has arrived and nobody writes any more."""
        with self._changed:
            return self._ranges.is_complete

    @property
    def has_missing(self) -> bool:
        """Say whether there is a range that nobody fetches."""
        with self._changed:
            return self._ranges.has_missing

    def take(self, most: int) -> Lease | None:
        """Hand out the next range, None when all that is missing is handed out."""
        with self._changed:
            return self._ranges.take(most)

    def give_back(self, lease: Lease) -> None:
        """End a lease, whatever has arrived of it; one that was recalled ends without this."""
        with self._changed:
            if not lease.recalled:
                self._ranges.give_back(lease)
            self._changed.notify_all()

    def recall(self) -> None:
        """Take all leases back, also from connections that hang: nobody writes when this returns."""
        with self._changed:
            self._recall()

    def _recall(self) -> None:
        recalled = self._ranges.recall()
        while self._writing:
            self._changed.wait(POLL)
        for lease in recalled:
            self._ranges.give_back(lease)

    def wait(self) -> None:
        """Wait a moment for a lease to end."""
        self._check()
        with self._changed:
            if self._ranges.is_lent and not self._ranges.has_missing:
                self._changed.wait(POLL)

    # Bytes.

    def write(self, lease: Lease, block: Buffer, fd: int) -> bool:
        """Write the block where the lease stands; it is hashed, or will be. May wait for the disk.

        False, and nothing is written, when the lease was recalled.
        """
        if len(block) > lease.stop - lease.at:
            raise IntegrityError(
                f"more came of `{escape(self._entry.path)}` than was asked for", path=self._entry.path
            )
        with self._changed:
            if lease.recalled:
                return False
            self._writing += 1
        try:
            self._write(lease, block, fd)
        finally:
            with self._changed:
                self._writing -= 1
                self._changed.notify_all()
        while self._is_behind() and not lease.recalled:
            if not self.hash_on(fd):
                self._check()
                with self._changed:
                    self._changed.wait(POLL)
        return True

    def _write(self, lease: Lease, block: Buffer, fd: int) -> None:
        at, count = lease.at, len(block)
        assert self._hashed <= at, "what is hashed is never written again"
        with disk_errors(self._part.path):
            _write_all(fd, block, at)
        if self._hashed == at and self._hashing.acquire(blocking=False):
            try:
                if self._hashed == at:
                    self._hash(block)
                    self._hashed = at + count
            finally:
                self._hashing.release()
        with self._changed:
            lease.at = at + count
            self._unkept += count
            is_due = self._unkept >= KEEP_AT
        if is_due and self._part.is_resumable:
            self._keep()

    def _keep(self) -> None:
        """Journal what has arrived; wait for who is doing so only when too much is not journalled."""
        with self._changed:
            while self._is_keeping and self._unkept >= UNKEPT:
                self._changed.wait(POLL)
            if self._is_keeping or self._unkept < KEEP_AT:
                return
            self._is_keeping = True
            extents = self._ranges.untold()
        self._sync(extents)

    def _sync(self, extents: list[Extent]) -> None:
        try:
            with disk_errors(self._part.path):
                self._part.keep(extents)
        finally:
            with self._changed:
                self._is_keeping = False
                self._unkept -= total(extents)
                self._changed.notify_all()

    def keep_all(self) -> None:
        """Make durable and journal all that has arrived. Raises DiskError."""
        if not self._part.is_resumable:
            return
        with self._changed:
            while self._is_keeping:
                self._changed.wait(POLL)
            self._is_keeping = True
            extents = self._ranges.untold()
        self._sync(extents)

    def save(self) -> None:
        """Journal what has arrived before an error is told; another error must not hide that one."""
        with contextlib.suppress(DiskError):
            self.keep_all()

    def adopt(self, whole: Path) -> bool:
        """Take the file `whole` for all the bytes, by a rename; False where that cannot be."""
        if not self._part.adopt(whole):
            return False
        self._begin([(0, self._entry.size)])
        if self._part.is_resumable:
            with disk_errors(self._part.path):
                self._part.keep([(0, self._entry.size)])
        return True

    def begin_anew(self) -> None:
        """Take it that nothing has arrived."""
        self._begin([])

    def _begin(self, extents: Iterable[Extent]) -> None:
        with self._changed:
            self._recall()
            self._ranges = Ranges(self._entry.size, extents)
            self._unkept = 0
        with disk_errors(self._part.path):
            self._part.forget()
        with self._hashing:
            self._digest, self._hashed = hashlib.sha256(), 0
            self._here_before = 0

    # The proof.

    def hash_on(self, fd: int) -> bool:
        """Hash what has arrived in order and is not hashed yet; False when another thread does so."""
        if not self._hashing.acquire(blocking=False):
            return False
        try:
            self._hash_on(fd)
        finally:
            self._hashing.release()
        return True

    def _hash_on(self, fd: int) -> None:
        buffer: memoryview | None = None
        while (left := self._first_missing() - self._hashed) > 0:
            self._check()
            buffer = buffer or memoryview(bytearray(BLOCK))
            with disk_errors(self._part.path):
                count = os.preadv(fd, [buffer[: min(left, BLOCK)]], self._hashed)
            if not count:
                raise DiskError(f"`{self._part.path}` was cut off", path=str(self._part.path))
            self._hash(buffer[:count])
            with self._changed:
                self._hashed += count
                self._changed.notify_all()

    def _hash(self, block: Buffer) -> None:
        begin = time.monotonic()
        self._digest.update(block)
        if self._hashed >= self._here_before:
            self._spent += time.monotonic() - begin

    @property
    def waits_for_bytes(self) -> bool:
        """Say whether hashing has nothing to do most of the time; else more connections are of no use."""
        elapsed = time.monotonic() - self._began
        return elapsed > LOOK and self._spent < elapsed / 2

    def _is_behind(self) -> bool:
        """Say whether receiving should wait for hashing; for what was here before it would wait too long."""
        return self._hashed >= self._here_before and self._first_missing() - self._hashed > BEHIND

    def _first_missing(self) -> int:
        with self._changed:
            return self._ranges.first_missing

    def prove(self, fd: int) -> None:
        """Raise IntegrityError unless the bytes, all of which have arrived, have the entry's SHA-256."""
        while not self._hashing.acquire(timeout=POLL):
            self._check()
        try:
            self._hash_on(fd)
            verify(self._entry, self._digest.hexdigest())
        finally:
            self._hashing.release()


def _write_all(fd: int, block: Buffer, at: int) -> None:
    written = os.pwrite(fd, block, at)
    if written < len(block):  # a signal, or a disk that is full: then the next write says so
        rest = memoryview(block)[written:]
        while rest:
            at += written
            written = os.pwrite(fd, rest, at)
            rest = rest[written:]
