"""`history: true`: a library is a real checkout, restored from the mirror when its origin is gone."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from labsync.errors import IntegrityError
from labsync.origins.git_history import History
from tests.fakes.box import Box
from tests.fakes.git_server import GitRepo

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = """
version: 1
project: past
mirror: ../mirror
libraries:
  tool: {origin: 'git+file:../origin@main', history: true}
"""


@pytest.fixture
def origin(tmp_path: Path) -> GitRepo:
    repo = GitRepo(tmp_path / "origin")
    repo.commit({"a.py": b"a = 1\n"})
    (repo.folder / "link.py").symlink_to("a.py")
    repo.commit({"a.py": b"a = 2\n", "run.sh": b"true\n"}, executable=["run.sh"])
    return repo


@pytest.fixture
def box(tmp_path: Path, origin: GitRepo) -> Box:
    box = Box(tmp_path / "box", MANIFEST)
    assert box.labsync("lock").code == 0
    return box


def _git(box: Box, *words: str) -> str:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    argv = [
        "git",
        "-C",
        str(box.root / "libraries/tool"),
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        *words,
    ]
    return subprocess.run(argv, env=env, capture_output=True, check=True, text=True).stdout.strip()


def _other_box(tmp_path: Path, box: Box) -> Box:
    other = Box(tmp_path / "other", box.manifest.read_text())
    shutil.copy(box.root / "labsync.lock", other.root)
    return other


def test_a_pull_makes_a_checkout_that_git_finds_clean(box: Box, origin: GitRepo) -> None:
    assert box.labsync("pull").code == 0
    assert _git(box, "rev-parse", "HEAD") == origin.git("rev-parse", "HEAD")
    assert _git(box, "log", "--format=%H") == origin.git("log", "--format=%H")
    assert _git(box, "status", "--porcelain") == ""
    assert _git(box, "remote", "get-url", "origin").endswith("/origin")
    assert not list((box.root / ".labsync").glob("history/*"))
    assert not list((box.root / ".labsync/stage").iterdir())


def test_with_nothing_to_do_no_git_runs_and_one_request_is_sent(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.labsync("pull")
    box.labsync("pull")  # which reads the index that the first one wrote
    monkeypatch.setenv("PATH", "")
    done = box.labsync("pull")
    assert (done.code, done.requests, done.transferred["bytes"]) == (0, {"LIST": 1}, 0)
    assert box.labsync("status").artifacts["libraries/tool"]["disk"] == "ok"


def test_another_box_restores_it_from_the_bundle_when_the_origin_is_gone(
    tmp_path: Path, box: Box, origin: GitRepo
) -> None:
    box.labsync("pull")
    log = origin.git("log", "--format=%H")
    shutil.rmtree(origin.folder)
    other = _other_box(tmp_path, box)
    done = other.labsync("pull")
    assert (done.code, done.transferred["from_origin"]) == (0, 0)
    assert _git(other, "log", "--format=%H") == log
    assert _git(other, "status", "--porcelain") == ""


def test_mirror_stores_the_bundle_past_the_disk(tmp_path: Path, box: Box, origin: GitRepo) -> None:
    assert box.labsync("mirror").code == 0
    assert not (box.root / "libraries").exists()
    shutil.rmtree(origin.folder)
    assert _other_box(tmp_path, box).labsync("pull").code == 0


def test_a_bundle_that_the_mirror_lost_is_made_again_from_the_origin(
    tmp_path: Path, box: Box, origin: GitRepo
) -> None:
    box.labsync("pull")
    (stored,) = (tmp_path / "mirror/libraries/tool.history").rglob("pack-*.tar")
    stored.unlink()
    other = _other_box(tmp_path, box)
    assert other.labsync("pull").code == 0
    assert _git(other, "status", "--porcelain") == ""
    shutil.rmtree(origin.folder)
    shutil.rmtree(other.root / "libraries")
    assert other.labsync("pull").code == 0, "the mirror has a bundle again"


def test_an_upgraded_lock_moves_the_checkout_on(box: Box, origin: GitRepo) -> None:
    box.labsync("pull")
    newer = origin.commit({"a.py": b"a = 3\n"})
    box.labsync("lock", "--upgrade")
    assert box.labsync("pull").code == 0
    assert (_git(box, "rev-parse", "HEAD"), _git(box, "status", "--porcelain")) == (newer, "")


def test_a_branch_of_the_users_own_stays_checked_out(box: Box, origin: GitRepo) -> None:
    box.labsync("pull")
    _git(box, "checkout", "--quiet", "-b", "mine")
    box.write("libraries/tool/mine.py", b"mine = 1\n")
    _git(box, "add", "mine.py")
    _git(box, "commit", "--quiet", "--message", "mine")
    newer = origin.commit({"b.py": b"b = 1\n"})
    box.labsync("lock", "--upgrade")
    assert box.labsync("pull").code == 0
    assert _git(box, "rev-parse", "--abbrev-ref", "HEAD") == "mine"
    assert _git(box, "cat-file", "-t", newer) == "commit"


def test_status_misses_a_history_and_pull_brings_it_back(box: Box) -> None:
    box.labsync("pull")
    shutil.rmtree(box.root / "libraries/tool/.git")
    found = box.labsync("status").artifacts["libraries/tool"]
    assert (found["disk"], found["reason"]) == ("incomplete", "its history is not here")
    assert box.labsync("pull").code == 0
    assert box.labsync("status").code == 0


def test_verify_finds_a_damaged_object_and_repair_makes_the_repository_anew(box: Box) -> None:
    box.labsync("pull")
    name = _git(box, "rev-parse", "HEAD:a.py")
    blob = box.root / f"libraries/tool/.git/objects/{name[:2]}/{name[2:]}"
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:-1])
    done = box.labsync("verify")
    assert (done.code, done.errors[0]["artifact"]) == (5, "libraries/tool")
    assert "--repair" in done.errors[0]["hint"]
    assert box.labsync("verify", "--repair").code == 0
    assert box.labsync("verify").code == 0
    assert list((box.root / ".labsync/aside").rglob(".git")), "what was damaged is kept"


@pytest.mark.parametrize("options", [(), ("--repair",)])
def test_a_machine_without_git_says_nothing_about_a_history(
    box: Box, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    box.labsync("pull")
    monkeypatch.setenv("PATH", "")
    done = box.labsync("verify", *options)
    assert done.code == 6, done.messages
    assert "install `git`" in done.messages
    monkeypatch.undo()
    assert _git(box, "status", "--porcelain") == ""
    assert not (box.root / ".labsync/aside").exists()


@pytest.mark.parametrize("length", [30, -1, -30])
def test_a_bundle_that_was_cut_is_refused(tmp_path: Path, origin: GitRepo, length: int) -> None:
    history = History.of(f"git+file:{origin.folder}", origin.git("rev-parse", "HEAD"))
    history.fetch(tmp_path / "whole.git")
    bundle = tmp_path / "cut.bundle"
    history.bundle(tmp_path / "whole.git", bundle)
    bundle.write_bytes(bundle.read_bytes()[:length])
    with pytest.raises(IntegrityError, match="bundle"):
        history.unbundle(bundle, tmp_path / "back.git")
    assert not history.is_in(tmp_path / "back.git")


def test_what_a_killed_run_left_of_a_repository_is_made_anew(box: Box) -> None:
    left = box.root / ".labsync/stage/tool.git"
    left.mkdir(parents=True)
    (left / "HEAD").write_text("ref: refs/heads/half\n")
    assert box.labsync("pull").code == 0
    assert _git(box, "status", "--porcelain") == ""
    assert not left.exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("tool: {origin: 'https://x/y.zip', history: true}", "belongs to libraries from `git+"),
        ("tool: {origin: 'git+file:../o', history: true, include: ['*.py']}", "needs the whole tree"),
        ("tool.history: {origin: 'git+file:../o'}", "must not end in `.history`"),
    ],
)
def test_the_manifest_says_what_does_not_go_together(tmp_path: Path, line: str, said: str) -> None:
    box = Box(tmp_path / "box", f"version: 1\nproject: past\nlibraries:\n  {line}\n")
    done = box.labsync("lock")
    assert done.code == 3
    assert said in done.messages
