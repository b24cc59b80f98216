"""The mirror's records: what was written is read again, and nothing else is taken for it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone

import pytest
import zstandard
from hypothesis import assume, given
from hypothesis import strategies as st

from labsync.digest import sha256_bytes
from labsync.errors import IntegrityError, InvalidError, RefusedError
from labsync.mirrors import indexes
from labsync.mirrors.base import Head, HeadName, Index, Located
from labsync.mirrors.records import (
    head_bytes,
    head_key,
    index_bytes,
    index_key,
    new_batch,
    new_head,
    parse_head,
    parse_index,
)
from labsync.names import ArtifactName, check_paths
from labsync.snapshot import FileEntry, Snapshot
from tests.strategies import odd_snapshots, snapshots

RUNS = ArtifactName("results/runs")
NAME = HeadName(RUNS)
BATCH = "results/runs/20261120T101500Z-1a2b3c4d"
PACK = f"{BATCH}/pack-00000.tar"
A, B = "a" * 64, "b" * 64
INDEX = Index(
    RUNS,
    (
        Located(FileEntry("a b/ü.csv", A, 12), f"{BATCH}/a b/ü.csv"),
        Located(FileEntry("run.sh", B, 4, executable=True), PACK, offset=512),
    ),
    parent="c" * 64,
    time="2026-11-20T10:15:00Z",
    host="box-a",
)
HEAD = Head(NAME, A, B, "", "2026-11-20T10:15:00Z", "box-a", "d" * 32, mark="7")


def compressed(text: str) -> bytes:
    return zstandard.ZstdCompressor().compress(text.encode())


def text_of(index: Index) -> str:
    return zstandard.ZstdDecompressor().decompressobj().decompress(index_bytes(index)).decode()


def parse_text(text: str) -> Index:
    data = compressed(text)
    return parse_index(data, sha256_bytes(data))


def test_an_index_has_the_documented_form() -> None:
    assert text_of(INDEX) == (
        f'{{"version":1,"artifact":"results/runs","snapshot":"{INDEX.snapshot.id}","parent":"{"c" * 64}",'
        '"time":"2026-11-20T10:15:00Z","host":"box-a"}\n'
        f'{{"path":"a b/ü.csv","size":12,"sha256":"{A}","key":"{BATCH}/a b/ü.csv"}}\n'
        f'{{"path":"run.sh","size":4,"sha256":"{B}","x":true,"key":"{BATCH}/pack-00000.tar","offset":512}}\n'
    )


def test_a_head_has_the_documented_form() -> None:
    fields = (
        f'{{"version":1,"artifact":"results/runs","snapshot":"{A}","index":"{B}","parent":"",'
        f'"time":"2026-11-20T10:15:00Z","host":"box-a","nonce":"{"d" * 32}"'
    )
    digest = sha256_bytes(f"{fields}}}\n".encode())
    assert head_bytes(HEAD).decode() == f'{fields},"sha256":"{digest}"}}\n'


def test_what_was_written_is_read_again() -> None:
    data = index_bytes(INDEX)
    assert parse_index(data, sha256_bytes(data)) == INDEX
    assert parse_head(head_bytes(HEAD), NAME, "7") == HEAD


@given(snapshots())
def test_every_snapshot_survives_its_index(snapshot: Snapshot) -> None:
    files = tuple(Located(entry, f"{BATCH}/{entry.path}") for entry in reversed(snapshot.entries))
    data = index_bytes(Index(RUNS, files))
    read = parse_index(data, sha256_bytes(data))
    assert read.snapshot == snapshot
    assert set(read.files) == set(files)


@given(
    odd_snapshots(),
    st.lists(st.sampled_from(['a"b', "a\\b", "ä", "é" * 100, "p/q"]), max_size=3, unique=True),
)
def test_lines_of_every_kind_are_read_alike(snapshot: Snapshot, names: list[str]) -> None:
    """Read once as written, once with spaces, which only the careful reader takes."""
    entries = {entry.path: entry for entry in snapshot} | {name: FileEntry(name, A, 1) for name in names}
    try:
        check_paths(entries)
    except RefusedError:
        assume(False)
    files = tuple(
        Located(entry, f"{BATCH}/{number}", offset=number % 3 or None)
        for number, entry in enumerate(Snapshot.of(entries.values()))
    )
    index = Index(RUNS, files)
    spaced = "".join(json.dumps(json.loads(line)) + "\n" for line in text_of(index).splitlines())
    assert parse_text(text_of(index)) == parse_text(spaced) == index


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"path":"a b/ü.csv"', '"path":"../x"', "line 2 has a wrong `path`: it has an empty"),
        ('"path":"run.sh"', '"path":"/run.sh"', "line 3 has a wrong `path`: it is absolute"),
        ('"path":"run.sh"', f'"path":"{"n" * 256}"', "line 3 has a wrong `path`: it has a segment longer"),
        (f'"key":"{PACK}"', f'"key":"{BATCH}/../x"', "line 3 has a wrong `key`: it has an empty"),
        ('"path":"run.sh"', '"path":"a b/\\u0075"', "line 3 is out of order"),
        (f'"sha256":"{B}"', f'"sha256":"{B.upper()}"', "line 3 has a wrong `sha256`"),
        ('"size":4', '"size":04', "line 3 is not JSON"),
        ('"x":true', '"x":1', "line 3 has a wrong `x`"),
    ],
)
def test_a_wrong_value_is_found_in_lines_without_spaces_too(old: str, new: str, problem: str) -> None:
    text = text_of(INDEX)
    assert old in text
    with pytest.raises(InvalidError) as caught:
        parse_text(text.replace(old, new))
    assert problem in caught.value.what


def test_an_odd_line_among_many_is_found_with_its_number() -> None:
    files = tuple(Located(FileEntry(f"f{n:05}", A, n), f"{BATCH}/f{n:05}") for n in range(5000))
    lines = text_of(Index(RUNS, files)).splitlines(keepends=True)
    lines[4321] = lines[4321].replace('"size":4320', '"size":4320.0')
    with pytest.raises(InvalidError, match=r"line 4322 has a wrong `size`"):
        parse_text("".join(lines))
    lines[4321], lines[78] = lines[78], lines[78].replace("f00077", "f0\\u0030077")
    with pytest.raises(InvalidError, match=r"line 4322 is out of order"):
        parse_text("".join(lines))


def test_the_sizes_of_packs_stand_in_the_header() -> None:
    packed = replace(INDEX, packs={PACK: 1024, f"{BATCH}/a.tar": 7})
    header = json.loads(text_of(packed).splitlines()[0])
    assert list(header["packs"].items()) == [(f"{BATCH}/a.tar", 7), (PACK, 1024)]
    assert parse_text(text_of(packed)) == packed
    assert packed.snapshot.id == INDEX.snapshot.id


def test_an_index_that_could_not_be_read_again_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidError, match="names no pack"):
        index_bytes(replace(INDEX, packs={PACK: 515}))
    monkeypatch.setattr(indexes, "MAX_HEADER", 300)
    with pytest.raises(RefusedError, match="1 packs are more"):
        index_bytes(replace(INDEX, packs={PACK: 1024}))


def test_other_bytes_than_the_id_names_are_damage() -> None:
    data = index_bytes(INDEX)
    with pytest.raises(IntegrityError):
        parse_index(data[:-1] + bytes([data[-1] ^ 1]), sha256_bytes(data))


def edited(line: int, **changes: object) -> str:
    """Return the index's text with keys of one line changed; None takes a key away."""
    lines = [json.loads(text) for text in text_of(INDEX).splitlines()]
    lines[line] = {key: value for key, value in {**lines[line], **changes}.items() if value is not None}
    return "".join(json.dumps(fields) + "\n" for fields in lines)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (edited(0, version=2, new=True), "line 1 has version 2"),
        (edited(0, version=0), "has the version 0"),
        (edited(0, version=True), "has the version True"),
        (edited(0, version=None), "lacks the key `version`"),
        (edited(0, extra=1), "line 1 has an unknown key"),
        (edited(0, host=None), "lacks the key `host`"),
        (edited(0, host="a\nb"), "wrong `host`"),
        (edited(0, artifact="results/../x"), "wrong `artifact`"),
        (edited(0, artifact="secrets/x"), "wrong `artifact`"),
        (edited(0, snapshot="f" * 64), "does not list the snapshot"),
        (edited(0, snapshot=""), "wrong `snapshot`"),
        (edited(0, parent="x"), "wrong `parent`"),
        (edited(1, extra=1), "line 2 has an unknown key"),
        (edited(1, key=None), "lacks the key `key`"),
        (edited(1, version=1), "unknown key `'version'`"),
        (edited(1, sha256=A.upper()), "wrong `sha256`"),
        (edited(1, size=-1), "wrong `size`"),
        (edited(1, size=True), "wrong `size`"),
        (edited(1, size=1.5), "wrong `size`"),
        (edited(1, size=13), "does not list the snapshot"),
        (edited(2, x=False), "line 3 has a wrong `x`"),
        (edited(2, offset=-1), "wrong `offset`"),
        (edited(1, path="../x"), "wrong `path`"),
        (edited(1, path="a\x00"), "wrong `path`"),
        (edited(1, path=7), "wrong `path`"),
        (edited(1, key="/etc/passwd"), "wrong `key`"),
        (edited(1, path="z"), "line 3 is out of order"),
        (edited(2, path="a b/ü.csv"), "line 3 is out of order"),
        (text_of(INDEX)[:-1], "middle of a line"),
        (text_of(INDEX) + "\n", "line 4 is not JSON"),
        (text_of(INDEX).replace('"size":12', '"size":12,"size":12'), "is not JSON"),
        (text_of(INDEX) + "[" * 8000 + "\n", "is not JSON"),
        (text_of(INDEX) + "[]\n", "is not an object"),
        ("", "middle of a line"),
        (text_of(INDEX) + "x" * 20_000, "larger than an index"),
        pytest.param("x" * (5 << 20), "larger than an index", id="an endless header"),
        (edited(0, packs={}), "wrong `packs`: it is an object"),
        (edited(0, packs=[]), "wrong `packs`"),
        (edited(0, packs={"../x": 1}), "wrong `packs`: it has an empty"),
        (edited(0, packs={PACK: -1}), "wrong `packs`: it is not a number"),
        (edited(0, packs={PACK: 515}), f"names no pack `{PACK}` of 516 bytes"),
        (edited(0, packs={f"{BATCH}/other.tar": 9999}), f"names no pack `{PACK}`"),
    ],
)
def test_a_wrong_index_is_named_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_text(text)
    assert problem in caught.value.what


