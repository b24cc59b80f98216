"""Carries one pack: its members are read, proven and written to the mirror as one object, in one stream."""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from typing import TYPE_CHECKING

from labsync.digest import BLOCK
from labsync.errors import ChangedError, IntegrityError, InterruptedRunError, LabsyncError, NotFoundError
from labsync.events import FileDone
from labsync.names import escape
from labsync.packing import END, header, padded
from labsync.plan import Route
from labsync.transfer.content import FileContent, StreamContent
from labsync.transfer.sent import Sent
from labsync.transfer.supply import Patience, persist, supplies
from labsync.transfer.verify import UnreadableError, unreadable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from labsync.places import Buffer, Place
    from labsync.plan import Member, Pack, Source
    from labsync.snapshot import FileEntry
    from labsync.transfer.run import Run
    from labsync.transfer.schedule import Task
    from labsync.transfer.supply import Supply
    from labsync.transfer.work import Work

_PADDING = bytes(512)
_NO_PLACES: frozenset[Place] = frozenset()


class PackContent:
    """A tar shard as it is made while it is stored: equal packs give equal bytes, so an upload resumes.

    Every member is proven; one that is not what it should be ends the content by an error. `failure`
    is what reading raised last, to tell it from the errors of who stores it. A member's sources are
    taken in order, but those that gave wrong bytes to an earlier call last. Files of up to one block
    are held in memory, and contents that come from afar and are in the shard more than once.
    """

    sha256 = ""
    file = running = None

    def __init__(self, run: Run, pack: Pack, work: Work) -> None:
        self._run = run
        self._pack = pack
        self._work = work
        self._wrong: dict[str, frozenset[Place]] = {}
        self._came: Counter[Place] = Counter()
        self._left: Counter[str] = Counter()
        self._kept: dict[str, bytes] = {}
        self._fetched: dict[str, Supply] = {}
        self.failure: LabsyncError | None = None

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self._pack.size

    @property
    def doubts(self) -> int:
        """How many places gave wrong bytes for a content so far; when it grows, another try is worth it."""
        return sum(len(places) for places in self._wrong.values())

    def consume(self) -> None:
        """Take away the files that were fetched before and are in the shard now."""
        for supply in self._fetched.values():
            supply.consume()

    def blocks(self, size: int) -> Generator[bytes, None, None]:
        """Yield all bytes in order; what came from afar in an earlier call travels again."""
        self._begin()
        buffer, room = io.BytesIO(), size
        try:
            for piece in self._pieces():
                rest = piece
                while len(rest) >= room:
                    rest = memoryview(rest)
                    buffer.write(rest[:room])
                    block = buffer.getvalue()  # hands its memory over, without a copy
                    buffer, rest, room = io.BytesIO(), rest[room:], size
                    yield block
                buffer.write(rest)
                room -= len(rest)
        except LabsyncError as error:
            self.failure = error
            raise
        finally:
            self._kept.clear()
        if room < size:
            yield buffer.getvalue()

    def _begin(self) -> None:
        self.failure = None
        came, self._came = self._came, Counter()
        for place, count in came.items():
            self._run.moved(place, -count)
        self._left = Counter(member.entry.sha256 for member in self._pack.members)

    def _pieces(self) -> Iterator[Buffer]:
        """Yield what the shard is made of; each piece stays as it is."""
        at = 0
        for member in self._pack.members:
            entry = member.entry
            head = header(entry)
            at += len(head)
            assert at == member.offset, "a shard is written as it was laid out"
            yield head
            yield from self._member(member)
            room = padded(entry.size)
            if room > entry.size:
                yield _PADDING[: room - entry.size]
            at += room
        assert at + len(END) == self.size, "a shard is written as it was laid out"
        yield END

    def _member(self, member: Member) -> Iterator[Buffer]:
        self._run.check()
        entry = member.entry
        self._left[entry.sha256] -= 1
        if (kept := self._kept.get(entry.sha256)) is not None:
            yield kept
            return
        wrong = self._wrong.get(entry.sha256, _NO_PLACES)
        sources = member.sources
        if wrong:
            sources = tuple(sorted(sources, key=lambda source: source.place in wrong))
        if sources[0].place == "disk" and self._work.home is not None:
            if (yield from self._from_disk(sources[0], entry, is_last=len(sources) == 1)):
                return
            sources = sources[1:]
        yield from self._from_afar(sources, entry)

    def _from_disk(self, source: Source, entry: FileEntry, *, is_last: bool) -> Generator[Buffer, None, bool]:
        """Yield a file's bytes and return True; False when there is another place and none came."""
        assert self._work.home is not None
        path, sent = self._work.home.source(source.ref.path), False
        try:
            if entry.size <= BLOCK:
                yield read_small(path, entry)
                return True
            for block in FileContent(path, entry).blocks(BLOCK):
                yield block
                sent = True
        except (ChangedError, NotFoundError, UnreadableError):
            if sent:
                self._doubt(entry, "disk")
            if sent or is_last:
                raise
            return False
        return True

    def _from_afar(self, sources: tuple[Source, ...], entry: FileEntry) -> Iterator[Buffer]:
        artifact = self._pack.artifact
        places = supplies(Route(artifact, entry, sources), self._work)
        content = StreamContent(self._run, artifact, entry, places)
        keep: list[bytes] | None = [] if self._left[entry.sha256] else None
        try:
            for block in content.blocks(BLOCK):
                yield block
                if keep is not None:
                    keep.append(block)
        except IntegrityError:
            if content.giver:
                self._doubt(entry, content.giver)
            raise
        if content.giver:
            self._came[content.giver] += entry.size
        if keep is not None:
            self._kept[entry.sha256] = b"".join(keep)
        self._fetched.update((entry.sha256, supply) for supply in places if supply.fetched)

    def _doubt(self, entry: FileEntry, place: Place) -> None:
        self._wrong[entry.sha256] = self._wrong.get(entry.sha256, _NO_PLACES) | {place}


