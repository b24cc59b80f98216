"""Input that somebody made to do harm: nothing is written outside, nothing runs, nothing explodes."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from labsync.digest import sha256_bytes
from labsync.errors import InvalidError
from labsync.manifest.parse import load_manifest
from labsync.mirrors.base import Head, HeadName
from labsync.mirrors.records import head_bytes
from labsync.mirrors.s3_upload import MAX_PARTS, MAX_SIZE, Sizes
from labsync.names import ArtifactName
from tests.fakes.box import Box
from tests.fakes.hub import Hub

if TYPE_CHECKING:
    from collections.abc import Callable

A = "a" * 64
YAML = {
    "laughs": "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nversion: 1\nproject: x\n",
    "merge": "version: 1\nproject: x\nbase: &b {path: x}\nresults:\n  r:\n    <<: *b\n",
    "python": "version: 1\nproject: !!python/object/apply:os.system ['touch owned']\n",
    "deep": "version: 1\nproject: x\nresults: " + "[" * 5000 + "]" * 5000,
    "number": "version: 1\nproject: x\nlibraries: {l: {origin: git+https://h/x, revision: 1234567}}\n",
    "octal": "version: 01\nproject: x\n",
    "no": "version: 1\nproject: no\nresults: no\n",
    "newer": "version: 2\nproject: x\n",
    "parent and child": "version: 1\nproject: x\nresults:\n  a: {path: out}\n  b: {path: out/deep}\n",
    "one path twice": "version: 1\nproject: x\nresults:\n  a: {path: out}\n  b: {path: ./out}\n",
    "escape": "version: 1\nproject: x\nresults:\n  a: {path: ../out}\n",
    "absolute": "version: 1\nproject: x\nresults:\n  a: {path: /etc}\n",
    "drive": "version: 1\nproject: x\nresults:\n  a: {path: 'C:\\out\\..\\..\\x'}\n  b: {path: ''}\n",
    "cycle": "version: 1\nproject: x\nmodels: {a: {origin: 'hf://a/b', smoke: {task: x, fallback: [a]}}}\n",
    "control": 'version: 1\nproject: x\nresults:\n  a: {path: "out\\nrm"}\n',
    "two documents": "version: 1\nproject: x\n---\nversion: 1\nproject: y\n",
    "huge key": f"version: 1\nproject: x\n{'k' * 100_000}: 1\n",
    "nul": "version: 1\nproject: x\0\n",
    "utf-16": "version: 1\nproject: x\n".encode("utf-16").decode("latin-1"),
}


@pytest.mark.fault(75, 79)
@pytest.mark.parametrize("name", list(YAML))
def test_a_hostile_manifest_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "labsync.yaml"
    path.write_bytes(YAML[name].encode("latin-1" if name == "utf-16" else "utf-8"))
    with pytest.raises(InvalidError) as caught:
        load_manifest(path)
    assert caught.value.issues or caught.value.path
    assert list(tmp_path.iterdir()) == [path]


HOSTILE_PATHS = (
    "../evil", "../../evil", "/evil", "a/../../evil", "a//b", "./a", "a/.", "", "a\nb", "a\x00b", "x" * 300,
    "\x1b[31m", "é\ud800",
)  # fmt: skip


def _lay_head(mirror: Path, lines: list[dict[str, object]], header: dict[str, object] | None = None) -> None:
    """Publish, behind labsync's back, an index with these lines under a head that fits it."""
    first = {"version": 1, "artifact": "results/runs", "snapshot": A, "parent": "", "time": "", "host": ""}
    text = "".join(
        json.dumps(line, separators=(",", ":")) + "\n" for line in [{**first, **(header or {})}, *lines]
    )
    data = zstandard.ZstdCompressor().compress(text.encode("utf-8", "surrogatepass"))
    name = HeadName(ArtifactName("results/runs"))
    head = Head(name, A, sha256_bytes(data), "", "2026-11-20T10:15:00Z", "box", "n" * 32, "")
    for path, stored in (
        (mirror / f".labsync/index/{head.index}.jsonl.zst", data),
        (mirror / ".labsync/heads/results/runs.000001.json", head_bytes(head)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stored)


@pytest.mark.fault(72, 75)
@pytest.mark.parametrize("path", HOSTILE_PATHS)
@pytest.mark.parametrize("field", ["path", "key"])
def test_an_index_that_leads_outside_is_refused_before_anything(
    tmp_path: Path, path: str, field: str
) -> None:
    box = Box(
        tmp_path / "deep/er/box", "version: 1\nproject: x\nmirror: ./mirror\nresults: {runs: {path: out}}\n"
    )
    line = {"path": "a", "size": 1, "sha256": A, "key": "results/runs/b/a", field: path}
    _lay_head(box.root / "mirror", [line])
    before = sorted(tmp_path.rglob("*"))
    pulled = box.labsync("pull")
    assert pulled.code in {3, 5, 12}, pulled.messages
    assert not (box.root / "out").exists()
    new = [p for p in sorted(tmp_path.rglob("*")) if p not in before and ".labsync" not in p.parts]
    assert new == []
    assert "\x1b" not in pulled.stderr


@pytest.mark.fault(72, 73)
@pytest.mark.parametrize(
    "pair", [("A", "a"), ("ﬀ", "ff"), ("é", "e\u0301"), ("a", "a/b"), ("a", "a")], ids=range(5)
)
def test_an_index_of_names_that_fold_into_one_is_refused(tmp_path: Path, pair: tuple[str, str]) -> None:
    box = Box(tmp_path / "box", "version: 1\nproject: x\nmirror: ./mirror\nresults: {runs: {path: out}}\n")
    lines = [
        {"path": p, "size": 1, "sha256": A, "key": f"results/runs/b/{i}"} for i, p in enumerate(sorted(pair))
    ]
    _lay_head(box.root / "mirror", lines)
    assert box.labsync("pull").code in {3, 12}
    assert not (box.root / "out").exists()


@pytest.mark.fault(76)
def test_a_bomb_in_the_place_of_an_index_is_not_expanded(tmp_path: Path) -> None:
    box = Box(tmp_path / "box", "version: 1\nproject: x\nmirror: ./mirror\nresults: {runs: {path: out}}\n")
    _lay_head(box.root / "mirror", [], {"host": " " * (64 << 20)})
    pulled = box.labsync("pull")
    assert pulled.code in {3, 5}, pulled.messages


class _Owns:
    """A pickle that leaves its mark when it is loaded."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.system, ("touch owned",)


def _archives() -> dict[str, bytes]:
    tar, squeezed = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, kind, link in (
            ("../evil", tarfile.REGTYPE, ""),
            ("l", tarfile.SYMTYPE, "/etc"),
            ("l/x", tarfile.REGTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            archive.addfile(info, io.BytesIO(b""))
    with zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("../../evil", b"\0" * (8 << 20))
    return {
        "evil.tar": tar.getvalue(),
        "bomb.zip": squeezed.getvalue(),
        "model.pkl": pickle.dumps(_Owns()),
        "pytorch_model.bin": pickle.dumps(_Owns()),
        "modeling_evil.py": b"open('owned', 'w')\n",
        "sitecustomize.py": b"open('owned', 'w')\n",
        "config.json": b'{"auto_map": {"AutoModel": "modeling_evil.Evil"}}',
        ".gitattributes": b"* filter=evil\n",
    }


@pytest.mark.fault(76, 77)
def test_archives_pickles_and_code_are_carried_and_neither_opened_nor_run(tmp_path: Path) -> None:
    files = _archives()
    with Hub() as hub:
        hub.add_repo("models", "lab/evil", files)
        manifest = (
            "version: 1\nproject: x\nmirror: ./mirror\n"
            "models: {hostile: {origin: 'hf://lab/evil@main', path: m}}\n"
            "results: {runs: {path: m2}}\n"
        )
        box = Box(tmp_path / "box", manifest, {"HF_ENDPOINT": hub.url})
        for command in (["lock"], ["pull"], ["verify"], ["status"]):
            assert box.labsync(*command).code == 0
        for path, data in files.items():
            box.write(f"m2/{path}", data)
        assert box.labsync("push", "runs").code == 0
        assert box.tree("m") == files
    assert [path for path in tmp_path.rglob("*") if path.name in {"owned", "evil", "l"}] == []
    assert not Path("owned").exists()


@pytest.mark.fault(75)
@pytest.mark.parametrize("path", ["../evil", "a/../../evil", "/evil", "a\x1b[2J", ".git/config"])
def test_a_hub_that_lists_a_path_outside_is_refused(tmp_path: Path, path: str) -> None:
    with Hub() as hub:
        hub.add_repo("models", "lab/evil", {path: b"x", "ok.json": b"{}"})
        manifest = (
            "version: 1\nproject: x\nmirror: ./mirror\n"
            "models: {hostile: {origin: 'hf://lab/evil@main', path: m}}\n"
        )
        box = Box(tmp_path / "box", manifest, {"HF_ENDPOINT": hub.url})
        locked = box.labsync("lock")
        assert locked.code in {0, 3, 6, 8, 12}, locked.messages
        if path != ".git/config":
            assert locked.code != 0
        box.labsync("pull")
        assert not (tmp_path / "evil").exists()
        assert not (tmp_path / "box/evil").exists()
        assert "\x1b" not in locked.stderr


@pytest.mark.fault(71)
@given(st.integers(1, MAX_SIZE))
def test_parts_are_never_too_many_and_cover_the_file(size: int) -> None:
    sizes = Sizes()
    part = sizes.part_of(size)
    assert part >= sizes.part
    assert -(-size // part) <= MAX_PARTS
    assert part == sizes.part or part % (1 << 20) == 0
    assert part - (1 << 20) < max(sizes.part, -(-size // MAX_PARTS))
