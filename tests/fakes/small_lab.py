"""A real folder, a mirror in memory and an origin, for what carries many small files."""

from __future__ import annotations

import errno
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from labsync.disk.base import Staged
from labsync.disk.tree import TreeHome
from labsync.errors import DiskError, InterruptedRunError, LabsyncError
from labsync.manifest.model import Artifact
from labsync.mirrors.memory import MemoryMirror
from labsync.names import ArtifactName
from labsync.packing import END, header, layout, padded
from labsync.places import Advance, Blocks, Content, Place, Reader, Ref, UploadJournal
from labsync.plan import Pack, Publication, Route, Source
from labsync.snapshot import FileEntry
from labsync.state import State
from labsync.transfer.ledger import Ledger
from labsync.transfer.pace import Pace
from labsync.transfer.parts import Stages
from labsync.transfer.retry import Limiter, RetryBudget
from labsync.transfer.run import Run
from labsync.transfer.schedule import Task
from labsync.transfer.work import Work
from tests.fakes.recorder import FakeClock, Recorder
from tests.strategies import entry_of

NAME = ArtifactName("datasets/pens")
PACK = "datasets/pens/batch/pack-00000.tar"


class Shelf:
    """Reads from another reader in blocks that all are the same memory; `faults` happen once each.

    A fault goes by the path or else the location that is asked for: it is raised, or changes the bytes.
    """

    def __init__(self, inner: Reader, block: int) -> None:
        self._inner = inner
        self._block = block
        self.reads: list[Ref] = []
        self.faults: dict[str, deque[LabsyncError | Callable[[bytes], bytes]]] = defaultdict(deque)

    def read(self, ref: Ref, entry: FileEntry, start: int = 0, stop: int | None = None) -> Blocks:
        self.reads.append(ref)
        faults = self.faults[ref.path or ref.location]
        fault = faults.popleft() if faults else None
        if isinstance(fault, LabsyncError):
            raise fault
        data = b"".join(bytes(block) for block in self._inner.read(ref, entry, start, stop))
        data = fault(data) if fault else data
        memory = bytearray(self._block)
        for at in range(0, len(data), self._block):
            block = data[at : at + self._block]
            memory[: len(block)] = block
            yield memoryview(memory)[: len(block)]
            memory[:] = b"?" * self._block

    def fail(self, name: str, *faults: LabsyncError | Callable[[bytes], bytes]) -> None:
        """Let the next reads fail in these ways."""
        self.faults[name].extend(faults)


class WatchedMirror(Shelf):
    """A mirror in memory; `write_faults` are raised one per write of the key, after a byte went out."""

    def __init__(self, block: int) -> None:
        self.memory = MemoryMirror()
        super().__init__(self.memory, block)
        self.write_faults: dict[str, deque[LabsyncError]] = defaultdict(deque)
        self.writes: Counter[str] = Counter()

    def write(self, key: str, content: Content, advance: Advance, journal: UploadJournal) -> None:
        self.writes[key] += 1
        if self.write_faults[key]:
            advance(1)
            raise self.write_faults[key].popleft()
        self.memory.write(key, content, advance, journal)