class PackCarrier:
    """Carries one pack."""

    def __init__(self, run: Run, pack: Pack, work: Work) -> None:
        self._run = run
        self._pack = pack
        self._work = work
        self._sent = Sent(run, pack.key, pack.size, work.journal)

    def carry(self) -> Task:
        """Write the pack; deliberate failures end in the ledger, bugs and interruption are raised."""
        run, pack = self._run, self._pack
        content = PackContent(run, pack, self._work)
        try:
            yield from self._write(content)
        except InterruptedRunError:
            raise
        except LabsyncError as error:
            error.artifact = error.artifact or pack.artifact
            error.path = error.path or pack.key
            run.ledger.fail(pack, error)
            return
        run.ledger.written(pack)
        self._work.on_written(pack)
        content.consume()
        run.budget.give_back()
        run.ledger.finish(pack)
        for member in pack.members:
            run.observer(FileDone(pack.artifact, member.entry.path, member.entry.size))

    def _write(self, content: PackContent) -> Task:
        patience = Patience(self._run, self._pack.artifact, "mirror", self._work.mirror)
        while True:
            doubts = content.doubts
            yield from persist(patience, lambda: self._attempt(content))
            if content.failure is None:
                return
            if content.doubts == doubts:
                raise content.failure

    def _attempt(self, content: PackContent) -> None:
        """Write it; an error of the content is left in its `failure`, for the mirror is not to blame."""
        try:
            self._store(content)
        except IntegrityError as error:
            if error is content.failure:
                return
            self._store(content)  # the server saw other bytes than were sent: once more
        except InterruptedRunError:
            raise
        except LabsyncError as error:
            if error is not content.failure:
                raise

    def _store(self, content: PackContent) -> None:
        mirror = self._work.mirror
        assert mirror is not None
        self._sent.rewind()
        content.failure = None
        with self._run.ledger.room(id(mirror)):
            mirror.write(self._pack.key, content, self._sent.advance, self._work.journal)


def read_small(path: Path, entry: FileEntry) -> bytes:
    """Return the bytes of a small file; one that has the right ones is right, whatever its stat says."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFoundError(f"`{escape(str(path))}` disappeared", path=entry.path) from error
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        data = os.read(fd, entry.size + 1)
    except OSError as error:
        raise unreadable(path, error) from error
    finally:
        os.close(fd)
    if len(data) != entry.size or hashlib.sha256(data).hexdigest() != entry.sha256:
        raise ChangedError(
            f"`{escape(str(path))}` changed while it was read",
            path=entry.path,
            hint="run the same command again when nothing writes to it",
        )
    return data
