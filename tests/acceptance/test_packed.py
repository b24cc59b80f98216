"""`layout: packed`: many small files travel as a few plain tar files and come back as files."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.fakes.box import Box
from tests.fakes.live import digest

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = """
version: 1
project: packed
mirror: ../mirror
datasets:
  clips: {origin: "file://%s/", layout: packed, mirror: true, path: clips}
"""

CLIPS = {f"s{n // 50}/clip-{n:03}.{kind}": f"{n} {kind}".encode() * (n + 1) for n in range(150) for kind in
         ("cls", "json", "seg.png")} | {"Grüße/lang-" + "x" * 120 + ".txt": b"long name", "empty": b"",
         "again.json": b"0 json"}  # fmt: skip


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    folder = tmp_path / "origin"
    _write(folder, CLIPS)
    (folder / "s0/run.sh").write_bytes(b"#!/bin/sh\n")
    (folder / "s0/run.sh").chmod(0o755)
    return folder


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


@pytest.fixture
def box(tmp_path: Path, origin: Path) -> Box:
    box = Box(tmp_path / "box", MANIFEST % origin)
    locked = box.labsync("lock")
    assert locked.code == 0, locked.messages
    return box


def _other(box: Box, name: str, origin: Path) -> Box:
    other = Box(box.root.parent / name, MANIFEST % origin)
    for file in box.root.glob("labsync.lock*"):
        target = other.root / file.name
        (shutil.copytree if file.is_dir() else shutil.copyfile)(file, target)
    return other


def _packs(mirror: Path) -> list[Path]:
    return sorted(mirror.rglob("pack-*.tar"))


WHOLE = CLIPS | {"s0/run.sh": b"#!/bin/sh\n"}


@pytest.mark.parametrize("command", ["pull", "mirror"])
def test_a_full_push_is_plain_tar_and_comes_back_whole(
    tmp_path: Path, box: Box, origin: Path, command: str
) -> None:
    done = box.labsync(command, "clips")
    assert done.code == 0, done.messages
    (pack,) = _packs(tmp_path / "mirror")
    (tmp_path / "untarred").mkdir()
    subprocess.run(["tar", "-xf", pack, "-C", tmp_path / "untarred"], check=True)
    found = {
        str(f.relative_to(tmp_path / "untarred")): f
        for f in (tmp_path / "untarred").rglob("*")
        if f.is_file()
    }
    assert {path: file.read_bytes() for path, file in found.items()} == WHOLE
    assert found["s0/run.sh"].stat().st_mode & 0o777 == 0o755
    with tarfile.open(pack) as archive:
        names = archive.getnames()
    assert names == sorted(names, key=str.encode)

    shutil.move(origin, tmp_path / "away")
    other = _other(box, "other", origin)
    pulled = other.labsync("pull")
    assert pulled.code == 0, pulled.messages
    assert other.tree("clips") == WHOLE
    assert (other.root / "clips/s0/run.sh").stat().st_mode & 0o100
    assert pulled.transferred["from_origin"] == 0
    assert pulled.requests["GET"] < 10
    assert other.labsync("status").requests == {"LIST": 1}


def test_one_file_is_read_from_a_pack_by_range(tmp_path: Path, box: Box, origin: Path) -> None:
    assert box.labsync("pull").code == 0
    shutil.move(origin, tmp_path / "away")
    path = "s1/clip-077.json"
    (box.root / "clips" / path).write_bytes(b"")
    (box.root / "clips" / path).unlink()
    again = box.labsync("pull")
    assert again.code == 0, again.messages
    assert again.transferred["from_mirror"] == len(CLIPS[path])
    assert box.tree("clips") == WHOLE


def test_unchanged_files_of_a_new_snapshot_lie_in_older_packs(tmp_path: Path, box: Box, origin: Path) -> None:
    assert box.labsync("pull").code == 0
    old = {pack: digest(pack.read_bytes()) for pack in _packs(tmp_path / "mirror")}
    news = {"s1/clip-060.json": b"changed", "s9/new.json": b"new"}
    _write(origin, news)
    assert box.labsync("lock", "--upgrade").code == 0
    assert box.labsync("pull").code == 0
    fresh = [pack for pack in _packs(tmp_path / "mirror") if pack not in old]
    assert {pack: digest(pack.read_bytes()) for pack in old} == old
    assert len(fresh) == 1
    with tarfile.open(fresh[0]) as archive:
        assert archive.getnames() == sorted(news)
    shutil.move(origin, tmp_path / "away")
    other = _other(box, "other", origin)
    assert other.labsync("pull").code == 0
    assert other.tree("clips") == WHOLE | news


def test_a_pack_that_is_more_than_half_dead_is_written_again(tmp_path: Path, box: Box, origin: Path) -> None:
    assert box.labsync("pull").code == 0
    (old,) = _packs(tmp_path / "mirror")
    for n in range(40, 150):
        for kind in ("cls", "json", "seg.png"):
            (origin / f"s{n // 50}/clip-{n:03}.{kind}").unlink()
    assert box.labsync("lock", "--upgrade").code == 0
    assert box.labsync("pull").code == 0
    kept = {path: data for path, data in WHOLE.items() if "clip-" not in path or int(path[8:11]) < 40}
    fresh = [pack for pack in _packs(tmp_path / "mirror") if pack != old]
    assert len(fresh) == 1
    with tarfile.open(fresh[0]) as archive:
        assert set(archive.getnames()) == set(kept)
    shutil.move(origin, tmp_path / "away")
    other = _other(box, "other", origin)
    assert other.labsync("pull").code == 0
    assert other.tree("clips") == kept


@pytest.mark.fault(26)
def test_a_flipped_byte_in_a_pack_is_found_and_healed_from_the_origin(
    tmp_path: Path, box: Box, origin: Path
) -> None:
    assert box.labsync("pull").code == 0
    (pack,) = _packs(tmp_path / "mirror")
    data = bytearray(pack.read_bytes())
    at = data.index(CLIPS["s1/clip-077.json"])
    data[at] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    other = _other(box, "other", origin)
    pulled = other.labsync("pull")
    assert pulled.code == 0, pulled.messages
    assert other.tree("clips") == WHOLE
    shutil.move(origin, tmp_path / "away")
    third = _other(box, "third", origin)
    assert third.labsync("pull").code == 0
    assert third.tree("clips") == WHOLE
