"""Shards: what `tar` finds in them, where files lie, where a shard ends, and which ones are dead."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labsync.packing import END, LIMIT, Shard, header, is_packed, layout, padded, repack
from labsync.places import Ref
from labsync.snapshot import FileEntry, Snapshot
from tests.strategies import DATA, entry_of, odd_snapshots

LONG = "/".join(("folder" * 8,) * 4) + "/" + "n" * 90
NAMES = (
    "a", "a.b", "x" * 100, "x" * 101, "p" * 154 + "/n", "p" * 155 + "/n", "p" * 156 + "/n", LONG,
    "folder/" + "n" * 99, "folder/" + "n" * 100, "é", "folder/日本.txt", "é" * 127, " with  spaces ", "-dash",
    "p" * 99 + "/" + "n" * 120, "a\\b", "*?",
)  # fmt: skip


def _bytes_of(shard: Shard) -> bytes:
    """Build the shard as a stream would."""
    built = b""
    for entry, offset in shard.members:
        built += header(entry)
        assert len(built) == offset
        built += DATA[entry.sha256].ljust(padded(entry.size), b"\0")
    built += END
    assert len(built) == shard.size
    return built


def _read(data: bytes) -> list[tuple[str, int, bool, bytes, int]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = []
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            assert member.isreg()
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
            assert member.mode == (0o755 if member.mode & 0o100 else 0o644)
            found.append(
                (member.name, member.size, bool(member.mode & 0o100), file.read(), member.offset_data)
            )
        return found


@given(odd_snapshots(), st.sampled_from((LIMIT, 2048, 4096)))
@settings(max_examples=300)
def test_tar_finds_every_entry_where_the_layout_says(snapshot: Snapshot, limit: int) -> None:
    shards = layout(snapshot, limit)
    found = [item for shard in shards for item in _read(_bytes_of(shard))]
    offsets = [offset for shard in shards for _, offset in shard.members]
    assert found == [
        (e.path, e.size, e.executable, DATA[e.sha256], offset)
        for e, offset in zip(snapshot, offsets, strict=True)
    ]


@given(odd_snapshots())
def test_the_order_of_the_entries_decides_nothing(snapshot: Snapshot) -> None:
    assert layout(reversed(snapshot.entries)) == layout(snapshot)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("executable", [False, True])
def test_every_name_is_read_back(name: str, executable: bool) -> None:
    entry = entry_of(name, b"AAA"[:1], executable=executable)
    data = header(entry) + b"A".ljust(512, b"\0") + END
    assert [(n, s, x, d) for n, s, x, d, _ in _read(data)] == [(name, 1, executable, b"A")]


def test_headers_are_what_the_standard_library_writes() -> None:
    for name in ("a", "sub/a.bin", "x" * 100):
        info = tarfile.TarInfo(name)
        info.size, info.mode = 7, 0o644
        ours, theirs = header(FileEntry(name, "0" * 64, 7)), info.tobuf(tarfile.USTAR_FORMAT)
        # Only the device numbers differ, which are zeros in digits here, and with them the checksum.
        assert ours[:148] + ours[156:329] + ours[345:] == theirs[:148] + theirs[156:329] + theirs[345:]


@pytest.mark.fault(71)
def test_a_file_of_eight_gibibytes_has_its_size() -> None:
    for size in ((8 << 30) - 1, 8 << 30, 20 << 40):
        head = header(FileEntry("big", "0" * 64, size))
        with tarfile.open(fileobj=io.BytesIO(head + bytes(1024))) as tar:
            member = tar.next()
        assert member is not None
        assert (member.name, member.size, member.offset_data) == ("big", size, len(head))


def test_gnu_tar_lists_and_unpacks_a_shard(tmp_path: Path) -> None:
    entries = [
        entry_of(f"{n:02}/{name}", b"AAA"[: n % 2], executable=n % 3 == 0) for n, name in enumerate(NAMES)
    ]
    data = {e.sha256: b"AAA"[: e.size] for e in entries}
    (shard,) = layout(entries)
    with (tmp_path / shard.name).open("wb") as file:
        for entry, _ in shard.members:
            file.write(header(entry) + data[entry.sha256].ljust(padded(entry.size), b"\0"))
        file.write(END)
    target = tmp_path / "out"
    target.mkdir()
    done = subprocess.run(
        ["tar", "-xpf", tmp_path / shard.name, "-C", target], capture_output=True, check=True, text=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    for entry in entries:
        path = target / entry.path
        assert path.read_bytes() == data[entry.sha256]
        assert path.stat().st_mode & 0o777 == (0o755 if entry.executable else 0o644)


def _names(shards: list[Shard]) -> list[list[str]]:
    return [[entry.path for entry, _ in shard.members] for shard in shards]


def _sized(path: str, size: int) -> FileEntry:
    return FileEntry(path, path.encode().hex().zfill(64), size)


def test_a_shard_ends_before_it_would_pass_the_limit() -> None:
    entries = [_sized(f"{n}", 1000) for n in range(5)]
    room = 2 * (512 + 1024) + len(END)
    assert _names(layout(entries, room)) == [["0", "1"], ["2", "3"], ["4"]]
    assert _names(layout(entries, room - 1)) == [["0"], ["1"], ["2"], ["3"], ["4"]]
    assert [shard.name for shard in layout(entries, room)] == [f"pack-0000{n}.tar" for n in range(3)]
    assert layout(entries, room)[0].size == room


def test_a_sample_lies_in_one_shard() -> None:
    sample = [_sized(name, 10) for name in ("s/0001.jpg", "s/0001.seg.png", "s/0001.json")]
    before = [_sized("s/0000.jpg", 10), _sized("s/0000.json", 10)]
    room = 4 * 1024 + len(END)
    assert _names(layout(before + sample, room)) == [
        ["s/0000.jpg", "s/0000.json"],
        ["s/0001.jpg", "s/0001.json", "s/0001.seg.png"],
    ]


def test_a_sample_that_alone_passes_the_limit_is_split() -> None:
    entries = [_sized("a.bin", 10), *(_sized(f"b.{n}", 10) for n in range(3)), _sized("c.bin", 10)]
    assert _names(layout(entries, 2 * 1024 + len(END))) == [["a.bin"], ["b.0", "b.1"], ["b.2", "c.bin"]]


def test_hidden_files_of_a_folder_are_no_sample() -> None:
    entries = [_sized(f"s/{name}", 10) for name in ("!a", "!b", ".0", ".1")]
    assert _names(layout(entries, 3 * 1024 + len(END))) == [["s/!a", "s/!b", "s/.0"], ["s/.1"]]


def test_files_of_one_name_in_two_folders_are_two_samples() -> None:
    entries = [_sized(name, 10) for name in ("a/1.x", "a/1.y", "b/1.x", "b/1.y")]
    assert _names(layout(entries, 3 * 1024 + len(END))) == [["a/1.x", "a/1.y"], ["b/1.x", "b/1.y"]]


def test_a_large_file_stays_alone() -> None:
    assert is_packed(_sized("a", LIMIT // 2))
    assert not is_packed(_sized("a", LIMIT // 2 + 1))


def test_nothing_makes_no_shard() -> None:
    assert layout([]) == []


def _stored(entries: list[FileEntry], key: str) -> tuple[dict[str, Ref], dict[str, int]]:
    (shard,) = layout(entries)
    return {entry.sha256: Ref(key, offset=at) for entry, at in shard.members}, {key: shard.size}


def test_only_a_shard_of_which_more_than_half_is_dead_is_repacked() -> None:
    entries = [_sized(f"{n}", 1000) for n in range(10)]
    mirrored, packs = _stored(entries, "old")
    assert repack(mirrored, packs, entries) == frozenset()
    assert repack(mirrored, packs, entries[:5]) == frozenset()
    assert repack(mirrored, packs, entries[:4]) == {entry.sha256 for entry in entries[:4]}
    assert repack(mirrored, {}, entries[:1]) == frozenset()
    assert repack({e.sha256: Ref("plain") for e in entries}, {"plain": 1 << 40}, entries) == frozenset()


def test_a_full_shard_of_tiny_files_is_alive() -> None:
    entries = [_sized(f"{n}", 1) for n in range(100)]
    assert repack(*_stored(entries, "old"), entries) == frozenset()


def test_a_full_shard_of_one_content_is_alive() -> None:
    entries = [FileEntry(f"{n}", "0" * 64, 600) for n in range(100)]
    assert repack(*_stored(entries, "old"), entries) == frozenset()
