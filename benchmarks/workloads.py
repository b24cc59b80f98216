"""The workloads with peers on the S3 server: what each sets up, and who takes part."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from benchmarks import data
from benchmarks.labs import Mirror, make_lab, make_origin, told
from benchmarks.measure import Command
from benchmarks.peers import Aws, HashedS5cmd, Loop, Rclone, S5cmd
from benchmarks.rounds import Bench, Contender, Job, Told
from benchmarks.server import BUCKET, CREDENTIALS, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from benchmarks.data import Content
    from benchmarks.labs import Origin
    from benchmarks.measure import Measured
    from benchmarks.peers import Argv, GetsAll, GetsOne, PutsAll, PutsOne
    from benchmarks.server import Server

SMALL = (2_000, 60_000)  # bytes
TINY = (16, 200)
PEERS = "peers"  # the prefix of what the peers pull
LAYOUTS = {"labsync": "plain", "labsync, packed": "packed"}


@contextlib.contextmanager
def pull_one(bench: Bench, folder: Path) -> Iterator[Sequence[Contender]]:
    """Pull one large object."""
    source = folder / "one.bin"
    data.make_file(source, bench.sizes.one)
    content = data.content(source)
    with mirrored(bench, folder, source, ("plain",)) as (server, origin):
        place = (bench.tools, server.url)
        peers: tuple[GetsOne, ...] = (
            S5cmd(*place), HashedS5cmd(*place), Rclone(*place), Aws(*place), Loop(*place, "boto3"),
        )  # fmt: skip
        yield (
            labsync_pull(bench, server, origin, "labsync", content),
            *(peer_pull(bench, peer.name, peer.get, source, content) for peer in peers),
        )


@contextlib.contextmanager
def pull_many(bench: Bench, folder: Path) -> Iterator[Sequence[Contender]]:
    """Pull many small files, in both of labsync's layouts."""
    source = folder / "many"
    data.make_files(source, bench.sizes.many, *SMALL)
    content = data.content(source)
    with mirrored(bench, folder, source, tuple(LAYOUTS.values())) as (server, origin):
        place = (bench.tools, server.url)
        peers: tuple[GetsAll, ...] = (
            S5cmd(*place), Rclone(*place), Loop(*place, "boto3"), Loop(*place, "obstore"),
        )  # fmt: skip
        yield (
            *(labsync_pull(bench, server, origin, name, content) for name in LAYOUTS),
            *(peer_pull(bench, peer.name, peer.get_all, source, content) for peer in peers),
        )


@contextlib.contextmanager
def push_one(bench: Bench, folder: Path) -> Iterator[Sequence[Contender]]:
    """Push one large file."""
    source = folder / "one.bin"
    data.make_file(source, bench.sizes.one)
    content = data.content(source)
    origin = make_origin(source, folder)
    with serve(bench.tools.rclone, folder / "server") as server:
        place = (bench.tools, server.url)
        peers: tuple[PutsOne, ...] = (
            S5cmd(*place), Rclone(*place), Aws(*place), Loop(*place, "boto3"), Loop(*place, "obstore"),
        )  # fmt: skip
        yield (
            labsync_push(bench, server, origin, "labsync", content),
            *(peer_push(bench, server, peer.name, peer.put, source, content) for peer in peers),
        )


@contextlib.contextmanager
def push_many(bench: Bench, folder: Path) -> Iterator[Sequence[Contender]]:
    """Push many small files, in both of labsync's layouts."""
    source = folder / "many"
    data.make_files(source, bench.sizes.many, *SMALL)
    content = data.content(source)
    origin = make_origin(source, folder)
    with serve(bench.tools.rclone, folder / "server") as server:
        place = (bench.tools, server.url)
        peers: tuple[PutsAll, ...] = (S5cmd(*place), Rclone(*place), Loop(*place, "obstore"))
        yield (
            *(labsync_push(bench, server, origin, name, content) for name in LAYOUTS),
            *(peer_push(bench, server, peer.name, peer.put_all, source, content) for peer in peers),
        )


