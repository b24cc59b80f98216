"""Many small files carried together: what is grouped, what is shared, and what is left to a carrier."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labsync.errors import (
    ChangedError,
    ConflictError,
    DiskError,
    IntegrityError,
    InterruptedRunError,
    NotFoundError,
    UnavailableError,
)
from labsync.events import FileDone
from labsync.places import Ref
from labsync.plan import Publication, Route, Source
from labsync.transfer.batch import BatchCarrier, BytesContent, batches
from labsync.transfer.carry import SMALL
from labsync.transfer.grouping import FILES, GAP, SPAN, spans
from tests.fakes.small_lab import NAME, PACK, SmallLab, route, some_files
from tests.strategies import entry_of


@pytest.fixture
def lab(tmp_path: Path) -> SmallLab:
    return SmallLab(tmp_path)


def carry(lab: SmallLab, routes: list[Route]) -> None:
    lab.drive(BatchCarrier(lab.run(), routes, lab.work()).carry())


# What is carried together.


def _sized(path: str, size: int, *sources: Source, key: str = "", to_disk: bool = True) -> Route:
    return route(
        dataclasses.replace(entry_of(path, path.encode()), size=size), *sources, key=key, to_disk=to_disk
    )


def _at(number: int, offset: int | None = None, key: str = "") -> Source:
    return Source("mirror", Ref(key or f"k{number}", offset=offset))


HERE = Source("disk", Ref("there", path="there"))


def test_small_files_of_one_place_are_carried_together(lab: SmallLab) -> None:
    from_mirror = [_sized(f"m{n}", n, _at(n)) for n in range(6)]
    from_origin = [_sized(f"o{n}", n, Source("origin", Ref("o"))) for n in range(6)]
    to_mirror = [_sized(f"d{n}", n, HERE, key=f"k{n}", to_disk=False) for n in range(6)]
    found, rest = batches([*from_mirror, *from_origin, *to_mirror], {NAME: lab.work()})
    assert rest == []
    assert [[r.entry.path[0] for r in batch] for batch in found] == [list(s) for s in
            ("mmmm", "mm", "oooo", "oo", "dddd", "dd")]  # fmt: skip


def test_a_place_that_may_not_be_asked_decides_nothing(lab: SmallLab) -> None:
    routes = [_sized(f"o{n}", n, Source("origin", Ref("o")), _at(n)) for n in range(4)]
    assert batches(routes, {NAME: lab.work("mirror")}) == ([routes], [])
    assert batches(routes, {NAME: lab.work("disk")}) == ([], routes)


def test_what_is_large_or_alone_or_needs_more_is_left(lab: SmallLab) -> None:
    large = _sized("large", SMALL + 1, _at(0))
    copies = [_sized(f"copy{n}", 1, HERE) for n in range(2)]
    alone = _sized("alone", SMALL, _at(1, 512))
    together = [_sized(f"{n}", SMALL, _at(n)) for n in range(2)]
    found, rest = batches([large, together[0], alone, *copies, together[1]], {NAME: lab.work()})
    assert (found, rest) == ([together], [large, alone, *copies])


def test_what_was_fetched_already_is_left(lab: SmallLab, tmp_path: Path) -> None:
    routes = [_sized(f"o{n}", n, Source("origin", Ref("o"))) for n in range(4)]
    lab.fetched = tmp_path / "fetched"
    assert batches(routes, {NAME: lab.work()}) == ([routes], [])
    lab.fetched.mkdir()
    (lab.fetched / routes[1].entry.sha256).touch()
    assert batches(routes, {NAME: lab.work()}) == ([[routes[0], *routes[2:]]], [routes[1]])


def test_neighbours_in_a_pack_are_carried_together(lab: SmallLab) -> None:
    turned = [_sized(f"b{n}", SMALL // 4, _at(0, 512 + n * SMALL, "b")) for n in reversed(range(8))]
    other = [_sized(f"a{n}", 1, _at(0, 512 + n * 1024, "a")) for n in range(4)]
    found, rest = batches([*turned, *other], {NAME: lab.work()})
    assert rest == []
    assert [[r.entry.path for r in batch] for batch in found] == [
        ["a0", "a1", "a2", "a3", "b0", "b1", "b2"], ["b3", "b4", "b5"], ["b6", "b7"]
    ]  # fmt: skip


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2 * SMALL), st.sampled_from(("disk", "mirror", "pack", "origin")), st.booleans()
        ),
        max_size=200,
    )
)
def test_every_route_is_carried_once(kinds: list[tuple[int, str, bool]]) -> None:
    routes, at = [], 512
    for number, (size, kind, to_disk) in enumerate(kinds):
        ref = Ref("pack", offset=at) if kind == "pack" else Ref(f"k{number}")
        source = Source("mirror" if kind == "pack" else kind, ref)  # type: ignore[arg-type]
        routes.append(_sized(f"{number}", size, source, key="" if to_disk else "k", to_disk=to_disk))
        at += size + 1024
    work = SmallLab.__new__(SmallLab)
    work.__dict__.update(root=Path("/nowhere"), home=object(), origin=object(), mirror=object(), written=[])
    work.fetched = None
    found, rest = batches(routes, {NAME: work.work()})
    assert sorted(id(r) for r in (*rest, *(r for batch in found for r in batch))) == sorted(map(id, routes))
    for batch in found:
        assert len(batch) > 1
        assert len({(r.sources[0].place, r.sources[0].ref.offset is None) for r in batch}) == 1
        in_packs = batch[0].sources[0].ref.offset is not None
        assert sum(r.entry.size for r in batch) <= SPAN if in_packs else len(batch) <= FILES


def test_a_hole_in_a_pack_is_read_over_when_it_is_small() -> None:
    routes = [_sized("a", 10, _at(0, 512, "p")), _sized("b", 10, _at(0, 522 + GAP, "p"))]
    far = [*routes, _sized("c", 10, _at(0, 533 + 2 * GAP, "p")), _sized("d", 1, _at(0, 512, "q"))]
    assert [[file.route.entry.path for file in span] for span in spans(far, "mirror")] == [
        ["a", "b"],
        ["c"],
        ["d"],
    ]


# What goes well.


def test_files_arrive_and_are_published_together(lab: SmallLab) -> None:
    contents = some_files(10) | {"sub/empty": b""}
    routes = lab.store(contents)
    carry(lab, routes)
    assert lab.tree() == contents
    assert lab.home.calls == 1
    assert len(lab.mirror.reads) == len(routes)
    assert all(lab.ledger.is_done(route) for route in routes)
    assert [event.path for event in lab.seen.of(FileDone)] == list(contents)
    moved = lab.ledger.transferred()
    size = sum(map(len, contents.values()))
    assert (moved.files, moved.from_mirror, moved.resent, lab.seen.bytes_moved) == (11, size, 0, size)
    assert lab.left_over() == []
    assert set(lab.home.inventory(rehash=True).files) == set(contents)


@pytest.mark.parametrize("block", [1, 7, 512, 1000, 1 << 20])
def test_files_of_a_pack_come_by_one_read(tmp_path: Path, block: int) -> None:
    lab = SmallLab(tmp_path, block)
    contents = some_files(9) | {
        "run.sh": b"#!/bin/sh\n" * 99,
        "a-empty": b"",
        "z-empty": b"",
        "b": b"x" * 512,
    }
    routes = lab.pack(contents)
    carry(lab, routes)
    assert lab.tree() == contents
    assert len(lab.mirror.reads) == 1
    assert lab.ledger.transferred().from_mirror == sum(map(len, contents.values()))
    modes = {path: (lab.home.path / path).stat().st_mode & 0o777 for path in contents}
    assert {path for path, mode in modes.items() if mode == 0o755} == {"run.sh"}
    assert set(modes.values()) == {0o755, 0o644}
    assert lab.failures(routes) == []


def test_a_file_has_its_mode_before_it_is_published(lab: SmallLab) -> None:
    routes = lab.pack({"a.txt": b"plain", "b.sh": b"script"})
    modes = set[int]()
    lab.home.meanwhile = lambda: modes.update(f.stat().st_mode & 0o111 for f in lab.home.stage.iterdir())
    carry(lab, routes)
    assert modes == {0o000, 0o111}


def test_some_files_of_a_pack_leave_the_others(lab: SmallLab) -> None:
    contents = some_files(60)
    routes = lab.pack(contents)
    chosen = routes[3:5] + routes[40:50:3]
    carry(lab, chosen)
    assert lab.tree() == {route.entry.path: contents[route.entry.path] for route in chosen}
    assert len(lab.mirror.reads) == 1


def test_nothing_but_empty_files_is_read_from_nowhere(lab: SmallLab) -> None:
    routes = lab.pack({"a": b"", "b": b""})
    carry(lab, routes[:1])
    assert (lab.tree(), lab.mirror.reads) == ({"a": b""}, [Ref(PACK, offset=512)][:0])


def test_a_content_that_has_two_names_comes_once(lab: SmallLab) -> None:
    (one, other) = lab.store({"a": b"same", "b": b"other"})
    second = Publication(entry_of("again/a", b"same", executable=True), "nothing", "missing on the disk")
    carry(lab, [dataclasses.replace(one, publications=(*one.publications, second)), other])
    assert lab.tree() == {"a": b"same", "again/a": b"same", "b": b"other"}
    assert (lab.home.path / "again/a").stat().st_mode & 0o777 == 0o755
    assert lab.ledger.transferred().from_mirror == len(b"same" + b"other")


def test_what_the_mirror_lacks_is_written_there_first(lab: SmallLab) -> None:
    contents = some_files(4)
    keyed = [
        route(entry_of(path, data), source, key=f"new/{path}")
        for (path, data), source in zip(contents.items(), lab.serve(contents), strict=True)
    ]
    lab.home.meanwhile = lambda: lab.written.append("published")
    carry(lab, keyed)
    assert lab.tree() == contents
    assert lab.mirror.memory.objects == {f"new/{path}": data for path, data in contents.items()}
    assert lab.written == [*(r.key for r in keyed), "published"]
    assert all(lab.ledger.is_written(r) and lab.ledger.is_done(r) for r in keyed)
    moved, size = lab.ledger.transferred(), sum(map(len, contents.values()))
    assert (moved.from_origin, moved.to_mirror, moved.resent) == (size, size, 0)


def _uploads(lab: SmallLab, contents: dict[str, bytes]) -> list[Route]:
    return [
        route(lab.lay(path, data), Source("disk", Ref(path, path=path)), key=f"new/{path}", to_disk=False)
        for path, data in contents.items()
    ]


def test_files_of_the_disk_are_sent(lab: SmallLab) -> None:
    contents = some_files(5) | {"empty": b""}
    routes = _uploads(lab, contents)
    carry(lab, routes)
    assert lab.mirror.memory.objects == {f"new/{path}": data for path, data in contents.items()}
    assert lab.written == [r.key for r in routes]
    assert lab.ledger.transferred().to_mirror == sum(map(len, contents.values()))
    assert all(lab.ledger.is_done(r) for r in routes)
    assert lab.home.calls == 0


def test_much_is_published_before_all_of_it_is_here(lab: SmallLab) -> None:
    contents = {f"{n}": bytes([n]) * (SMALL // 2) for n in range(5)}
    lab.mirror = type(lab.mirror)(1 << 20)
    carry(lab, lab.pack(contents))
    assert lab.tree() == contents
    assert lab.home.calls == 3


def test_bytes_in_memory_are_a_content() -> None:
    content = BytesContent(b"abcdefg", "?")
    assert (content.size, content.sha256, content.file) == (7, "?", None)
    assert list(content.blocks(3)) == [b"abc", b"def", b"g"]
    assert list(content.blocks(7)) == [b"abcdefg"]
    assert list(BytesContent(b"", "?").blocks(7)) == []


# What does not.


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("packed", [False, True])
def test_wrong_bytes_are_fetched_once_more(lab: SmallLab, packed: bool) -> None:
    contents = some_files(6)
    routes = lab.pack(contents) if packed else lab.store(contents)
    wrong = routes[-1] if packed else routes[2]
    lab.mirror.fail(wrong.sources[0].ref.location, _flipped)
    carry(lab, routes)
    assert lab.tree() == contents
    assert len(lab.mirror.reads) == (2 if packed else 7)
    assert lab.ledger.transferred().resent == wrong.entry.size
    assert lab.failures(routes) == []


def test_only_the_file_that_stays_wrong_fails(lab: SmallLab) -> None:
    contents = some_files(6)
    routes = lab.pack(contents)
    at = routes[3].sources[0].ref.offset
    assert at is not None
    stored = bytearray(lab.mirror.memory.objects[PACK])
    stored[at] ^= 1
    lab.mirror.memory.objects[PACK] = bytes(stored)
    carry(lab, routes)
    assert lab.tree() == {path: data for path, data in contents.items() if path != "003.bin"}
    assert [type(error) for error in lab.failures(routes)] == [IntegrityError]
    assert lab.ledger.errors_of(routes[3])
    assert lab.left_over() == []


def test_what_the_mirror_lost_comes_from_the_origin(lab: SmallLab) -> None:
    contents = some_files(4)
    routes = lab.store(contents)
    sources = lab.serve(contents)
    routes = [dataclasses.replace(r, sources=(*r.sources, s)) for r, s in zip(routes, sources, strict=True)]
    del lab.mirror.memory.objects["plain/001.bin"]
    carry(lab, routes)
    assert lab.tree() == contents
    assert [lab.ledger.is_damaged(r) for r in routes] == [False, True, False, False]
    assert lab.ledger.transferred().from_origin == len(contents["001.bin"])


@pytest.mark.parametrize("packed", [False, True])
def test_a_place_that_is_busy_is_left_alone_for_as_long_as_it_asks(lab: SmallLab, packed: bool) -> None:
    contents = some_files(6)
    routes = lab.pack(contents) if packed else lab.store(contents)
    lab.mirror.fail(routes[2].sources[0].ref.location, UnavailableError("busy", retry_after=40.0))
    carry(lab, routes)
    assert lab.tree() == contents
    assert lab.clock.waits == [40.0]
    assert len(lab.mirror.reads) == (3 if packed else 7)
    assert lab.failures(routes) == []


def test_a_read_that_breaks_off_goes_on_behind_what_came(lab: SmallLab) -> None:
    contents = some_files(6)
    routes = lab.pack(contents)
    at = routes[3].sources[0].ref.offset
    assert at is not None
    lab.mirror.fail(PACK, lambda data: data[: at - 512 - 100])
    carry(lab, routes)
    assert lab.tree() == contents
    assert [ref.offset for ref in lab.mirror.reads] == [512, at, at + 1024]
    assert lab.ledger.transferred().resent == 0


def test_a_place_that_is_down_is_not_asked_for_every_file(lab: SmallLab) -> None:
    routes = lab.store(some_files(40))
    for r in routes:
        lab.mirror.fail(r.sources[0].ref.location, *[UnavailableError("down")] * 99)
    carry(lab, routes)
    assert len(lab.failures(routes)) == 40
    assert len(lab.mirror.reads) < 110
    assert lab.tree() == {}


def test_what_stands_in_the_way_fails_alone_and_is_not_fetched_again(lab: SmallLab) -> None:
    contents = some_files(4)
    routes = lab.store(contents)
    lab.home.meanwhile = lambda: lab.lay("002.bin", b"mine")
    carry(lab, routes)
    assert lab.tree() == contents | {"002.bin": b"mine"}
    assert [(type(e), e.artifact, e.path) for e in lab.failures(routes)] == [
        (ConflictError, NAME, str(lab.home.path / "002.bin"))
    ]
    assert len(lab.mirror.reads) == 4
    assert [lab.ledger.is_done(r) for r in routes] == [True, True, False, True]
    assert lab.left_over() == []


def test_a_mirror_that_does_not_take_one_gets_it_later(lab: SmallLab) -> None:
    routes = _uploads(lab, some_files(4))
    lab.mirror.write_faults["new/001.bin"].extend([UnavailableError("once"), UnavailableError("twice")])
    carry(lab, routes)
    assert set(lab.mirror.memory.objects) == {r.key for r in routes}
    assert lab.mirror.writes["new/001.bin"] == 3
    assert lab.ledger.transferred().resent == 2
    assert lab.failures(routes) == []


def test_a_file_that_changed_on_the_disk_fails_alone(lab: SmallLab) -> None:
    routes = _uploads(lab, some_files(4))
    lab.lay("001.bin", b"changed")
    (lab.home.path / "002.bin").unlink()
    carry(lab, routes)
    assert set(lab.mirror.memory.objects) == {"new/000.bin", "new/003.bin"}
    assert [type(error) for error in lab.failures(routes)] == [ChangedError, ChangedError]


def test_a_full_disk_is_met_once(lab: SmallLab, monkeypatch: pytest.MonkeyPatch) -> None:
    routes = lab.store(some_files(20))
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if len(lab.mirror.reads) > 5:
            raise OSError(errno.ENOSPC, "no space left")
        return real(fd, data)

    monkeypatch.setattr(os, "write", full)
    carry(lab, routes)
    assert len(lab.tree()) == 5
    assert {type(error) for error in lab.failures(routes)} == {DiskError}
    assert len(lab.failures(routes)) == 15
    assert len(lab.mirror.reads) < 9
    assert lab.left_over() == []


def test_a_stopped_run_keeps_what_was_published_and_leaves_nothing_else(lab: SmallLab) -> None:
    contents = {f"{n}": bytes([n]) * (SMALL // 2) for n in range(6)}
    lab.mirror = type(lab.mirror)(1 << 20)
    routes = lab.pack(contents)
    lab.stopped_at = 4 * (SMALL // 2)
    staged = list[list[str]]()
    lab.home.meanwhile = lambda: staged.append(lab.left_over())
    with pytest.raises(InterruptedRunError):
        carry(lab, routes)
    assert [len(names) for names in staged] == [2]
    assert lab.tree() == {path: contents[path] for path in ("0", "1")}
    assert lab.left_over() == []
    assert lab.failures(routes) == []


def test_a_disk_that_is_full_for_a_second_name_keeps_no_first_one(
    lab: SmallLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = lab.store({"a": b"same", "b": b"other"})
    second = Publication(entry_of("again/a", b"same"), "nothing", "missing on the disk")
    real, written = os.write, list[int]()

    def full(fd: int, data: bytes) -> int:
        written.append(fd)
        if len(written) > 1:
            raise OSError(errno.ENOSPC, "no space left")
        return real(fd, data)

    monkeypatch.setattr(os, "write", full)
    carry(lab, [dataclasses.replace(one, publications=(*one.publications, second)), other])
    assert [type(error) for error in lab.failures([other])] == [DiskError]
    assert lab.left_over() == []


def test_a_disk_that_is_full_when_names_are_given_is_not_tried_again(lab: SmallLab) -> None:
    routes = lab.store(some_files(8))
    run = lab.run()
    lab.home.full = True
    for batch in (routes[:4], routes[4:]):
        lab.drive(BatchCarrier(run, batch, lab.work()).carry())
    assert [type(error) for error in lab.failures(routes)] == [DiskError] * 8
    assert len(lab.mirror.reads) == 4
    assert lab.left_over() == []


def test_a_task_that_is_closed_while_it_waits_leaves_nothing(lab: SmallLab) -> None:
    routes = lab.store(some_files(4))
    lab.mirror.fail("plain/002.bin", UnavailableError("down"), UnavailableError("still"))
    task = BatchCarrier(lab.run(), routes, lab.work()).carry()
    next(task)
    task.close()
    assert len(lab.tree()) == 2
    assert lab.left_over() == []


@pytest.mark.parametrize("change", [lambda data: data + b"!", lambda data: data[:-1]])
def test_a_place_that_gives_more_or_less_is_not_believed(
    lab: SmallLab, change: Callable[[bytes], bytes]
) -> None:
    contents = some_files(4)
    routes = lab.store(contents)
    lab.mirror.fail("plain/001.bin", change)
    carry(lab, routes)
    assert lab.tree() == contents


def test_an_origin_that_has_nothing_is_told_for_each_file(lab: SmallLab) -> None:
    routes = lab.store(some_files(3))
    lab.mirror.memory.objects.clear()
    carry(lab, routes)
    assert [type(error) for error in lab.failures(routes)] == [NotFoundError] * 3
