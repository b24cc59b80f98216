"""What must not be pushed: secrets by name, and files that a real process holds open."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from labsync.steps.writers import held_open, is_secret

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "path",
    [
        ".env", "sub/.env", ".env.local", ".aws/credentials", "deep/er/.aws/sso/cache/token.json",
        ".ssh/known_hosts", ".netrc", "tls/server.pem", "id_rsa", "keys/id_ed25519", ".git-credentials",
        ".git/config", "sub/.git/objects/pack/x", "credentials.json", "sub/credentials.json",
    ],
)  # fmt: skip
def test_secrets_are_known_by_name(path: str) -> None:
    assert is_secret(path)


@pytest.mark.parametrize(
    "path",
    [
        "metrics.json", "env", "environment.yaml", "my.env", "aws/notes.txt", "pem", "id_rsa.txt",
        ".gitignore",        "credentials.json.md", "git/config", ".awsome/x",
    ],
)  # fmt: skip
def test_other_files_are_not_taken_for_secrets(path: str) -> None:
    assert not is_secret(path)


HOLDER = "import sys; f = open(sys.argv[1], sys.argv[2]); print('open', flush=True); sys.stdin.read()"


def _hold(path: Path, mode: str) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    return child


@pytest.mark.parametrize(("mode", "held"), [("ab", True), ("r+b", True), ("w", True), ("rb", False)])
def test_a_file_is_held_by_the_process_that_writes_it(tmp_path: Path, mode: str, held: bool) -> None:
    busy, idle = tmp_path / "busy", tmp_path / "idle"
    busy.write_bytes(b"x")
    idle.write_bytes(b"x")
    with _hold(busy, mode) as child:
        found = held_open([busy, idle, tmp_path / "absent"])
        child.communicate()
    assert found == ({busy: child.pid} if held else {})
    assert held_open([busy, idle]) == {}


def test_a_writer_of_one_name_holds_every_name_of_the_file(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"x")
    os.link(first, second)
    with first.open("ab"):
        assert held_open([second, first]) == {first: os.getpid(), second: os.getpid()}


def test_a_writer_is_found_through_a_link_to_the_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with (tmp_path / "real" / "x").open("wb"):
        assert set(held_open([tmp_path / "link" / "x"])) == {tmp_path / "link" / "x"}


def test_without_proc_nothing_is_known(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb"):
        assert held_open([tmp_path / "x"], proc=tmp_path / "no-proc") == {}


def test_odd_entries_below_proc_are_passed_over(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"")
    proc = tmp_path / "proc"
    for pid, flags in {"12": "flags:\tnonsense\n", "13": "pos:\t0\n", "14": "flags:\t0100001\n"}.items():
        (proc / pid / "fd").mkdir(parents=True)
        (proc / pid / "fdinfo").mkdir()
        (proc / pid / "fd" / "3").symlink_to(target)
        (proc / pid / "fdinfo" / "3").write_text(flags)
    (proc / "self").mkdir()
    (proc / "15").mkdir()
    assert held_open([target], proc=proc) == {target: 14}