@contextlib.contextmanager
def nothing(bench: Bench, folder: Path, count: int, sizes: tuple[int, int]) -> Iterator[Sequence[Contender]]:
    """Find out that nothing is to do: all have the same folder, and what it holds is in the bucket."""
    source = folder / "many"
    data.make_files(source, count, *sizes)
    content = data.content(source)
    origin = make_origin(source, folder)
    data.link(source, folder / "server" / BUCKET / PEERS / "many")
    with serve(bench.tools.rclone, folder / "server") as server:
        lab = make_lab(bench, folder / "lab", origin, Mirror(server.url, "plain"), filled=True)
        lab.run("push", origin.artifact, "--yes")
        lab.run("pull", "--yes")
        target = lab.folder / origin.path
        env = {**bench.env, **CREDENTIALS}
        place = (bench.tools, server.url)

        def ours(*args: str) -> Contender:
            return Contender(f"labsync {args[0]}", lambda _: Job(lab.command(*args), (), told))

        def theirs(name: str, argv: Argv) -> Contender:
            return Contender(
                name, lambda at: Job(Command(argv, at, env), (), lambda _: content.expect(target))
            )

        yield (
            ours("pull", "--yes"),
            ours("status"),
            *(
                theirs(p.name, p.sync(f"{PEERS}/many", target))
                for p in (Rclone(*place), S5cmd(*place), Aws(*place))
            ),
        )


def nothing_small(bench: Bench, folder: Path) -> contextlib.AbstractContextManager[Sequence[Contender]]:
    """Find nothing to do among ten thousand files."""
    return nothing(bench, folder, bench.sizes.nothing[0], SMALL)


def nothing_large(bench: Bench, folder: Path) -> contextlib.AbstractContextManager[Sequence[Contender]]:
    """Find nothing to do among a hundred thousand files."""
    return nothing(bench, folder, bench.sizes.nothing[1], TINY)


@contextlib.contextmanager
def mirrored(
    bench: Bench, folder: Path, source: Path, layouts: Sequence[str]
) -> Iterator[tuple[Server, Origin]]:
    """Serve a source to the peers, and to labsync in a mirror for each layout."""
    origin = fill_mirror(bench, folder, source, layouts)
    with serve(bench.tools.rclone, folder / "server") as server:
        yield server, origin


def fill_mirror(bench: Bench, folder: Path, source: Path, layouts: Sequence[str]) -> Origin:
    """Put a source below `PEERS`, and into a mirror for each layout.

    By a server that ends then: what it remembers of the upload must not weigh on the pulls.
    """
    origin = make_origin(source, folder)
    data.link(source, folder / "server" / BUCKET / PEERS / source.name)
    with serve(bench.tools.rclone, folder / "server") as server:
        for layout in layouts:
            mirror = Mirror(server.url, layout)
            lab = make_lab(bench, folder / "pushed", origin, mirror, packed=layout == "packed", filled=True)
            lab.run("push", origin.artifact, "--yes")
            data.remove(lab.folder)
    return origin


def labsync_pull(bench: Bench, server: Server, origin: Origin, name: str, content: Content) -> Contender:
    """Return labsync's pull from its mirror into a lab that has the lock only."""
    layout = LAYOUTS[name]

    def prepare(place: Path) -> Job:
        lab = make_lab(bench, place, origin, Mirror(server.url, layout), packed=layout == "packed")

        def check(measured: Measured) -> Told:
            content.expect(lab.folder / origin.path)
            return told(measured)

        return Job(lab.command("pull", "--yes"), (), check)

    return Contender(name, prepare)


def labsync_push(bench: Bench, server: Server, origin: Origin, name: str, content: Content) -> Contender:
    """Return labsync's push to an empty mirror from a lab that knows nothing about its files yet."""
    packed = LAYOUTS[name] == "packed"

    def prepare(place: Path) -> Job:
        mirror = Mirror(server.url, f"out/{place.name}")
        lab = make_lab(bench, place, origin, mirror, packed=packed, filled=True)
        made = server.bucket / mirror.prefix

        def check(measured: Measured) -> Told:
            if not packed:
                content.expect(made / origin.artifact.partition("/")[0])
            return told(measured)

        return Job(lab.command("push", origin.artifact, "--yes"), (made,), check)

    return Contender(name, prepare)


def peer_pull(
    bench: Bench, name: str, get: Callable[[str, Path], Argv], source: Path, content: Content
) -> Contender:
    """Return a peer's pull of what lies below `PEERS`."""

    def prepare(place: Path) -> Job:
        target = place / "files" / source.name
        target.parent.mkdir()
        argv = get(f"{PEERS}/{source.name}", target)
        command = Command(argv, place, {**bench.env, **CREDENTIALS})
        return Job(command, (), lambda _: content.expect(target))

    return Contender(name, prepare)


def peer_push(
    bench: Bench, server: Server, name: str, put: Callable[[Path, str], Argv], source: Path, content: Content
) -> Contender:
    """Return a peer's push below a new prefix."""

    def prepare(place: Path) -> Job:
        key = f"out/{place.name}"
        command = Command(put(source, key), place, {**bench.env, **CREDENTIALS})
        made = server.bucket / key
        return Job(command, (made,), lambda _: content.expect(made))

    return Contender(name, prepare)
