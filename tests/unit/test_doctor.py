"""Doctor: every finding is told, each failure has the code that commands would end with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.box import Box
from tests.fakes.s3 import moto_server

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "version: 1\nproject: doctor\nmirror: {mirror}\n{more}results:\n  runs: {{path: outputs}}\n"


def _box(folder: Path, more: str = "") -> Box:
    return Box(folder / "box", MANIFEST.format(mirror=folder / "mirror", more=more))


def _results(box: Box, *args: str) -> tuple[int, dict[str, str]]:
    examined = box.labsync("doctor", *args)
    assert [line["type"] for line in examined.lines[:-1]] == ["check"] * (len(examined.lines) - 1)
    return examined.code, {line["name"]: line["result"] for line in examined.lines[:-1]}


def test_a_sound_lab(tmp_path: Path) -> None:
    box = _box(tmp_path)
    assert box.labsync("lock").code == 0
    code, found = _results(box)
    assert code == 0
    assert {
        name: found[name] for name in ("python", "manifest", "lock", "disk", "mirror", "compare-and-swap")
    } == (dict.fromkeys(("python", "manifest", "lock", "disk", "mirror", "compare-and-swap"), "ok"))
    assert "environment" not in found


def test_looking_leaves_nothing_in_the_mirror(tmp_path: Path) -> None:
    box = _box(tmp_path)
    box.labsync("doctor")
    assert [path for path in (tmp_path / "mirror").rglob("*") if path.is_file()] == []


def test_a_stale_lock_is_3_and_the_other_looks_go_on(tmp_path: Path) -> None:
    box = _box(tmp_path, "datasets:\n  d: {origin: 'hf://datasets/a/b', path: d}\n")
    code, found = _results(box)
    assert code == 3
    assert found["lock"] == "failed"
    assert found["mirror"] == "ok"


def test_an_unresolved_origin_is_a_warning(tmp_path: Path) -> None:
    box = _box(tmp_path, "datasets:\n  d: {origin: 'file:absent', path: d}\n")
    assert box.labsync("lock").code == 6
    code, found = _results(box)
    assert (code, found["lock"]) == (0, "warning")


def test_a_full_disk_is_9(tmp_path: Path) -> None:
    code, found = _results(_box(tmp_path, "disk: {reserve: 1000000GiB}\n"))
    assert (code, found["disk"]) == (9, "failed")


@pytest.mark.parametrize("args", [[], ["--offline"]])
def test_a_mirror_that_is_not_there_is_8(tmp_path: Path, args: list[str]) -> None:
    box = _box(tmp_path)
    (tmp_path / "mirror").symlink_to("nowhere")
    code, found = _results(box, *args)
    assert (code, found["mirror"]) == (8, "failed")


def test_one_cause_is_told_once_and_only_by_its_finding(tmp_path: Path) -> None:
    box = _box(tmp_path, "environment: {name: lab, manager: venv, spec: absent.yaml, lock: absent.lock}\n")
    (tmp_path / "mirror").symlink_to("nowhere")
    examined = box.labsync("doctor")
    failed = [line["name"] for line in examined.lines[:-1] if line["result"] == "failed"]
    assert failed == ["mirror", "environment"]
    assert not {"compare-and-swap", "kernel"} & {line["name"] for line in examined.lines[:-1]}
    assert (examined.code, examined.report["exit_code"], examined.errors) == (4, 4, [])
    assert "error:" not in examined.stderr


def test_a_dry_run_writes_nothing_to_the_mirror(tmp_path: Path) -> None:
    with moto_server() as server:
        server.make_bucket("lab")
        mirror = f"{{url: s3://lab/p, endpoint: '{server.url}', region: us-east-1}}"
        box = Box(tmp_path / "box", MANIFEST.format(mirror=mirror, more=""), server.env)
        dry = box.labsync("doctor", "--dry-run")
        assert (dry.code, set(dry.requests)) == (0, {"LIST"})
        assert "PUT" in box.labsync("doctor").requests


def test_offline_does_not_ask_a_bucket(tmp_path: Path) -> None:
    box = Box(tmp_path / "box", MANIFEST.format(mirror="s3://bucket/prefix", more=""))
    code, found = _results(box, "--offline")
    assert (code, found["mirror"]) == (0, "warning")
    assert "compare-and-swap" not in found


def test_an_environment_that_is_not_built_is_a_warning(tmp_path: Path) -> None:
    box = _box(tmp_path, "environment: {name: lab, manager: venv, inherit: true}\n")
    code, found = _results(box)
    assert code == 0
    assert (found["environment"], found["kernel"]) == ("warning", "warning")
