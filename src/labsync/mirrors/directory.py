"""A mirror in a folder: a disk that stays, a mounted bucket, or `.labsync/mirror` beside the manifest.

Heads are numbered files, `<name>.000007.json`; the highest number wins, and `link(2)`, which never
replaces a name, is the compare-and-swap. A mirror that was removed and made anew has the same numbers
again: the change mark is the number with the file's inode and mtime, and what is expected is compared
by its nonce. Where the file system has no hard links (FAT, some FUSE mounts) there is no
compare-and-swap: such a mirror is written only when the manifest says `single_writer`, and names are
then given by rename after a look that they are free.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

from labsync.atomic import disk_errors, make_dirs, refuse_links, share_blocks
from labsync.digest import BLOCK, sha256_bytes
from labsync.errors import (
    DiskError,
    IntegrityError,
    InvalidError,
    NotAllowedError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from labsync.mirrors.base import HEADS, Head, HeadMovedError, HeadName, Index
from labsync.mirrors.counter import RequestCounter
from labsync.mirrors.placer import NO_LINKS, Placer
from labsync.mirrors.ranges import Span, counted
from labsync.mirrors.records import (
    MAX_HEAD,
    MAX_STORED,
    head_bytes,
    head_key,
    index_bytes,
    index_key,
    new_head,
    parse_head,
    parse_index,
)
from labsync.mirrors.source import changed, digest_of, expect_same, other_bytes
from labsync.names import MIRRORED, safe_join

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from labsync.places import Advance, Blocks, Content, Ref, UploadJournal
    from labsync.report import MirrorRequests
    from labsync.snapshot import FileEntry

_NUMBERED = re.compile(r"(?P<name>.+)\.(?P<number>[0-9]{6,18})\.json")
_PROBE = ".labsync/probe"


class DirectoryMirror:
    """Keys are files below `root`, which is made on the first write. Safe for several threads and boxes."""

    def __init__(self, root: Path, *, single_writer: bool = False) -> None:
        self._root = root
        self._placer = Placer(root, single_writer=single_writer)
        self._requests = RequestCounter()

    @property
    def url(self) -> str:
        """The mirror's own address."""
        return f"file://{self._root}"

    def heads(self) -> Mapping[HeadName, str]:
        """Return every head's name and change mark."""
        self._requests.add("LIST")
        found: dict[HeadName, str] = {}
        for kind in self._listed(HEADS.rstrip("/")):
            if kind in MIRRORED:
                found.update({name: self._mark(name, number) for name, number in self._numbers(kind).items()})
        return found

    def head(self, name: HeadName) -> Head:
        """Return one head: the highest number's."""
        self._requests.add("GET")
        return self._head(name, self._number(name))

    def index(self, index_id: str) -> Index:
        """Return an index, its bytes checked against its id."""
        self._requests.add("GET")
        return parse_index(self._record(index_key(index_id), MAX_STORED), index_id)

    def read(self, ref: Ref, entry: FileEntry, start: int = 0, stop: int | None = None) -> Blocks:
        """Yield the bytes of `entry` from `start` up to `stop`."""
        span = Span.of(ref, entry, start, stop)
        self._requests.add("GET")
        with self._opened(ref.location) as file:
            size = os.fstat(file.fileno()).st_size
            if size < span.end or (ref.offset is None and 0 <= entry.size != size):
                raise IntegrityError(
                    f"`{ref.location}` has {size} bytes and cannot be `{entry.path}`", path=entry.path
                )
            count = span.size if span.size >= 0 else size
            yield from counted(self._blocks(file, ref.location, span.first, count), count, entry)

    def write(self, key: str, content: Content, advance: Advance, journal: UploadJournal) -> None:
        """Store the content under a key that is written once, sharing blocks where the disk can.

        Nothing of it outlives a failure: the next attempt reads all of the content again. For one of this
        box's disks that costs no more than hashing it again; one that comes from afar travels again whole.
        """
        del journal
        self._requests.add("PUT")
        path = self._path(key)

        def fill(file: BinaryIO) -> None:
            if _share(content, file):
                _prove(content, file, path, key, advance)
                return
            for block in content.blocks(BLOCK):
                with disk_errors(path):
                    file.write(block)
                advance(len(block))

        if not os.path.lexists(path) and self._placer.create(path, fill):
            return
        with self._opened(key) as file:
            size = os.fstat(file.fileno()).st_size
            if size != content.size:
                raise other_bytes(key)
            expect_same(self._blocks(file, key, 0, size + 1), digest_of(content), size, key)

    def abandon(self, key: str, journal: UploadJournal) -> None:
        """Do nothing: no upload is left unfinished."""

    def stored(self, folder: str) -> Mapping[str, int]:
        """Return the size of every plain file below the folder."""
        self._requests.add("LIST")
        found: dict[str, int] = {}
        folders = [folder.rstrip("/")]
        while folders:
            inside = folders.pop()
            for name in self._listed(inside):
                status = self._stat(f"{inside}/{name}")
                if stat.S_ISDIR(status.st_mode):
                    folders.append(f"{inside}/{name}")
                elif stat.S_ISREG(status.st_mode):
                    found[f"{inside}/{name}"] = status.st_size
        return found

    def publish(self, name: HeadName, index: Index, expected: Head | None) -> Head:
        """Write the index, then make the next number the head, unless somebody else did."""
        self._requests.add("PUT")
        self._requests.add("PUT")
        data = index_bytes(index)
        head = new_head(name, index, sha256_bytes(data), expected)
        self._write_index(head.index, data)
        number = self._numbers(name.artifact.split("/")[0]).get(name, 0)
        current = self._head(name, number) if number else None
        if (current and current.nonce) != (expected and expected.nonce):
            raise _moved(name)
        if not self._create_record(_numbered_key(name, number + 1), head_bytes(head)):
            # NFS may repeat a link whose reply was lost, and then says that the name exists.
            current = self._head(name, self._number(name))
            if current.nonce != head.nonce:
                raise _moved(name)
        return replace(head, mark=self._mark(name, number + 1))

    def probe(self) -> bool:
        """Say whether the file system has hard links, by making one beside the heads."""
        first = self._path(f"{_PROBE}-{secrets.token_hex(8)}")
        second = first.with_name(f"{first.name}-link")
        with disk_errors(first):
            make_dirs(first.parent)
            first.touch(exist_ok=False)
            try:
                os.link(first, second)
            except OSError as error:
                if error.errno in NO_LINKS:
                    return False
                raise
            finally:
                first.unlink()
                second.unlink(missing_ok=True)
        return True

    def requests(self) -> MirrorRequests:
        """Return how many operations of the like of S3's requests were done so far."""
        return self._requests.value()

    # Heads.

    def _numbers(self, kind: str) -> dict[HeadName, int]:
        """Return the highest number of each head of one kind."""
        found: dict[HeadName, int] = {}
        for file in self._listed(f"{HEADS}{kind}"):
            match = _NUMBERED.fullmatch(file)
            name = match and HeadName.parse(f"{kind}/{match['name']}")
            if match and name:
                found[name] = max(found.get(name, 0), int(match["number"]))
        return found

    def _number(self, name: HeadName) -> int:
        number = self._numbers(name.artifact.split("/")[0]).get(name)
        if number is None:
            raise NotFoundError(f"the mirror has no head `{name}`", path=head_key(name))
        return number

    def _head(self, name: HeadName, number: int) -> Head:
        """Return the head of that number; it was written once, so its mark is that of its bytes."""
        mark = self._mark(name, number)
        return parse_head(self._record(_numbered_key(name, number), MAX_HEAD), name, mark)

    def _mark(self, name: HeadName, number: int) -> str:
        found = self._stat(_numbered_key(name, number))
        return f"{number}-{found.st_ino}-{found.st_mtime_ns}"

    def _write_index(self, index_id: str, data: bytes) -> None:
        if not self._create_record(index_key(index_id), data):
            parse_index(self._record(index_key(index_id), MAX_STORED), index_id)

    # Reading.

    def _path(self, key: str) -> Path:
        path = safe_join(self._root, key)
        with self._reading(key):
            refuse_links(self._root, key)
        return path

    def _stat(self, key: str) -> os.stat_result:
        path = self._path(key)
        with self._reading(key):
            return os.lstat(path)

    def _listed(self, folder: str) -> list[str]:
        """Return the names in a folder of labsync's own; a mirror that does not exist yet has none."""
        path = self._path(f"{folder}/any").parent
        try:
            with self._reading(folder):
                return os.listdir(path)
        except NotFoundError:
            if self._root.is_symlink() and not self._root.exists():
                raise UnavailableError(
                    f"the mirror `{self._root}` is a link to a folder that is not there",
                    safe="nothing was taken for deleted",
                    hint="is its disk mounted?",
                ) from None
            return []

    def _record(self, key: str, limit: int) -> bytes:
        with self._opened(key) as file:
            data = b"".join(map(bytes, self._blocks(file, key, 0, limit + 1)))
        if len(data) > limit:
            raise InvalidError(f"`{key}` is larger than labsync's records can be", path=key)
        return data

    @contextlib.contextmanager
    def _opened(self, key: str) -> Iterator[BinaryIO]:
        """Open a plain file below the root, following no link and waiting for no pipe."""
        path = self._path(key)
        with self._reading(key):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise RefusedError(f"`{path}` is no plain file", path=str(path))
            yield file

    def _blocks(self, file: BinaryIO, key: str, start: int, count: int) -> Blocks:
        """Yield up to `count` bytes from `start` on, in memory that is used again."""
        memory = memoryview(bytearray(min(BLOCK, count)))
        with self._reading(key):
            file.seek(start)
        while count > 0:
            with self._reading(key):
                read = file.readinto(memory[: min(BLOCK, count)])  # type: ignore[attr-defined]
            if not read:
                return
            count -= read
            yield memory[:read]

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        """Translate the OSErrors of looking at the mirror: only ENOENT means that something is absent."""
        try:
            yield
        except FileNotFoundError as error:
            raise NotFoundError(f"the mirror has no `{key}`", path=key) from error
        except PermissionError as error:
            raise NotAllowedError(
                f"`{error.filename or self._root}` may not be read", hint="check its owner and mode"
            ) from error
        except NotADirectoryError as error:
            raise DiskError(
                f"`{error.filename}` is below a file, not a folder", hint="move it away"
            ) from error
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise RefusedError(f"`{error.filename}` is a link and is not followed", path=key) from error
            raise UnavailableError(
                f"the mirror `{self._root}` cannot be read: {error.strerror}", hint="is its disk mounted?"
            ) from error

    # Writing.

    def _create_record(self, key: str, data: bytes) -> bool:
        path = self._path(key)

        def fill(file: BinaryIO) -> None:
            with disk_errors(path):
                file.write(data)

        return self._placer.create(path, fill)


def _share(content: Content, target: BinaryIO) -> bool:
    """Give the empty file the blocks of the content's own; False where it cannot be done.

    What became of a file that cannot be opened is the content's to say.
    """
    if content.file is None or not content.sha256:
        return False
    try:
        source = content.file.open("rb")
    except OSError:
        return False
    with source:
        return share_blocks(source, target)


def _prove(content: Content, shared: BinaryIO, path: Path, key: str, advance: Advance) -> None:
    """Raise ChangedError unless the shared blocks are what the content should be."""
    digest, size = hashlib.sha256(), 0
    while True:
        with disk_errors(path):
            block = shared.read(BLOCK)
        if not block:
            break
        digest.update(block)
        size += len(block)
        advance(len(block))
    if (digest.hexdigest(), size) != (content.sha256, content.size):
        raise changed(key)


def _numbered_key(name: HeadName, number: int) -> str:
    return f"{HEADS}{name}.{number:06d}.json"


def _moved(name: HeadName) -> HeadMovedError:
    return HeadMovedError(
        f"the head of `{name}` moved meanwhile", safe="nothing was moved", hint="run the same command again"
    )
