"""`docs/formats.md` and the README are compared with the code, so that neither can drift."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import get_args

import click
import pytest

from labsync import report, run_record
from labsync.cli.app import program
from labsync.errors import ExitCode
from labsync.manifest.parse import parse_manifest
from labsync.manifest.schema import PROFILES as MANIFEST_PROFILES
from labsync.render.json import item_type
from labsync.session.profiles import PROFILES
from labsync.steps import outcome

ROOT = Path(__file__).parent.parent
FORMATS = (ROOT / "docs" / "formats.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
GUARD = (ROOT / "docs" / "guard.md").read_text("utf-8")


def _row(first: str) -> list[str]:
    match = re.search(rf"^\| {re.escape(first)} \|(.*)\|$", FORMATS, re.MULTILINE)
    assert match, f"docs/formats.md has no row `{first}`"
    return re.findall(r"`([^`]+)`", match[1])


def _fields(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


@pytest.mark.parametrize("item", get_args(outcome.Item), ids=lambda item: str(item.__name__))
def test_each_data_line_is_documented(item: type) -> None:
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", item.__name__).lower()
    assert _row(f"`{name}`") == _fields(item)


def test_item_type_is_the_documented_name() -> None:
    assert item_type(outcome.SnapshotLine("a", "b", "", "", 0, 0, "")) == "snapshot_line"


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("`report`", report.Report),
        ("`artifacts`", report.ArtifactReport),
        ("`transferred`", report.Transferred),
        ("`mirror_requests`", report.MirrorRequests),
        ("`environment`, `kernel`", report.Built),
        ("`smoke`", report.SmokeResult),
        ("`best`", report.Share),
        ("`spans`", run_record.Span),
        ("`disk`", run_record.DiskReport),
        ("`uses`", run_record.DiskUse),
        ("`machine`", run_record.MachineReport),
        ("`earlier`", run_record.Earlier),
        ("`skipped`", report.Skipped),
        ("`errors`", report.ErrorReport),
    ],
)
def test_the_report_is_documented(row: str, kind: type) -> None:
    assert _row(row) == _fields(kind)


def test_the_run_in_the_report_is_documented() -> None:
    assert _row("`run`") == [name for name in _fields(run_record.RunRecord) if name != "report"]


@pytest.mark.parametrize("literal", [report.DiskState, report.MirrorState, report.SmokeOutcome])
def test_each_state_is_documented(literal: object) -> None:
    for state in get_args(literal):
        assert f"`{state}`" in FORMATS


def test_exit_codes_are_documented() -> None:
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", FORMATS, re.MULTILINE)
    assert [(int(code), name) for code, name in rows] == [(int(code), code.name) for code in ExitCode]


def test_readme_names_every_exit_code() -> None:
    for code in ExitCode:
        assert re.search(rf"^\| {int(code)} \|", README, re.MULTILINE), code


def _commands(group: click.Group, prefix: str) -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            found += _commands(command, f"{prefix} {name}")
        else:
            found.append((f"{prefix} {name}", command))
    return found


@pytest.mark.parametrize(("name", "command"), _commands(program, "labsync"))
def test_every_command_and_option_is_documented(name: str, command: click.Command) -> None:
    assert f"`{name}" in README, f"the README does not mention `{name}`"
    assert command.help, f"{name} has no help"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.name} has no help"
            longest = max(parameter.opts, key=len)
            assert f"`{longest}" in README or f"/{longest}" in README, (
                f"the README does not mention {longest}"
            )


def test_design_names_real_modules() -> None:
    design = (ROOT / "docs" / "design.md").read_text("utf-8")
    for name in re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", design):
        assert (ROOT / "src" / "labsync" / name).exists() or (ROOT / name).exists(), name


def _blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_readmes_manifest_is_a_manifest() -> None:
    (text,) = _blocks("yaml")
    manifest = parse_manifest(text, Path("/lab/labsync.yaml"))
    assert len(manifest.artifacts) == 6


def _command_lines() -> list[str]:
    blocks = [*_blocks("sh"), *_blocks("sh", GUARD)]
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line.partition("labsync ")[2] for line in lines if re.match(r"(\S*/)?labsync ", line)]


@pytest.mark.parametrize("line", _command_lines())
def test_each_command_in_the_docs_is_understood(line: str) -> None:
    words = line.split()
    command: click.Command = program
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    parent = click.Context(program, info_name="labsync", help_option_names=["-h", "--help"])
    command.make_context(command.name or "", words, parent=parent).close()


def test_the_make_targets_in_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for block in _blocks("sh"):
        for target in re.findall(r"^make (\w+)$", block, re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_each_profile_is_documented() -> None:
    for name in PROFILES:
        assert f"`{name}`" in GUARD, f"docs/guard.md has no profile {name}"
    assert set(PROFILES) == set(MANIFEST_PROFILES) - {"auto"}
