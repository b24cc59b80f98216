"""A pack on its way into the mirror: every member proven, one stream, and what is tried again."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from labsync.digest import BLOCK
from labsync.errors import (
    ChangedError,
    IntegrityError,
    InterruptedRunError,
    NotFoundError,
    UnavailableError,
)
from labsync.events import FileDone
from labsync.packing import layout
from labsync.places import Ref
from labsync.plan import Member, Pack, Source
from labsync.transfer.pack import PackCarrier, PackContent
from labsync.transfer.retry import ATTEMPTS
from labsync.transfer.verify import UnreadableError
from tests.fakes.small_lab import NAME, PACK, SmallLab, some_files
from tests.strategies import entry_of

FILES = some_files(20) | {"empty": b"", "run.sh": b"#!/bin/sh\n", "é/" + "long" * 40: b"far"}
LARGE = bytes(range(256)) * (BLOCK // 128) + b"end"


@pytest.fixture
def lab(tmp_path: Path) -> SmallLab:
    return SmallLab(tmp_path, 1000)


def _pack(contents: dict[str, bytes], *sources: dict[str, Source]) -> Pack:
    """Return the pack of these files, each with its source from every mapping that has one."""
    entries = [entry_of(path, data, executable=path.endswith(".sh")) for path, data in contents.items()]
    (shard,) = layout(entries)
    members = tuple(
        Member(entry, at, tuple(places[entry.path] for places in sources if entry.path in places))
        for entry, at in shard.members
    )
    return Pack(NAME, PACK, shard.size, members)


def _on_disk(lab: SmallLab, contents: dict[str, bytes]) -> dict[str, Source]:
    for path, data in contents.items():
        lab.lay(path, data)
    return {path: Source("disk", Ref(path, path=path)) for path in contents}


def _in_origin(lab: SmallLab, contents: dict[str, bytes]) -> dict[str, Source]:
    return dict(zip(contents, lab.serve(contents), strict=True))


def carry(lab: SmallLab, pack: Pack) -> list[type[Exception]]:
    lab.drive(PackCarrier(lab.run(), pack, lab.work()).carry())
    return [type(error) for error in lab.failures([pack])]


def _members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def _stored(lab: SmallLab) -> dict[str, bytes]:
    return _members(lab.mirror.memory.objects[PACK])


def test_files_of_the_disk_become_a_tar_in_the_mirror(lab: SmallLab) -> None:
    pack = _pack(FILES, _on_disk(lab, FILES))
    assert carry(lab, pack) == []
    assert _stored(lab) == FILES
    assert lab.ledger.is_written(pack)
    assert lab.ledger.is_done(pack)
    assert lab.written == [PACK]
    assert lab.ledger.transferred().to_mirror == lab.seen.bytes_moved == pack.size
    assert {event.path for event in lab.seen.of(FileDone)} == set(FILES)


@pytest.mark.parametrize("size", [1, 511, 512, 513, 4000, BLOCK, 5 * BLOCK])
def test_blocks_have_the_size_that_is_asked_for(lab: SmallLab, size: int) -> None:
    contents = some_files(2) | ({"large": LARGE} if size > 500 else {})
    pack = _pack(contents, _on_disk(lab, contents))
    content = PackContent(lab.run(), pack, lab.work())
    blocks = list(content.blocks(size))
    assert {len(block) for block in blocks[:-1]} <= {size}
    assert 0 < len(blocks[-1]) <= size
    assert _members(b"".join(blocks)) == contents
    assert content.size == pack.size == sum(map(len, blocks))
    assert list(content.blocks(size)) == blocks
    assert (content.sha256, content.file) == ("", None)


def test_the_same_pack_gives_the_same_bytes_from_anywhere(lab: SmallLab) -> None:
    contents = FILES | {"large": LARGE}
    packs = [_pack(contents, places(lab, contents)) for places in (_on_disk, _in_origin)]
    first, second = (b"".join(PackContent(lab.run(), p, lab.work()).blocks(BLOCK)) for p in packs)
    assert first == second


@pytest.mark.parametrize("data", [b"small", LARGE])
def test_a_file_that_changed_ends_the_pack_and_nothing_is_stored(lab: SmallLab, data: bytes) -> None:
    contents = FILES | {"changed": data}
    pack = _pack(contents, _on_disk(lab, contents))
    lab.lay("changed", data[:-1] + b"!")
    assert carry(lab, pack) == [ChangedError]
    assert lab.mirror.memory.objects == {}
    assert not lab.ledger.is_written(pack)
    assert lab.written == []
    (error,) = lab.failures([pack])
    assert (error.artifact, error.path) == (NAME, "changed")


def test_a_file_that_is_gone_or_unreadable_ends_the_pack(lab: SmallLab) -> None:
    pack = _pack(FILES, _on_disk(lab, FILES))
    (lab.home.path / "003.bin").unlink()
    assert carry(lab, pack) == [NotFoundError]
    (lab.home.path / "003.bin").mkdir()
    assert carry(lab, pack) == [NotFoundError, UnreadableError]


@pytest.mark.fault(33)
def test_a_file_that_became_longer_ends_the_pack(lab: SmallLab) -> None:
    pack = _pack(FILES, _on_disk(lab, FILES))
    lab.lay("003.bin", FILES["003.bin"] + b"more")
    assert carry(lab, pack) == [ChangedError]


@pytest.mark.parametrize("data", [b"small", LARGE])
def test_what_changed_on_the_disk_comes_from_the_origin(lab: SmallLab, data: bytes) -> None:
    contents = FILES | {"changed": data}
    pack = _pack(contents, _on_disk(lab, contents), _in_origin(lab, contents))
    lab.lay("changed", data[:-1] + b"!")
    (lab.home.path / "empty").unlink()
    assert carry(lab, pack) == []
    assert _stored(lab) == contents
    assert {ref.path for ref in lab.origin.reads} == {"changed", "empty"}


def test_a_home_that_takes_no_part_is_not_read(lab: SmallLab) -> None:
    pack = _pack(FILES, _on_disk(lab, FILES), _in_origin(lab, FILES))
    lab.drive(PackCarrier(lab.run(), pack, lab.work("mirror", "origin")).carry())
    assert _stored(lab) == FILES
    assert len(lab.origin.reads) == len(FILES)


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("data", [b"small", LARGE])
def test_wrong_bytes_from_afar_are_fetched_once_more(lab: SmallLab, data: bytes) -> None:
    contents = {"a": b"a", "b": data}
    pack = _pack(contents, _in_origin(lab, contents))
    lab.origin.fail("b", _flipped)
    assert carry(lab, pack) == []
    assert _stored(lab) == contents
    assert [ref.path for ref in lab.origin.reads] == ["a", "b", "a", "b"]
    assert lab.ledger.transferred().resent >= 1


def test_bytes_that_stay_wrong_are_told(lab: SmallLab) -> None:
    pack = _pack(FILES, _in_origin(lab, FILES))
    lab.origin.fail("003.bin", _flipped, _flipped, _flipped)
    assert carry(lab, pack) == [IntegrityError]
    assert lab.mirror.memory.objects == {}
    assert [ref.path for ref in lab.origin.reads].count("003.bin") == 2


def test_an_origin_that_is_busy_is_waited_for_within_the_pack(lab: SmallLab) -> None:
    pack = _pack(FILES, _in_origin(lab, FILES))
    lab.origin.fail("003.bin", UnavailableError("busy"), UnavailableError("busy", retry_after=20.0))
    assert carry(lab, pack) == []
    assert _stored(lab) == FILES
    assert sum(lab.clock.waits) >= 20.0
    assert len(lab.origin.reads) == len(FILES) + 2
    assert lab.mirror.writes[PACK] == 1


def test_an_origin_that_is_down_is_not_blamed_on_the_mirror(lab: SmallLab) -> None:
    pack = _pack(FILES, _in_origin(lab, FILES))
    lab.origin.fail("003.bin", *[UnavailableError("the origin is down")] * 99)
    assert carry(lab, pack) == [UnavailableError]
    assert lab.mirror.writes[PACK] == 1
    assert len([ref for ref in lab.origin.reads if ref.path == "003.bin"]) == ATTEMPTS


def test_a_content_from_afar_that_is_there_twice_comes_once(lab: SmallLab) -> None:
    contents = {"a.cls": b"3", "b.cls": b"3", "c.bin": LARGE, "d.bin": LARGE, "e": b"e"}
    pack = _pack(contents, _in_origin(lab, contents))
    assert carry(lab, pack) == []
    assert _stored(lab) == contents
    assert [ref.path for ref in lab.origin.reads] == ["a.cls", "c.bin", "e"]


def test_a_dead_pack_gives_what_lives_in_it(lab: SmallLab) -> None:
    old = lab.pack(FILES, "old")
    alive = {path: FILES[path] for path in list(FILES)[:4]}
    pack = _pack(alive, {r.entry.path: r.sources[0] for r in old})
    assert carry(lab, pack) == []
    assert _stored(lab) == alive


def test_a_mirror_that_is_busy_gets_the_pack_later(lab: SmallLab) -> None:
    pack = _pack(FILES, _on_disk(lab, FILES))
    lab.mirror.write_faults[PACK].extend([UnavailableError("busy", retry_after=20.0), IntegrityError("torn")])
    assert carry(lab, pack) == []
    assert _stored(lab) == FILES
    assert lab.mirror.writes[PACK] == 3
    moved = lab.ledger.transferred()
    assert (moved.to_mirror, moved.resent) == (pack.size + 2, 2)


def test_a_mirror_that_is_down_is_told(lab: SmallLab) -> None:
    pack = _pack(FILES, _on_disk(lab, FILES))
    lab.mirror.write_faults[PACK].extend([UnavailableError("down")] * 99)
    assert carry(lab, pack) == [UnavailableError]
    assert lab.mirror.writes[PACK] == ATTEMPTS


def test_a_stopped_run_stores_nothing(lab: SmallLab) -> None:
    pack = _pack(FILES, _in_origin(lab, FILES))
    lab.stopped_at = 40
    with pytest.raises(InterruptedRunError):
        carry(lab, pack)
    assert lab.mirror.memory.objects == {}
    assert lab.failures([pack]) == []


def test_a_stopped_run_reads_no_further_file(lab: SmallLab) -> None:
    pack = _pack(FILES, _on_disk(lab, FILES))
    lab.stopped_at = 0
    with pytest.raises(InterruptedRunError):
        next(PackContent(lab.run(), pack, lab.work()).blocks(BLOCK))


def test_what_was_fetched_before_is_used_up(lab: SmallLab, tmp_path: Path) -> None:
    pack = _pack(FILES, _in_origin(lab, FILES))
    lab.fetched = tmp_path / "fetched"
    lab.fetched.mkdir()
    known = entry_of("003.bin", FILES["003.bin"])
    (lab.fetched / known.sha256).write_bytes(FILES["003.bin"])
    lab.mirror.write_faults[PACK].append(UnavailableError("busy"))
    assert carry(lab, pack) == []
    assert _stored(lab) == FILES
    assert "003.bin" not in {ref.path for ref in lab.origin.reads}
    assert list(lab.fetched.iterdir()) == []
