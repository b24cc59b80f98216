"""The lock: exact round trips, byte-stable text, strict reading, listings beside it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labsync.digest import sha256_bytes
from labsync.errors import DiskError, InvalidError
from labsync.lock import (
    LISTING_FROM,
    Listing,
    Lock,
    LockedArtifact,
    LockedFile,
    LockText,
    Unresolved,
    parse_lock,
    read_lock,
    render_lock,
    write_lock,
)
from labsync.lock.file import _Listings
from labsync.names import ArtifactName
from labsync.snapshot import FileEntry
from tests.strategies import odd_snapshots

INPUTS = sha256_bytes(b"inputs")
OID = hashlib.sha1(b"blob").hexdigest()
MODEL = ArtifactName("models/m")


def entry(path: str, *, executable: bool = False) -> FileEntry:
    return FileEntry(path, sha256_bytes(path.encode()), len(path), executable)


def model(*paths: str) -> LockedArtifact:
    files = tuple(LockedFile(entry(path)) for path in paths)
    return LockedArtifact(MODEL, INPUTS, "hf://o/r", "c" * 40, files)


SMALL = Lock.of(
    [
        replace(
            model("a.txt", "b.bin"),
            files=(
                LockedFile(entry("a.txt", executable=True), OID),
                LockedFile(entry("b.bin"), OID, lfs=True, xet="ab12"),
            ),
            skipped=(("link", "is a link"), ("sub", "is a submodule")),
            filtered=True,
        ),
        LockedArtifact(ArtifactName("checkpoints/mine"), made=True),
        LockedArtifact(
            ArtifactName("models/gated"),
            INPUTS,
            "hf://o/g",
            unresolved=Unresolved(7, "is gated", "ask for it"),
        ),
        LockedArtifact(ArtifactName("datasets/empty"), INPUTS, "s3://b/a/"),
    ]
)


def reparse(rendered: LockText) -> Lock:
    return parse_lock(rendered.text, "labsync.lock", rendered.listing)


def many(count: int) -> LockedArtifact:
    return model(*(f"f{n:06}" for n in range(count)))


@st.composite
def locks(draw: st.DrawFn) -> Lock:
    artifacts = []
    for short in draw(st.sets(st.sampled_from(["a", "b", "c.d", "e-f"]))):
        name = ArtifactName(f"models/{short}")
        if draw(st.booleans()):
            why = Unresolved(
                draw(st.sampled_from([6, 7, 8])), draw(st.sampled_from(["", "é\u2028 gone"])), ""
            )
            artifacts.append(LockedArtifact(name, INPUTS, "hf://o/r", unresolved=why))
            continue
        files = tuple(
            LockedFile(
                e, draw(st.sampled_from(["", OID])), draw(st.booleans()), draw(st.sampled_from(["", "x"]))
            )
            for e in draw(odd_snapshots())
        )
        skipped = draw(st.sets(st.tuples(st.sampled_from(["a", "é\u2028"]), st.just("is a link"))))
        artifacts.append(
            LockedArtifact(
                name, INPUTS, "hf://o/r", draw(st.sampled_from(["", "main"])), files,
                tuple(sorted(skipped)), draw(st.booleans()),
            )
        )  # fmt: skip
    return Lock.of(artifacts)


@given(locks())
def test_the_round_trip_is_exact(lock: Lock) -> None:
    rendered = render_lock(lock)
    assert reparse(rendered) == lock
    assert render_lock(reparse(rendered)) == rendered


def test_the_text_is_the_documented_one() -> None:
    lines = render_lock(SMALL).text.splitlines()
    assert lines[0] == '{"version":1}'
    assert lines[1] == '{"artifact":"checkpoints/mine","made":true}'
    assert json.loads(lines[2])["files"] == 0
    assert lines[3] == (
        f'{{"artifact":"models/gated","inputs":"{INPUTS}","origin":"hf://o/g",'
        '"unresolved":{"code":7,"message":"is gated","hint":"ask for it"}}'
    )
    header = json.loads(lines[4])
    assert list(header)[:7] == ["artifact", "inputs", "origin", "revision", "snapshot", "files", "bytes"]
    assert (header["files"], header["bytes"]) == (2, 10)
    assert header["snapshot"] == SMALL.artifacts[MODEL].snapshot.id
    assert header["filtered"] is True
    assert header["skipped"] == [["link", "is a link"], ["sub", "is a submodule"]]
    assert lines[5].endswith(f'"size":5,"x":true,"oid":"{OID}"}}')
    assert lines[6].endswith(f'"size":5,"oid":"{OID}","lfs":true,"xet":"ab12"}}')
    assert len(lines) == 7


def test_the_order_in_which_values_come_does_not_show() -> None:
    turned = Lock.of(
        replace(artifact, files=artifact.files[::-1], skipped=artifact.skipped[::-1])
        for artifact in reversed(list(SMALL.artifacts.values()))
    )
    assert render_lock(turned) == render_lock(SMALL)


def test_an_unresolved_line_never_holds_a_secret() -> None:
    token = "hf_" + "aB3" * 11
    why = Unresolved(7, f"401 for https://me:{token}@h.org", token)
    text = render_lock(Lock.of([LockedArtifact(MODEL, INPUTS, "https://h.org/a", unresolved=why)])).text
    assert token not in text


@pytest.mark.parametrize(("count", "beside"), [(LISTING_FROM - 1, False), (LISTING_FROM, True)])
def test_a_large_artifact_keeps_its_listing_beside(count: int, beside: bool) -> None:
    lock = Lock.of([many(count)])
    rendered = render_lock(lock)
    assert bool(rendered.listings) is beside
    assert (rendered.text.count("\n") == 2) is beside
    assert reparse(rendered) == lock


def broken(old: str, new: str) -> str:
    text = render_lock(SMALL).text
    assert old in text
    return text.replace(old, new, 1)


def swapped() -> str:
    lines = render_lock(SMALL).text.splitlines(keepends=True)
    return "".join([*lines[:5], lines[6], lines[5]])


WHOLE = render_lock(SMALL).text
A_TXT = entry("a.txt").sha256


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "cut"),
        (WHOLE[:-1], 7, "cut"),
        (WHOLE[:-40], 7, "cut"),
        ("".join(WHOLE.splitlines(keepends=True)[:-1]), 5, "fewer file lines follow"),
        ("<<<<<<< HEAD\n" + WHOLE, 1, "not a JSON object"),
        ("[]\n", 1, "is not a JSON object"),
        ("[" * 100_000 + "\n", 1, "is not a JSON object"),
        ("{}\n", 1, "`version` is missing"),
        ('{"version":1,"made":true}\n', 1, "unknown key `made`"),
        ('{"version":"1"}\n', 1, "`version` must be a whole number"),
        ('{"version":true}\n', 1, "`version` must be a whole number"),
        ('{"version":0}\n', 1, "`version` must be 1"),
        ('{"version":1,"version":1}\n', 1, "distinct keys"),
        (broken('"made":true', '"made":false'), 2, "`made` must be true or absent"),
        (broken('"made":true', '"made":1'), 2, "`made` must be true or absent"),
        (broken('"made":true', '"made":true,"origin":"x"'), 2, "unknown key `origin`"),
        (broken("checkpoints/mine", "checkpoints/Mine"), 2, "is not `kind/name`"),
        (broken("checkpoints/mine", "secrets/mine"), 2, "is not `kind/name`"),
        (broken("checkpoints/mine", "results/mine"), 3, "out of order"),
        (broken("checkpoints/mine", "datasets/empty"), 3, "there twice"),
        (broken(INPUTS, INPUTS[:-1]), 3, "`inputs` must be 64 hex digits"),
        (broken(INPUTS, INPUTS.upper()), 3, "`inputs` must be 64 hex digits"),
        (broken('"code":7', '"code":99'), 4, "no exit code"),
        (broken('"code":7', '"code":7,"why":1'), 4, "unknown key `why`"),
        (broken('"unresolved":{', '"unresolved":[{').replace('"}}', '"}]}', 1), 4, "must be an object"),
        (broken('"filtered":true', '"filtered":true,"listing":"' + INPUTS + '"'), 5, "stands exactly where"),
        (broken('"files":2', '"files":3'), 5, "fewer file lines follow"),
        (broken('"files":2', '"files":-1'), 5, "`files` must be a whole number"),
        (broken('"files":2', '"files":1'), 5, "do not make the snapshot"),
        (broken('["link","is a link"]', '["link"]'), 5, "a list of pairs"),
        (broken('[["link","is a link"]', '[["link",1]'), 5, "a list of pairs"),
        (broken('"bytes":10', '"bytes":11'), 5, "`bytes` says 11, and its files have 10"),
        (broken('"bytes":10,', ""), 5, "`bytes` is missing"),
        (broken("c" * 40, "\\ud800"), 5, "`revision` must be a string"),
        (broken(A_TXT, "0" * 64), 5, "do not make the snapshot"),
        (broken('"x":true,', ""), 5, "do not make the snapshot"),
        (broken(A_TXT, "0" * 63), 6, "`sha256` must be 64 hex digits"),
        (broken('"size":5', '"size":5.0'), 6, "`size` must be a whole number"),
        (broken('"size":5', '"size":null'), 6, "`size` must not be null"),
        (broken('"size":5', '"size":NaN'), 6, "`size` must be a whole number"),
        (broken('"a.txt"', '"../a.txt"'), 6, "the path `../a.txt` has an empty, `.` or `..` segment"),
        (broken('"a.txt"', '"b.bin"'), 7, "there twice"),
        (broken('"a.txt"', '"B.bin"'), 5, "one name on some file systems"),
        (broken('"lfs":true', '"lfs":"yes"'), 7, "`lfs` must be true or absent"),
        (broken('"lfs":true', '"lsf":true'), 7, "unknown key `lsf`"),
        (swapped(), 7, "out of order"),
    ],
)
def test_what_is_no_lock_is_named_at_its_line(text: str, line: int, says: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_lock(text, "labsync.lock", render_lock(SMALL).listing)
    (issue,) = caught.value.issues
    assert issue.startswith(f"labsync.lock:{line}: "), issue
    assert says in issue


def test_a_newer_lock_asks_for_a_newer_labsync() -> None:
    with pytest.raises(InvalidError) as caught:
        parse_lock('{"version":2,"shiny":1}\n', "labsync.lock", LockText("").listing)
    assert caught.value.hint == "install a newer labsync"


@given(st.binary(max_size=60), st.integers(0, len(WHOLE)), st.integers(0, 80))
def test_a_damaged_lock_is_read_as_it_was_or_refused(data: bytes, start: int, cut: int) -> None:
    text = WHOLE[:start] + data.decode("utf-8", "replace") + WHOLE[start + cut :]
    try:
        lock = parse_lock(text, "labsync.lock", LockText("").listing)
    except InvalidError:
        return
    assert parse_lock(render_lock(lock).text, "labsync.lock", LockText("").listing) == lock


def test_a_lock_is_written_once_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "labsync.lock"
    assert read_lock(path) is None
    assert write_lock(path, SMALL)
    assert read_lock(path) == SMALL
    before = path.stat()
    assert not write_lock(path, SMALL)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino
    assert [child.name for child in tmp_path.iterdir()] == ["labsync.lock"]


def test_listings_lie_beside_the_lock_and_leave_with_it(tmp_path: Path) -> None:
    path, folder = tmp_path / "labsync.lock", tmp_path / "labsync.lock.d"
    large = Lock.of([many(LISTING_FROM)])
    assert write_lock(path, large)
    (listing,) = folder.iterdir()
    assert listing.name == next(iter(render_lock(large).listings)) + ".jsonl.zst"
    assert read_lock(path) == large
    assert not write_lock(path, large)

    larger = Lock.of([many(LISTING_FROM + 1)])
    assert write_lock(path, larger)
    assert not listing.exists()
    assert read_lock(path) == larger

    (folder / "notes.txt").write_text("mine", "utf-8")
    assert write_lock(path, SMALL)
    assert [child.name for child in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    write_lock(path, SMALL)
    assert not folder.exists()


@pytest.mark.parametrize("damage", ["missing", "garbage", "cut", "other", "longer"])
def test_a_damaged_listing_is_refused_and_written_anew(tmp_path: Path, damage: str) -> None:
    import zstandard

    path = tmp_path / "labsync.lock"
    lock = Lock.of([many(LISTING_FROM)])
    write_lock(path, lock)
    (listing,) = (tmp_path / "labsync.lock.d").iterdir()
    whole = listing.read_bytes()
    plain = next(iter(render_lock(lock).listings.values()))
    match damage:
        case "missing":
            listing.unlink()
        case "garbage":
            listing.write_bytes(b"no zstd")
        case "cut":
            listing.write_bytes(whole[:-20])
        case "other":
            listing.write_bytes(zstandard.compress(plain.replace(b"f000000", b"e000000")))
        case _:
            listing.write_bytes(zstandard.compress(plain + b"\n"))
    found = read_lock(path)
    assert found is not None
    with pytest.raises(InvalidError) as caught:
        found.read_listings()
    assert listing.name in " ".join(caught.value.issues)
    salvaged = read_lock(path, salvage=True)
    assert salvaged is not None
    assert salvaged.artifacts[MODEL].unresolved == Unresolved(3, caught.value.what, caught.value.hint)
    assert write_lock(path, lock)
    assert read_lock(path) == lock


@pytest.mark.fault(76)
def test_a_listing_is_decompressed_no_further_than_it_can_be_long(tmp_path: Path) -> None:
    import tracemalloc

    import zstandard

    path = tmp_path / "labsync.lock"
    write_lock(path, Lock.of([many(LISTING_FROM)]))
    (listing,) = (tmp_path / "labsync.lock.d").iterdir()
    listing.write_bytes(zstandard.compress(bytes(200 << 20)))
    found = read_lock(path)
    assert found is not None
    tracemalloc.start()
    with pytest.raises(InvalidError):
        found.read_listings()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 << 20
    digest = listing.name.partition(".")[0]
    assert sum(map(len, _Listings(path).read(digest, 3 << 20))) == 3 << 20


def test_a_listing_of_other_files_than_announced_is_refused() -> None:
    rendered = render_lock(Lock.of([many(LISTING_FROM + 1)]))
    for count, says in ((LISTING_FROM, "more than"), (LISTING_FROM + 2, "fewer file lines")):
        text = rendered.text.replace(f'"files":{LISTING_FROM + 1}', f'"files":{count}')
        with pytest.raises(InvalidError, match="not valid") as caught:
            parse_lock(text, "labsync.lock", rendered.listing).read_listings()
        assert says in caught.value.issues[0]


def test_a_listing_is_read_when_somebody_asks_for_its_files() -> None:
    lock = Lock.of([many(LISTING_FROM)])
    rendered = render_lock(lock)
    asked = []

    def listing(digest: str, limit: int) -> list[bytes]:
        asked.append(digest)
        data = rendered.listings[digest]
        return [data[at : at + 1000] for at in range(0, len(data), 1000)]

    found = parse_lock(rendered.text, "labsync.lock", listing).artifacts[MODEL]
    known = lock.artifacts[MODEL]
    assert isinstance(found.files, Listing)
    assert (found.snapshot_id, len(found.files), found.size) == (known.snapshot.id, LISTING_FROM, known.size)
    assert found != replace(known, files=known.files[1:])
    assert not asked
    assert found == known
    assert known == found
    assert hash(found) == hash(known)
    assert (found.files[0], found.files[-2:]) == (known.files[0], known.files[-2:])
    assert found.snapshot == known.snapshot
    assert len(asked) == 2  # once to hash it, once to read it


def test_an_odd_line_of_a_listing_is_read_alike_or_named(tmp_path: Path) -> None:
    files = tuple(LockedFile(entry(f"f{n:06}"), OID) for n in range(3000))
    whole = render_lock(Lock.of([replace(model(), files=files)]))
    plain = next(iter(whole.listings.values()))
    for old, new, says in (
        (b'"path":"f002500",', b'"path": "f002500",', ""),
        (b'"path":"f002500",', b'"path":"f0025\\u0030\\u0030",', ""),
        (b'"path":"f002500",', b'"path":"f002500x",', "do not make the snapshot"),
        (b'"path":"f002500",', b'"path":"f002499",', ":2501: `f002499` is out of order"),
        (b'"path":"f002500",', b'"path":"f0025\xff",', "is not UTF-8 text"),
        (b'"path":"f002500",', b'"path":"f002500","new":1,', ":2501: unknown key `new`"),
    ):
        data = plain.replace(old, new)
        digest = sha256_bytes(data)
        text = whole.text.replace(sha256_bytes(plain), digest)
        blocks = [data[at : at + 4000] for at in range(0, len(data), 4000)]
        lock = parse_lock(text, "labsync.lock", lambda digest, limit, blocks=blocks: blocks)  # type: ignore[misc]
        if not says:
            assert lock.artifacts[MODEL].files == files
            continue
        with pytest.raises(InvalidError) as caught:
            lock.read_listings()
        assert says in caught.value.issues[0]


def test_a_listing_that_left_with_its_lock_asks_to_run_again(tmp_path: Path) -> None:
    path = tmp_path / "labsync.lock"
    write_lock(path, Lock.of([many(LISTING_FROM)]))
    old = read_lock(path)
    assert old is not None
    write_lock(path, SMALL)
    with pytest.raises(InvalidError, match="written anew meanwhile") as caught:
        old.read_listings()
    assert caught.value.hint == "run the same command again"


def test_a_lock_that_is_no_text_or_no_file(tmp_path: Path) -> None:
    path = tmp_path / "labsync.lock"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidError, match="not UTF-8"):
        read_lock(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DiskError):
        read_lock(path)
