"""How many bytes travel twice when a transfer is killed at a random moment and started again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks import data
from benchmarks.labs import make_origin
from benchmarks.measure import Kill, measure
from benchmarks.peers import Rclone, S5cmd
from benchmarks.relay import Relay
from benchmarks.rounds import cost, empty
from benchmarks.server import serve
from benchmarks.workloads import fill_mirror, labsync_pull, labsync_push, peer_pull, peer_push

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.rounds import Bench, Contender
    from benchmarks.server import Server
    from benchmarks.tables import Run

    Maker = Callable[[Server], Contender]

EARLIEST, LATEST = 0.02, 0.98  # of the bytes of the whole transfer
PEER_KILLS = 2  # whenever they are killed, they begin again


def kill_pull(bench: Bench, row: str, folder: Path) -> None:
    """Kill the pull of one large object."""
    source = folder / "one.bin"
    data.make_file(source, bench.sizes.one)
    content = data.content(source)
    origin = fill_mirror(bench, folder, source, ("plain",))

    def s5cmd(server: Server) -> Contender:
        return peer_pull(bench, "s5cmd", S5cmd(bench.tools, server.url).get, source, content)

    def rclone(server: Server) -> Contender:
        return peer_pull(bench, "rclone", Rclone(bench.tools, server.url).get, source, content)

    def labsync(server: Server) -> Contender:
        return labsync_pull(bench, server, origin, "labsync", content)

    _kill_each(bench, row, folder, (labsync, s5cmd, rclone))


def kill_push(bench: Bench, row: str, folder: Path) -> None:
    """Kill the push of one large file."""
    source = folder / "one.bin"
    data.make_file(source, bench.sizes.one)
    content = data.content(source)
    origin = make_origin(source, folder)

    def s5cmd(server: Server) -> Contender:
        return peer_push(bench, server, "s5cmd", S5cmd(bench.tools, server.url).put, source, content)

    def rclone(server: Server) -> Contender:
        return peer_push(bench, server, "rclone", Rclone(bench.tools, server.url).put, source, content)

    def labsync(server: Server) -> Contender:
        return labsync_push(bench, server, origin, "labsync", content)

    _kill_each(bench, row, folder, (labsync, s5cmd, rclone))


def _kill_each(bench: Bench, row: str, folder: Path, makers: Sequence[Maker]) -> None:
    for first, make in enumerate(makers):
        whole = _attempt(bench, row, 0, folder / f"whole-{first}", make)
        if whole.run.failed:
            bench.record(whole.run)
            continue
        for number in range(PEER_KILLS if first else bench.sizes.kills):
            after = int(whole.bytes * bench.dice.uniform(EARLIEST, LATEST))
            killed = _attempt(bench, row, number, folder / f"kill-{first}-{number}", make, after)
            # Headers and small requests are in both counts.
            bench.record(replace(killed.run, resent=killed.bytes - whole.bytes, unread=killed.unread))


@dataclass(frozen=True, slots=True)
class _Attempt:
    """The last run of a transfer, the bytes that all its runs moved, and what the killed one had not read."""

    run: Run
    bytes: int
    unread: int


def _attempt(
    bench: Bench, row: str, number: int, place: Path, make: Maker, kill_after: int | None = None
) -> _Attempt:
    """Carry out a transfer, killed once or not, with a server that knows nothing of others."""
    place.mkdir()
    with serve(bench.tools.rclone, place.parent / "server") as server, Relay(server.url) as relay:
        contender = make(replace(server, url=relay.url))
        job = contender.prepare(place)
        unread: list[int] = []
        if kill_after is not None:
            measure(job.command, Kill(relay.alarm(kill_after), lambda: unread.append(relay.unread())))
            relay.open()
        run = cost(row, contender.name, number, job, measure(job.command))
    empty([*job.made, place])
    return _Attempt(run, relay.bytes, sum(unread))