class Listed:
    """Contents by path, as an origin has them."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def read(self, ref: Ref, entry: FileEntry, start: int = 0, stop: int | None = None) -> Blocks:
        yield self.files[ref.path][start:stop]


class CountingHome(TreeHome):
    """A real folder that counts how often it was asked to publish; `meanwhile` happens before that.

    With `full` there is no room for names.
    """

    calls = 0
    full = False
    meanwhile: Callable[[], object] | None = None

    def publish(self, files: Sequence[Staged]) -> list[LabsyncError | None]:
        self.calls += 1
        if self.meanwhile:
            self.meanwhile()
        if self.full:
            return [_no_room() for _ in files]
        return super().publish(files)


def _no_room() -> DiskError:
    error = DiskError("no space left")
    error.__cause__ = OSError(errno.ENOSPC, "no space left")
    return error


class SmallLab:
    """One artifact between its places, and a run whose time is not real; stopped by `stop`."""

    def __init__(self, root: Path, block: int = 7) -> None:
        (root / ".labsync").mkdir(parents=True)
        artifact = Artifact("datasets", "pens", origin="file:///o/", path="pens")
        self.root = root
        self.home = CountingHome(root, artifact, State(Path(":memory:")), root / ".labsync")
        self.mirror = WatchedMirror(block)
        self.files = Listed()
        self.origin = Shelf(self.files, block)
        self.clock = FakeClock()
        self.seen = Recorder()
        self.ledger = Ledger()
        self.stages = Stages()
        self.written: list[str] = []
        self.stopped_at: int | None = None
        self.fetched: Path | None = None

    def run(self) -> Run:
        return Run(
            self.ledger, self.stages, self.seen, RetryBudget(now=self.clock.now), Limiter(self.clock.now),
            Pace(), lambda: 1.0, self._check, self.clock,
        )  # fmt: skip

    def _check(self) -> None:
        if self.stopped_at is not None and self.seen.bytes_moved >= self.stopped_at:
            raise InterruptedRunError("the run was stopped")

    def work(self, *places: Place) -> Work:
        """Return where to read and write; with places, only from those."""
        return Work(
            self.home if not places or "disk" in places else None,
            self.origin if not places or "origin" in places else None,
            self.mirror if not places or "mirror" in places else None,
            lambda item: self.written.append(item.key),
            fetched=self.fetched,
        )

    def drive(self, task: Task) -> None:
        """Carry a task to its end; nobody waits."""
        with self.condition:
            for delay in task:
                self.clock.wait(self.condition, delay)

    condition = threading.Condition()

    def lay(self, path: str, data: bytes, *, executable: bool = False) -> FileEntry:
        """Lay a file into the folder."""
        file = self.home.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        file.chmod(0o755 if executable else 0o644)
        return entry_of(path, data, executable=executable)

    def tree(self) -> dict[str, bytes]:
        """Return what lies in the folder."""
        files = (file for file in self.home.path.rglob("*") if file.is_file())
        return {file.relative_to(self.home.path).as_posix(): file.read_bytes() for file in files}

    def left_over(self) -> list[str]:
        """Return what lies in the stage."""
        return [file.name for file in self.home.stage.iterdir()]

    def failures(self, items: Iterable[Route | Pack]) -> list[LabsyncError]:
        return [error for item in items for error in self.ledger.errors_of(item)]

    def pack(self, contents: dict[str, bytes], key: str = PACK) -> list[Route]:
        """Put the files into a pack of the mirror, and return the routes that bring them here."""
        data = {entry_of(path, data).sha256: data for path, data in contents.items()}
        entries = [entry_of(path, data, executable=path.endswith(".sh")) for path, data in contents.items()]
        (shard,) = layout(entries)
        built = b"".join(
            header(entry) + data[entry.sha256].ljust(padded(entry.size), b"\0") for entry, _ in shard.members
        )
        self.mirror.memory.objects[key] = built + END
        return [route(entry, Source("mirror", Ref(key, offset=at))) for entry, at in shard.members]

    def store(self, contents: dict[str, bytes]) -> list[Route]:
        """Put the files into the mirror as they are, and return the routes that bring them here."""
        self.mirror.memory.objects.update({f"plain/{path}": data for path, data in contents.items()})
        return [
            route(entry_of(path, data), Source("mirror", Ref(f"plain/{path}")))
            for path, data in contents.items()
        ]

    def serve(self, contents: dict[str, bytes]) -> list[Source]:
        """Let the origin have the files, and return where they lie there."""
        self.files.files.update(contents)
        return [Source("origin", Ref("file:///o/", path=path)) for path in contents]


def route(entry: FileEntry, *sources: Source, key: str = "", to_disk: bool = True) -> Route:
    """Return a route of this entry."""
    publications = (Publication(entry, "nothing", "missing on the disk"),) if to_disk else ()
    return Route(NAME, entry, sources, publications, key)


def some_files(count: int, prefix: str = "") -> dict[str, bytes]:
    """Return contents that all differ."""
    return {f"{prefix}{n:03}.bin": f"{prefix}{n}".encode() * (n % 5 + 1) for n in range(count)}