def test_names_that_one_file_system_would_fold_into_one_are_refused() -> None:
    with pytest.raises(RefusedError):
        parse_text(edited(1, path="RUN.sh"))


@pytest.mark.fault(76)
def test_bytes_that_are_no_zstandard_frame_are_invalid() -> None:
    with pytest.raises(InvalidError, match="zstandard"):
        parse_index(b"plain", sha256_bytes(b"plain"))


@pytest.mark.fault(76)
def test_a_bomb_is_never_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "MAX_TEXT", 1 << 20)
    line = text_of(INDEX).splitlines()[1]
    bomb = compressed(text_of(INDEX).splitlines()[0] + "\n" + (line + "\n") * 100_000)
    with pytest.raises(InvalidError):
        parse_index(bomb, sha256_bytes(bomb))
    zeros = zstandard.ZstdCompressor().compress(b"\0" * (64 << 20))
    assert len(zeros) < 10_000
    with pytest.raises(InvalidError, match="larger than an index"):
        parse_index(zeros, sha256_bytes(zeros))


def test_a_frame_that_wants_much_memory_is_invalid() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress(text_of(INDEX).encode()) + compressor.flush()
    with pytest.raises(InvalidError, match="zstandard"):
        parse_index(data, sha256_bytes(data))


def test_more_files_than_an_index_lists_are_neither_written_nor_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = index_bytes(INDEX)
    monkeypatch.setattr(indexes, "MAX_FILES", 1)
    with pytest.raises(RefusedError):
        index_bytes(INDEX)
    with pytest.raises(InvalidError, match="more than 1 files"):
        parse_index(data, sha256_bytes(data))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"version": 2, "new": 1}, "has version 2"),
        ({"version": "1"}, "has the version '1'"),
        ({"extra": 1}, "unknown key"),
        ({"nonce": None}, "lacks the key `nonce`"),
        ({"index": "b"}, "wrong `index`"),
        ({"snapshot": ""}, "wrong `snapshot`"),
        ({"artifact": "results/other"}, "belongs to another artifact"),
        ({"time": 7}, "wrong `time`"),
    ],
)
def test_a_wrong_head_is_named(changes: dict[str, object], problem: str) -> None:
    fields = {**json.loads(head_bytes(HEAD)), **changes}
    data = json.dumps({key: value for key, value in fields.items() if value is not None}).encode()
    with pytest.raises(InvalidError) as caught:
        parse_head(data, NAME, "7")
    assert problem in caught.value.what


