"""The command line: what every command takes, how it ends, what is on stdout, what it imports."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from labsync import errors
from labsync.cli import app, commands
from labsync.cli.app import run
from labsync.report import Report
from labsync.steps.outcome import Outcome
from tests.fakes.box import Box

if TYPE_CHECKING:
    from pathlib import Path

    from labsync.steps.lab import Lab

MANIFEST = """
version: 1
project: cli
groups: {vision: [sam, pictures]}
checkpoints:
  sam: {origin: "https://example.invalid/sam.pth", path: sam.pth}
datasets:
  pictures: {origin: "hf://datasets/org/pictures", path: pictures}
results:
  runs: {path: outputs}
"""


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "box", MANIFEST)


def _commands() -> list[tuple[str, click.Command]]:
    found = []
    for command in commands.ALL:
        if isinstance(command, click.Group):
            found += [(f"{command.name} {name}", sub) for name, sub in command.commands.items()]
        else:
            found.append((str(command.name), command))
    return found


OPTIONS = {
    "-m", "--manifest", "--json", "--dry-run", "-j", "--jobs", "-q", "--quiet", "-v", "--verbose", "--force",
    "--offline", "-y", "--yes",
}  # fmt: skip


@pytest.mark.parametrize(("name", "command"), _commands())
def test_every_command_takes_the_common_options(name: str, command: click.Command) -> None:
    taken = {option for parameter in command.params for option in parameter.opts}
    assert taken >= OPTIONS, name


@pytest.mark.parametrize(("name", "command"), _commands())
def test_every_command_explains_itself(name: str, command: click.Command) -> None:
    shown = CliRunner().invoke(app.program, [*name.split(), "-h"])
    assert shown.exit_code == 0
    assert command.help is not None
    assert command.help.splitlines()[0] in " ".join(shown.output.split())


def test_common_options_stand_after_the_command_in_any_order(box: Box) -> None:
    ended = box.labsync(
        "path",
        "results",
        "-q",
        "-v",
        "--yes",
        "--offline",
        "--force",
        "--dry-run",
        "-j",
        "3",
        "-m",
        str(box.manifest),
    )
    assert ended.code == 0
    assert ended.lines[0]["location"] == str(box.root / "outputs")


@pytest.mark.parametrize(
    "args",
    [
        ["nonsense"], ["pull", "--nonsense"], ["pull", "no-such-artifact"], ["pull", "-j", "0"],
        ["pull", "-j", "many"], ["env"], ["env", "nonsense"], ["status", "runs@012345"],
        ["pull", "sam@012345"], ["init", "--template", "x"], ["mirror", "--offline", "--jobs="],
        ["pull", "--bwlimit", "fast"], ["pull", "--bwlimit", "10"], ["push", "--bwlimit", "0B"],
        ["status", "--bwlimit", "1MiB"], ["verify", "--bwlimit", "-1MiB"],
    ],
)  # fmt: skip
def test_usage_errors_are_2_and_end_with_a_report(box: Box, args: list[str]) -> None:
    ended = box.labsync(*args)
    assert ended.code == 2, ended.stderr
    assert ended.report["type"] == "report"
    assert ended.report["exit_code"] == 2
    assert len(ended.lines) == 1
    shown = ended.stderr.splitlines()
    assert shown[0].startswith("error: ")
    assert not shown[0].endswith(".")
    assert shown[0][7:8] == shown[0][7:8].lower()
    assert any(line.startswith("hint: ") for line in shown)


TRANSFER = ("bootstrap", "lock", "mirror", "pull", "push", "smoke", "verify")
GUARDED = ("guard run", "guard start", "up")
ENVIRONMENT = ("env archive", "env restore")


def test_commands_that_transfer_take_a_limit() -> None:
    limited = {n for n, command in _commands() for p in command.params if "--bwlimit" in p.opts}
    assert limited == {*TRANSFER, *GUARDED, *ENVIRONMENT}


@pytest.mark.parametrize("name", TRANSFER)
@pytest.mark.parametrize(
    ("args", "rate"), [([], math.inf), (["--bwlimit", "10MiB"], 10 << 20), (["--bwlimit=1.5MB"], 1.5e6)]
)
def test_the_limit_reaches_the_workflow(
    box: Box, monkeypatch: pytest.MonkeyPatch, name: str, args: list[str], rate: float
) -> None:
    seen: list[float] = []

    def takes(lab: Lab, *_: object, **__: object) -> Outcome:
        seen.append(lab.options.bandwidth)
        return Outcome(Report())

    monkeypatch.setattr(f"labsync.workflow.{name}", takes)
    assert box.labsync(name, *args).code == 0
    assert seen == [rate]


def test_a_wrong_rate_is_explained(box: Box) -> None:
    ended = box.labsync("pull", "--bwlimit", "10")
    assert [error["message"] for error in ended.errors] == ["`--bwlimit 10` is not a rate"]
    assert "10MiB" in ended.errors[0]["hint"]


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["pull", "sam"], 3),
        (["lock", "--check"], 3),
        (["status", "-m", "absent.yaml"], 6),
        (["init", "."], 12),
        (["env", "build"], 2),
        (["log", "runs"], 0),
        (["status", "runs"], 0),
        (["du"], 0),
    ],
)
def test_every_end_is_a_report_with_the_exit_code(box: Box, args: list[str], code: int) -> None:
    ended = box.labsync(*args)
    assert ended.code == code, ended.messages
    assert [line["type"] for line in ended.lines].count("report") == 1
    assert ended.report["type"] == "report"
    assert ended.report["exit_code"] == code


def test_without_json_stdout_has_the_data_and_stderr_the_rest(
    box: Box, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(box.root)
    assert run(["path", "runs"]) == 0
    assert capfd.readouterr() == (f"{box.root}/outputs\n", "")
    assert run(["pull", "sam", "-q"]) == 3
    out, err = capfd.readouterr()
    assert out.startswith("artifacts\n")
    assert err.startswith("error: ")


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_help(args: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(args) == 0
    out, err = capfd.readouterr()
    assert out.startswith("Usage: labsync ")
    assert err == ""
    assert all(str(command.name) in out for command in commands.ALL)


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    from labsync import __version__

    assert run(["--version"]) == 0
    assert __version__ in capfd.readouterr().out


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (errors.DiskError("no space left"), 9),
        (errors.LockedError("process 1 is working"), 10),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (errors.InterruptedRunError("the run was stopped"), 130),
        (RuntimeError("oops"), 1),
        (EOFError("a bug, not an interruption"), 1),
        (AssertionError("oops"), 1),
        (OSError(5, "oops"), 1),
    ],
)
def test_whatever_is_raised_ends_with_its_code_and_a_report(
    box: Box, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int
) -> None:
    def broken(*_: object) -> Outcome:
        raise raised

    monkeypatch.setattr("labsync.workflow.du", broken)
    ended = box.labsync("du")
    assert ended.code == code
    assert ended.report["exit_code"] == code
    assert [error["code"] for error in ended.errors] == [code]
    assert ("Traceback" in ended.stderr) == (code == 1)
    assert ended.errors[0]["message"]


def test_the_exit_code_is_the_reports(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labsync.workflow.du", lambda *_: Outcome(Report(exit_code=4)))
    assert box.labsync("du").code == 4


def _complete(box: Box, words: str, shell: str = "bash") -> list[str]:
    env = {**os.environ, **box.env, "_LABSYNC_COMPLETE": f"{shell}_complete"}
    env |= {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    ended = subprocess.run(
        [sys.executable, "-m", "labsync"], cwd=box.root, env=env, capture_output=True, text=True, check=True
    )
    assert ended.stderr == ""
    return [line.partition(",")[2] for line in ended.stdout.splitlines() if line]


def test_completion_knows_the_manifests_names(box: Box) -> None:
    assert _complete(box, "labsync pull s") == ["sam"]
    assert _complete(box, "labsync pull ") == [
        "checkpoints", "checkpoints/sam", "datasets", "datasets/pictures", "pictures", "results",
        "results/runs", "runs", "sam", "vision",
    ]  # fmt: skip
    assert _complete(box, "labsync pu") == ["pull", "push"]


def test_completion_without_a_manifest_is_silent(tmp_path: Path) -> None:
    box = Box(tmp_path / "box", "version: 99\n")
    assert _complete(box, "labsync pull s") == []
    box.manifest.unlink()
    assert _complete(box, "labsync pull s") == []


def test_completion_scripts_are_written_for_each_shell(box: Box) -> None:
    for shell in ("bash", "zsh", "fish"):
        env = {**os.environ, **box.env, "_LABSYNC_COMPLETE": f"{shell}_source"}
        argv = [sys.executable, "-m", "labsync"]
        ended = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        assert "_LABSYNC_COMPLETE" in ended.stdout


HEAVY = {
    "boto3",
    "botocore",
    "huggingface_hub",
    "torch",
    "transformers",
    "fsspec",
    "jupyter_client",
    "httpx",
    "requests",
}
IMPORTS = """
import json, sys
from labsync.cli.app import run
code = run(sys.argv[1:])
print(json.dumps([code, sorted(name for name in sys.modules if "." not in name)]), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("args", "code"),
    [(["--help"], 0), (["status", "results"], 0), (["status"], 3), (["push"], 0), (["log"], 0)],
)
def test_commands_on_a_directory_mirror_import_nothing_heavy(box: Box, args: list[str], code: int) -> None:
    box.write("outputs/x", b"x")
    ended = subprocess.run(
        [sys.executable, "-c", IMPORTS, *args],
        cwd=box.root,
        env={**os.environ, **box.env},
        capture_output=True,
        text=True,
        check=True,
    )
    ended_with, modules = json.loads(ended.stderr.splitlines()[-1])
    assert ended_with == code, ended.stderr
    assert HEAVY.isdisjoint(modules)
    if args == ["--help"]:
        assert {"sqlite3", "yaml", "tqdm"}.isdisjoint(modules)


def test_questions_are_answered_for_every_artifact_that_has_an_answer(box: Box) -> None:
    text = MANIFEST.replace(", path: pictures", "")  # now in the Hugging Face cache, which needs the lock
    box.manifest.write_text(text)
    asked = box.labsync("path")
    assert asked.code == 3
    assert [line["artifact"] for line in asked.lines[:-1]] == ["checkpoints/sam", "results/runs"]
    assert [error["artifact"] for error in asked.errors] == ["datasets/pictures"]
    box.write("outputs/x", b"x")
    assert box.labsync("push").code == 0
    asked = box.labsync("url", "runs", "sam")
    assert [line["artifact"] for line in asked.lines[:-1]] == ["results/runs"]
    assert asked.lines[0]["location"].startswith(f"file://{box.root}/.labsync/mirror/results/runs/")
