"""Bad input: a clear error, the right exit code, and nothing changed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.fakes.box import Box
from tests.fakes.hub import Hub

if TYPE_CHECKING:
    from pathlib import Path

SHA_OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
HEAD = "version: 1\nproject: bad\n"


def _files(root: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in sorted(root.rglob("*"))
        if p.is_file() and ".sqlite" not in p.name and "/locks/" not in str(p)
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("modles: {}\n", "did you mean `models`"),
        ("models:\n  a: {orign: hf://x/y}\n", "did you mean `origin`"),
        ("models: {}\nmodels: {}\n", "duplicate"),
        ("results:\n  runs: {path: [1, 2]}\n", "path"),
        ("results:\n  a: {path: out}\n  b: {path: out}\n", "out"),
        ("results:\n  a: {path: out}\n  b: {path: out/inner}\n", "out"),
        ("results:\n  a: {path: ../elsewhere}\n", ".."),
        ("models:\n  a: {path: models/a}\n", "origin"),
        ("version: 9\n", "newer"),
    ],
)
def test_a_bad_manifest_is_refused_with_the_line_and_the_key(
    tmp_path: Path, text: str, expected: str
) -> None:
    head = "" if text.startswith("version") else HEAD
    box = Box(tmp_path / "box", head + text)
    before = _files(box.root)
    for command in ("status", "lock", "pull", "push", "bootstrap"):
        done = box.labsync(command)
        assert done.code == 3, command
        assert expected in done.messages
        assert "labsync.yaml:" in done.messages
    assert _files(box.root) == before


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    text = HEAD + "colour: red\nmodels:\n  UPPER: {}\n  m: {origin: 5}\nresults:\n  r: {path: /abs}\n"
    issues = Box(tmp_path / "box", text).labsync("status").errors[0]["issues"]
    assert len(issues) >= 4


def test_no_manifest_says_how_to_begin(tmp_path: Path) -> None:
    box = Box(tmp_path / "box", "")
    box.manifest.unlink()
    done = box.labsync("status")
    assert done.code == 6
    assert "labsync init" in done.messages


@pytest.mark.parametrize(
    "args", [("nonsense",), ("pull", "no-such-thing"), ("status", "--colour"), ("pull", "-j", "0")]
)
def test_a_wrong_command_line_is_usage(tmp_path: Path, args: tuple[str, ...]) -> None:
    done = Box(tmp_path / "box", HEAD).labsync(*args)
    assert done.code == 2
    assert "hint:" in done.stderr


def test_a_missing_lock_stops_sourced_artifacts_only(tmp_path: Path) -> None:
    (tmp_path / "origin.bin").write_bytes(b"x")
    box = Box(
        tmp_path / "box",
        HEAD + "models:\n  m: {origin: 'file:../origin.bin'}\nresults:\n  runs: {path: out}\n",
    )
    box.write("out/r", b"r")
    assert box.labsync("push").code == 0
    done = box.labsync("pull")
    assert done.code == 3
    assert "labsync lock" in done.messages
    assert box.labsync("lock", "--check").code == 3


def test_a_stale_lock_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "one.bin").write_bytes(b"one")
    (tmp_path / "two.bin").write_bytes(b"two")
    box = Box(tmp_path / "box", HEAD + "models:\n  m: {origin: 'file:../one.bin', path: m.bin}\n")
    assert box.labsync("lock").code == 0
    assert box.labsync("pull").code == 0
    box.manifest.write_text(box.manifest.read_text().replace("one", "two"))
    for command in (("pull",), ("lock", "--check"), ("bootstrap",)):
        done = box.labsync(*command)
        assert done.code == 3, command
        assert "stale" in done.messages or "labsync lock" in done.messages
    assert box.read("m.bin") == b"one"
    assert box.labsync("lock").code == 0
    assert box.labsync("pull").code == 0
    assert box.read("m.bin") == b"two"


def test_a_lock_from_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.bin").write_bytes(b"one")
    box = Box(tmp_path / "box", HEAD + "models:\n  m: {origin: 'file:../one.bin'}\n")
    assert box.labsync("lock").code == 0
    lock = box.root / "labsync.lock"
    first, *rest = lock.read_text().splitlines()
    lock.write_text("\n".join([json.dumps({**json.loads(first), "version": 99}), *rest]) + "\n")
    done = box.labsync("pull")
    assert done.code == 3
    assert "newer" in done.messages


def test_a_missing_origin_and_a_404_are_not_found(tmp_path: Path) -> None:
    with Hub() as hub:
        hub.add_repo("models", "org/tiny", {"config.json": b"{}"})
        text = HEAD + (
            "models:\n"
            "  gone: {origin: 'file:../not-there.bin'}\n"
            "  absent: {origin: hf://org/absent}\n"
            "  fine: {origin: hf://org/tiny, path: models/fine}\n"
        )
        box = Box(tmp_path / "box", text, {"HF_ENDPOINT": hub.url})
        locked = box.labsync("lock")
        assert locked.code == 6
        # The others are locked all the same, and only what is unresolved fails.
        pulled = box.labsync("pull")
        assert pulled.code == 6
        assert box.read("models/fine/config.json") == b"{}"
        assert {error["artifact"] for error in pulled.errors} == {"models/gone", "models/absent"}


@pytest.mark.fault(59)
def test_a_gated_model_is_not_allowed_and_names_the_page(tmp_path: Path) -> None:
    with Hub() as hub:
        hub.add_repo("models", "meta/gated", {"config.json": b"{}"}, gated="manual")
        hub.add_repo("models", "org/tiny", {"config.json": b"{}"})
        text = (
            HEAD + "models:\n  g: {origin: hf://meta/gated}\n  t: {origin: hf://org/tiny, path: models/t}\n"
        )
        box = Box(tmp_path / "box", text, {"HF_ENDPOINT": hub.url})
        locked = box.labsync("lock")
        assert locked.code == 7
        assert "meta/gated" in locked.messages
        booted = box.labsync("bootstrap")
        assert booted.code == 7
        assert box.read("models/t/config.json") == b"{}"


@pytest.mark.fault(63)
def test_a_wrong_sha256_is_never_published(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"not nothing")
    text = (
        HEAD
        + f"checkpoints:\n  w: {{origin: 'file:../weights.bin', sha256: {SHA_OF_NOTHING}, path: w.bin}}\n"
    )
    box = Box(tmp_path / "box", text)
    assert box.labsync("lock").code == 0
    done = box.labsync("pull")
    assert done.code == 5
    assert not (box.root / "w.bin").exists()
    assert not any((tmp_path / "box" / ".labsync" / "mirror").rglob("*w.bin*"))


def test_a_mirror_without_conditional_writes_is_refused_unless_one_box_writes(tmp_path: Path) -> None:
    from tests.fakes.s3 import rclone_server

    with rclone_server(tmp_path / "store") as server:
        server.make_bucket("lab")
        mirror = "mirror: {{url: s3://lab/p, endpoint: '{}', region: us-east-1{}}}\n"
        text = HEAD + mirror + "results: {{runs: {{path: out}}}}\n"
        box = Box(tmp_path / "box", text.format(server.url, ""), server.env)
        box.write("out/x", b"x")
        refused = box.labsync("push")
        assert refused.code == 12
        assert "single_writer" in refused.messages
        alone = Box(tmp_path / "alone", text.format(server.url, ", single_writer: true"), server.env)
        alone.write("out/x", b"x")
        assert alone.labsync("push").code == 0


@pytest.mark.fault(22)
def test_an_unwritable_mirror_is_named_and_the_disk_is_served(tmp_path: Path) -> None:
    (tmp_path / "one.bin").write_bytes(b"one")
    (tmp_path / "mirror").write_bytes(b"a file where the mirror should be")
    text = HEAD + "mirror: ../mirror\nmodels:\n  m: {origin: 'file:../one.bin', path: m.bin}\n"
    box = Box(tmp_path / "box", text)
    assert box.labsync("lock").code == 0
    done = box.labsync("pull")
    assert done.code == 9
    assert "mirror" in done.messages


@pytest.mark.fault(19)
def test_a_disk_without_room_is_refused_before_the_first_byte(tmp_path: Path) -> None:
    (tmp_path / "one.bin").write_bytes(b"one")
    text = HEAD + "disk: {reserve: 0B}\nmodels:\n  m: {origin: 'file:../one.bin', path: m.bin}\n"
    box = Box(tmp_path / "box", text)
    assert box.labsync("lock").code == 0
    box.manifest.write_text(text.replace("0B", "900TB"))
    before = _files(box.root)
    done = box.labsync("pull")
    assert done.code == 9
    assert "reserve" in done.messages
    assert _files(box.root) == before
    assert box.labsync("lock", "--upgrade").code == 9
    assert _files(box.root) == before


@pytest.mark.fault(27)
def test_what_the_user_changed_is_kept_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "one.bin").write_bytes(b"one")
    box = Box(tmp_path / "box", HEAD + "models:\n  m: {origin: 'file:../one.bin', path: m.bin}\n")
    assert box.labsync("lock").code == 0
    assert box.labsync("pull").code == 0
    box.write("m.bin", b"mine now")
    assert box.labsync("pull").code == 11
    assert box.labsync("status").artifacts["models/m"]["disk"] == "modified"
    # Looking at it must not make it labsync's own.
    assert box.labsync("pull").code == 11
    assert box.read("m.bin") == b"mine now"
    assert box.labsync("pull", "--force").code == 0
    assert box.read("m.bin") == b"one"
    aside = [p.read_bytes() for p in (box.root / ".labsync/aside").rglob("*") if p.is_file()]
    assert aside == [b"mine now"]


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "one.bin").write_bytes(b"one")
    box = Box(
        tmp_path / "box",
        HEAD + "models:\n  m: {origin: 'file:../one.bin', path: m.bin}\nresults: {r: {path: out}}\n",
    )
    box.write("out/x", b"x")
    assert box.labsync("lock", "--dry-run").code == 0
    assert not (box.root / "labsync.lock").exists()
    assert box.labsync("lock").code == 0
    before = _files(box.root)
    planned = box.labsync("pull", "--dry-run")
    assert planned.code == 0
    assert [line["bytes"] for line in planned.lines if line["type"] == "action"] == [3]
    pushed = box.labsync("push", "--dry-run")
    assert pushed.code == 0
    assert [line["path"] for line in pushed.lines if line["type"] == "action"] == ["x"]
    assert _files(box.root) == before
