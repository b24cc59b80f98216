"""Every mirror passes the contract; what is special to each follows."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from labsync.errors import (
    ChangedError,
    DiskError,
    InvalidError,
    NotAllowedError,
    RefusedError,
    UnavailableError,
)
from labsync.manifest.model import MirrorSpec
from labsync.mirrors.base import HeadMovedError, Ref
from labsync.mirrors.directory import DirectoryMirror
from labsync.mirrors.memory import MemoryMirror
from labsync.mirrors.registry import open_mirror
from labsync.mirrors.s3 import S3Mirror
from labsync.mirrors.s3_upload import Sizes
from labsync.report import MirrorRequests
from tests.contracts.mirror_contract import (
    BIG,
    NAME,
    Bench,
    CompareAndSwapContract,
    EnoughError,
    MirrorContract,
    Progress,
    StopAfter,
    WrittenOnceContract,
    entry_of,
    index_of,
    key_of,
    nothing,
    read,
    write,
)
from tests.fakes.contents import FakeContent, changed, right
from tests.fakes.journal import MemoryJournal
from tests.fakes.s3 import LEAST_PART, MotoServer, Server, aws_env, moto_server, rclone_server

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["aws_env"]  # a fixture
SMALL_PARTS = Sizes(single=1 << 20, part=LEAST_PART, memory=4 * LEAST_PART)


class _MemoryView(MemoryMirror):
    """The same objects, with a request counter of its own."""

    def __init__(self, seen: MemoryMirror) -> None:
        super().__init__()
        self.objects = seen.objects
        self._mutex = seen._mutex


def files_in(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def directory_bench(root: Path, *, single_writer: bool = False) -> Bench:
    def overwrite(key: str, data: bytes) -> None:
        (root / key).write_bytes(data)

    def make() -> DirectoryMirror:
        return DirectoryMirror(root, single_writer=single_writer)

    return Bench(make(), make, lambda: files_in(root), overwrite)


def s3_bench(server: Server, prefix: str, *, single_writer: bool) -> Bench:
    spec = server.spec(f"s3://lab/{prefix}", single_writer=single_writer)

    def make() -> S3Mirror:
        return S3Mirror(spec, conditional=not single_writer, sizes=SMALL_PARTS)

    def stored() -> list[str]:
        return [key.removeprefix(f"{prefix}/") for key in server.keys("lab") if key.startswith(f"{prefix}/")]

    def overwrite(key: str, data: bytes) -> None:
        server.client.put_object(Bucket="lab", Key=f"{prefix}/{key}", Body=data)

    return Bench(make(), make, stored, overwrite)


class TestMemoryMirror(CompareAndSwapContract):
    @pytest.fixture
    def bench(self) -> Bench:
        mirror = MemoryMirror()
        return Bench(
            mirror,
            lambda: _MemoryView(mirror),
            lambda: sorted(mirror.objects),
            lambda key, data: mirror.objects.update({key: data}),
        )


class TestDirectoryMirror(CompareAndSwapContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        return directory_bench(tmp_path / "mirror")


def _no_links(source: object, target: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


class TestDirectoryMirrorWithoutHardLinks(WrittenOnceContract):
    @pytest.fixture
    def bench(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
        monkeypatch.setattr(os, "link", _no_links)
        return directory_bench(tmp_path / "mirror", single_writer=True)

    def test_several_writers_are_refused(self, bench: Bench, tmp_path: Path) -> None:
        mirror = DirectoryMirror(tmp_path / "mirror")
        assert not mirror.probe()
        with pytest.raises(RefusedError, match="hard links") as caught:
            write(mirror, key_of("f"), b"x")
        assert "single_writer: true" in caught.value.hint
        with pytest.raises(RefusedError):
            mirror.publish(NAME, index_of("a"), None)
        assert bench.stored() == []


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    with moto_server() as server:
        server.make_bucket("lab")
        yield server


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with rclone_server(tmp_path_factory.mktemp("rclone")) as server:
        server.make_bucket("lab")
        yield server


@pytest.fixture
def prefix() -> str:
    """A place of its own for each test, on a server that all of them share."""
    return f"labs/{secrets.token_hex(8)}"


PARTS = -(-len(BIG) // LEAST_PART)


class ResumedUploads:
    """Besides, for mirrors on a server that keeps the parts of unfinished uploads."""

    def test_the_next_run_sends_only_the_parts_that_are_missing(self, bench: Bench) -> None:
        journal, progress = MemoryJournal(), Progress()
        with pytest.raises(EnoughError):
            bench.mirror.write(key_of("f"), right(BIG), StopAfter(len(BIG) // 2), journal)
        stored = len(journal.uploads[key_of("f")].parts)
        assert stored > 2
        assert bench.stored() == []
        mirror = bench.again()
        mirror.write(key_of("f"), right(BIG), progress, journal)
        assert mirror.requests().PUT + stored == PARTS
        assert sum(progress.counts) == len(BIG) - stored * LEAST_PART
        assert read(mirror, Ref(key_of("f")), entry_of("f", BIG)) == BIG

    def test_what_changed_since_is_sent_again(self, bench: Bench) -> None:
        journal = MemoryJournal()
        with pytest.raises(EnoughError):
            bench.mirror.write(key_of("f"), right(BIG), StopAfter(len(BIG) // 2), journal)
        now = BIG[: LEAST_PART + 1] + b"!" + BIG[LEAST_PART + 2 :]
        assert 1 in journal.uploads[key_of("f")].parts
        mirror = bench.again()
        with contextlib.suppress(UnavailableError):  # rclone cannot replace a part, and says so
            mirror.write(key_of("f"), right(now), nothing, journal)
            assert mirror.requests().PUT + 1 == PARTS
        mirror.write(key_of("f"), right(now), nothing, journal)
        assert read(mirror, Ref(key_of("f")), entry_of("f", now)) == now

    def test_an_upload_that_was_dropped_on_the_server_is_begun_anew(self, bench: Bench) -> None:
        journal = MemoryJournal()
        with pytest.raises(EnoughError):
            bench.mirror.write(key_of("f"), right(BIG), StopAfter(len(BIG) // 2), journal)
        entry = journal.uploads[key_of("f")]
        bench.again().abandon(key_of("f"), journal)
        journal.uploads[key_of("f")] = entry
        bench.again().write(key_of("f"), right(BIG), nothing, journal)
        assert journal.uploads == {}
        assert read(bench.mirror, Ref(key_of("f")), entry_of("f", BIG)) == BIG

    def test_what_was_completed_is_not_sent_again(self, bench: Bench) -> None:
        journal = MemoryJournal()
        with pytest.raises(EnoughError):
            bench.mirror.write(key_of("f"), right(BIG), StopAfter(len(BIG) // 2), journal)
        entry = journal.uploads[key_of("f")]
        bench.mirror.write(key_of("f"), right(BIG), nothing, journal)
        journal.uploads[key_of("f")] = entry  # the run was killed before it took note of the end
        mirror = bench.again()
        mirror.write(key_of("f"), right(BIG), nothing, journal)
        assert mirror.requests() == MirrorRequests(HEAD=1, GET=1, DELETE=1)
        assert journal.uploads == {}


@pytest.mark.usefixtures("aws_env")
class TestS3Mirror(CompareAndSwapContract, ResumedUploads):
    @pytest.fixture
    def bench(self, moto: MotoServer, prefix: str) -> Bench:
        return s3_bench(moto, prefix, single_writer=False)


@pytest.mark.usefixtures("aws_env")
class TestS3WithoutConditionalWrites(MirrorContract, ResumedUploads):
    PUBLISH = MirrorRequests(GET=1, PUT=2)

    @pytest.fixture
    def bench(self, rclone: Server, prefix: str) -> Bench:
        return s3_bench(rclone, prefix, single_writer=True)


@pytest.mark.fault(69)
@pytest.mark.usefixtures("aws_env")
def test_a_server_without_conditional_writes_is_refused(rclone: Server, prefix: str, tmp_path: Path) -> None:
    spec = rclone.spec(f"s3://lab/{prefix}")
    mirror = open_mirror(spec)
    assert not mirror.probe()
    with pytest.raises(RefusedError, match="conditional writes") as caught:
        write(mirror, key_of("f"), b"x")
    assert "single_writer: true" in caught.value.hint
    with pytest.raises(RefusedError):
        open_mirror(spec).publish(NAME, index_of("a"), None)
    assert [key for key in rclone.keys("lab") if key.startswith(prefix)] == [f"{prefix}/.labsync/probe"]
    alone = open_mirror(replace(spec, single_writer=True))
    head = alone.publish(NAME, index_of("a"), None)
    assert alone.heads() == {NAME: head.mark}


def share(reader: object, writer: object) -> bool:
    """Do what the system does on a file system that has reflinks."""
    writer.write(reader.read())  # type: ignore[attr-defined]
    writer.seek(0)  # type: ignore[attr-defined]
    return True


def laid(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "mine").write_bytes(data)
    return tmp_path / "mine"


@pytest.mark.parametrize("reflinks", [True, False])
def test_a_directory_shares_no_inode_with_the_users_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reflinks: bool
) -> None:
    if reflinks:
        monkeypatch.setattr("labsync.mirrors.directory.share_blocks", share)
    bench, mine = directory_bench(tmp_path / "mirror"), laid(tmp_path, b"mine")
    bench.mirror.write(key_of("f"), right(b"mine", file=mine), nothing, MemoryJournal())
    with mine.open("r+b") as file:
        file.write(b"EDIT")
    assert (tmp_path / "mirror" / key_of("f")).read_bytes() == b"mine"
    assert mine.stat().st_nlink == 1


@pytest.mark.parametrize("now", [BIG[:-1] + b"!", BIG[:-1], BIG + b"!"], ids=["other", "shorter", "longer"])
def test_shared_blocks_are_hashed_before_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: bytes
) -> None:
    monkeypatch.setattr("labsync.mirrors.directory.share_blocks", share)
    bench, progress = directory_bench(tmp_path / "mirror"), Progress()
    bench.mirror.write(key_of("f"), right(BIG, file=laid(tmp_path, BIG)), progress, MemoryJournal())
    assert (tmp_path / "mirror" / key_of("f")).read_bytes() == BIG
    assert sum(progress.counts) == len(BIG)
    with pytest.raises(ChangedError):
        bench.mirror.write(key_of("g"), changed(BIG, now, file=laid(tmp_path, now)), nothing, MemoryJournal())
    assert bench.stored() == [key_of("f")]


def test_blocks_that_nobody_can_prove_are_not_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labsync.mirrors.directory.share_blocks", share)
    bench = directory_bench(tmp_path / "mirror")
    content = FakeContent(BIG, len(BIG), "", laid(tmp_path, b"other bytes than are read"))
    bench.mirror.write(key_of("f"), content, nothing, MemoryJournal())
    assert (tmp_path / "mirror" / key_of("f")).read_bytes() == BIG
    gone = right(b"mine", file=tmp_path / "gone")
    bench.mirror.write(key_of("g"), gone, nothing, MemoryJournal())
    assert (tmp_path / "mirror" / key_of("g")).read_bytes() == b"mine"


def test_a_record_of_many_blocks_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = directory_bench(tmp_path / "mirror")
    head = bench.mirror.publish(NAME, index_of("a", "b"), None)
    monkeypatch.setattr("labsync.mirrors.directory.BLOCK", 7)
    assert bench.mirror.head(NAME) == head
    assert bench.mirror.index(head.index) == index_of("a", "b")


def test_a_directory_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mirror").write_bytes(b"")
    mirror = DirectoryMirror(tmp_path / "mirror")
    with pytest.raises(DiskError):
        mirror.heads()
    with pytest.raises(DiskError):
        write(mirror, key_of("f"), b"x")


def test_a_link_to_a_disk_that_is_not_mounted_is_no_empty_mirror(tmp_path: Path) -> None:
    (tmp_path / "mirror").symlink_to(tmp_path / "mnt" / "usb")
    with pytest.raises(UnavailableError, match="not there"):
        DirectoryMirror(tmp_path / "mirror").heads()


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.EACCES, NotAllowedError), (errno.EIO, UnavailableError), (errno.ENOTCONN, UnavailableError)],
)
def test_a_directory_that_cannot_be_listed_is_never_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    bench = directory_bench(tmp_path / "mirror")
    bench.mirror.publish(NAME, index_of("a"), None)

    def listdir(path: Path) -> list[str]:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(error):
        bench.mirror.heads()
    with pytest.raises(error):
        bench.mirror.head(NAME)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_directory_that_cannot_be_written_is_a_disk_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fsync(fd: int) -> None:
        raise OSError(number, os.strerror(number))

    bench = directory_bench(tmp_path / "mirror")
    (tmp_path / "mirror" / key_of("")).mkdir(parents=True)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DiskError):
        write(bench.mirror, key_of("f"), b"x")
    assert bench.stored() == []


def test_a_read_only_place_is_a_disk_error(tmp_path: Path) -> None:
    mirror = DirectoryMirror(Path("/proc/labsync-mirror"))
    with pytest.raises(DiskError):
        write(mirror, key_of("f"), b"x")
    with pytest.raises(DiskError):
        mirror.publish(NAME, index_of("a"), None)


@pytest.mark.fault(29)
def test_links_inside_a_directory_are_not_followed(tmp_path: Path) -> None:
    bench = directory_bench(tmp_path / "mirror")
    write(bench.mirror, key_of("f"), b"x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"x")
    (tmp_path / "mirror" / "results" / "link").symlink_to(outside)
    (tmp_path / "mirror" / "results" / "file").symlink_to(outside / "f")
    os.mkfifo(tmp_path / "mirror" / "results" / "pipe")
    for key in ("results/link/f", "results/file", "results/pipe"):
        with pytest.raises(RefusedError):
            read(bench.mirror, Ref(key), entry_of("f", b"x"))
    with pytest.raises(RefusedError):
        write(bench.mirror, "results/link/g", b"x")
    assert list(outside.iterdir()) == [outside / "f"]


def test_a_killed_write_leaves_no_head_and_no_key(tmp_path: Path) -> None:
    bench = directory_bench(tmp_path / "mirror")
    bench.mirror.publish(NAME, index_of("a"), None)
    (tmp_path / "mirror/.labsync/heads/results/.0123456789abcdef.labsync-new").write_bytes(b"{")
    assert list(bench.mirror.heads()) == [NAME]


def test_a_directory_made_anew_has_other_marks_and_moves_no_head_that_was_read_before(tmp_path: Path) -> None:
    bench = directory_bench(tmp_path / "mirror")
    old = bench.mirror.publish(NAME, index_of("a"), None)
    shutil.rmtree(tmp_path / "mirror")
    new = bench.again().publish(NAME, index_of("a"), None)
    assert new.mark != old.mark
    assert bench.mirror.heads() == {NAME: new.mark}
    with pytest.raises(HeadMovedError):
        bench.mirror.publish(NAME, index_of("b"), old)
    with pytest.raises(HeadMovedError):
        bench.mirror.publish(NAME, index_of("b"), replace(old, mark=new.mark))
    assert bench.mirror.head(NAME) == new


def test_a_write_under_way_is_in_the_stage_alone(tmp_path: Path) -> None:
    bench, seen = directory_bench(tmp_path / "mirror"), list[str]()

    def look(count: int) -> None:
        seen.extend(bench.stored())

    bench.mirror.write(key_of("f"), right(b"x"), look, MemoryJournal())
    assert seen
    assert all(path.startswith(".labsync/stage/") for path in seen)
    assert bench.stored() == [key_of("f")]


def test_an_address_names_its_mirror(tmp_path: Path) -> None:
    assert open_mirror(MirrorSpec(f"file://{tmp_path}/a b%20")).url == f"file://{tmp_path}/a b%20"
    assert isinstance(open_mirror(MirrorSpec("s3://bucket/p")), S3Mirror)
    with pytest.raises(InvalidError):
        open_mirror(MirrorSpec("ftp://host/p"))