@pytest.mark.fault(42, 26)
def test_no_flipped_bit_of_a_head_is_believed() -> None:
    data = head_bytes(HEAD)
    for at in range(len(data)):
        for bit in range(8):
            spoilt = bytearray(data)
            spoilt[at] ^= 1 << bit
            with pytest.raises((IntegrityError, InvalidError)):
                parse_head(bytes(spoilt), NAME, "7")


def test_a_head_without_its_digest_is_not_believed() -> None:
    line = head_bytes(HEAD).replace(b',"sha256"', b', "sha256"')
    with pytest.raises(InvalidError, match="wrong `sha256`"):
        parse_head(line, NAME, "7")


@pytest.mark.parametrize("data", [b"", b"\xff", b"null", b"{", b"[" * 100_000])
def test_a_head_that_is_no_object_is_invalid(data: bytes) -> None:
    with pytest.raises(InvalidError):
        parse_head(data, NAME, "7")


@pytest.mark.parametrize("make", [HeadName.sourced, HeadName.conflict])
def test_a_labelled_head_names_its_own_snapshot(make: type[HeadName]) -> None:
    right, wrong = make(RUNS, A), make(RUNS, B)
    assert parse_head(head_bytes(replace(HEAD, name=right)), right, "").snapshot == A
    with pytest.raises(InvalidError, match="names another snapshot"):
        parse_head(head_bytes(HEAD), wrong, "")


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_labsync_error(data: bytes) -> None:
    with pytest.raises(InvalidError):
        parse_head(data, NAME, "")
    with pytest.raises((InvalidError, RefusedError)):
        parse_index(data, sha256_bytes(data))


def test_keys() -> None:
    assert head_key(NAME) == ".labsync/heads/results/runs.json"
    assert head_key(HeadName.conflict(RUNS, A)) == ".labsync/heads/results/runs@conflict-aaaaaaaaaaaa.json"
    assert index_key(A) == f".labsync/index/{A}.jsonl.zst"
    with pytest.raises(InvalidError):
        index_key("../" + A[3:])


def test_a_batch_is_named_by_time_and_chance() -> None:
    now = datetime(2026, 11, 20, 10, 15, tzinfo=timezone.utc)
    assert new_batch(now, "1a2b3c4d") == "20261120T101500Z-1a2b3c4d"
    assert new_batch(now) != new_batch(now)


def test_a_new_head_follows_the_expected_one() -> None:
    first = new_head(NAME, INDEX, B, None)
    assert (first.snapshot, first.index, first.parent) == (INDEX.snapshot.id, B, "")
    assert new_head(NAME, INDEX, B, HEAD).parent == HEAD.snapshot
    assert new_head(NAME, INDEX, B, None).nonce != first.nonce
