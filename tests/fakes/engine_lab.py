"""One artifact between a fake origin, a fake mirror and a folder, and an engine without real time."""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from pathlib import Path

from labsync.errors import (
    DiskError,
    LabsyncError,
)
from labsync.names import ArtifactName
from labsync.places import Place, Ref, Replace
from labsync.plan import Pack, Publication, Route, Source
from labsync.transfer import Engine, Outcome, Work
from labsync.transfer.retry import RetryBudget
from tests.fakes.places import (
    FakeHome,
    FakeMirror,
    FakeReader,
)
from tests.fakes.recorder import FakeClock, Recorder
from tests.strategies import entry_of

NAME = ArtifactName("datasets/pens")
ONE, TWO = b"the first content", b"the second one"
MIB = 1 << 20
# Large enough for part files, and for routes of their own: small ones are carried in batches.
BIG, BIGGER = bytes(range(256)) * 4096 + ONE, bytes(range(255, -1, -1)) * 4096 + TWO


class Lab:
    """One artifact with its three places, and an engine whose time is not real."""

    def __init__(self, root: Path, jobs: int = 2) -> None:
        self.home = FakeHome(root)
        self.origin = FakeReader([ONE, TWO, BIG, BIGGER])
        self.mirror = FakeMirror()
        self.seen = Recorder()
        self.clock = FakeClock()
        self.stop = threading.Event()
        self.on_written: list[str] = []
        self.jobs = jobs
        self.budget = RetryBudget(now=self.clock.now)
        self.root = root

    @property
    def work(self) -> Work:
        return Work(
            self.home, self.origin, self.mirror,
            lambda item: self.on_written.append(item.key),
        )  # fmt: skip

    def run(self, *routes: Route, work: Work | None = None, packs: Sequence[Pack] = ()) -> Outcome:
        engine = Engine(
            jobs=self.jobs, observer=self.seen, budget=self.budget, clock=self.clock, stop=self.stop
        )
        return engine.execute(routes, {NAME: work or self.work}, packs)

    def stored(self, path: str) -> bytes:
        return (self.home.path / path).read_bytes()

    def left_over(self) -> list[str]:
        return [path.name for path in (self.root / "stage").glob("*")]


def route(
    data: bytes, *places: Place, to: str = "a.bin", key: str = "", replacing: Replace = "nothing"
) -> Route:
    """Return a route of a content from these places, in order; `to` is empty to publish nothing."""
    entry = entry_of(to or "a.bin", data)
    sources = tuple(Source(place, Ref("here", path=entry.path)) for place in places)
    publications = (Publication(entry, replacing, "behind"),) if to else ()
    return Route(NAME, entry, sources, publications, key)


def full(code: int = errno.ENOSPC) -> DiskError:
    error = DiskError("no space left")
    error.__cause__ = OSError(code, "no space left")
    return error


def errors(outcome: Outcome) -> list[type[LabsyncError]]:
    return [type(failure.error) for failure in outcome.failures]
