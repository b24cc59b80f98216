"""The quickstart as `make quickstart` runs it, compared with what the README says that it prints."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The part of a fresh clone that the quickstart uses."""
    folder = tmp_path_factory.mktemp("clone")
    ignored = shutil.ignore_patterns("origin", "lab", ".labsync", "*.lock", "labsync-report.*", "__pycache__")
    shutil.copytree(ROOT / "manifests", folder / "manifests", symlinks=True, ignore=ignored)
    return folder


def _steps() -> list[str]:
    """The commands of the Makefile's target, as they are."""
    recipe = re.search(r"^quickstart:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    return [line.strip() for line in recipe[1].splitlines()]


def _run(checkout: Path) -> str:
    home = checkout / "home"
    env = os.environ | {
        "HOME": str(home),
        "LABSYNC_HOME": str(home / ".labsync"),
        "HF_HOME": str(home / "hf"),
        "JUPYTER_DATA_DIR": str(home / "jupyter"),
    }
    output = ""
    for step in _steps():
        command = step.replace("$(BIN)", str(Path(sys.executable).parent))
        done = subprocess.run(
            command.split(), cwd=checkout, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        output += done.stdout
    return output


def _stable(text: str) -> list[str]:
    """Lines without what differs from machine to machine: times, folders, what random weights answer."""
    lines = [re.sub(r"\d+\.\d s", "", line) for line in text.splitlines()]
    lines = [re.sub(r"(pass .*cpu).*", r"\1", line) for line in lines]
    lines = [re.sub(r"(environment\s+\w+\s+\w+).*", r"\1", line) for line in lines]
    return [" ".join(line.split()) for line in lines if line.strip()]


@pytest.mark.timeout(600)  # it runs sixteen models, each in a process of its own
def test_the_quickstart_prints_what_the_readme_shows_and_then_has_nothing_to_do(checkout: Path) -> None:
    promised = re.search(r"^```\n(artifacts\n.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert promised
    first = _stable(_run(checkout))
    assert [line for line in _stable(promised[1]) if line not in first] == []
    assert (checkout / "manifests" / "labsync-report.json").exists()
    page = (checkout / "manifests" / "labsync-report.html").read_text("utf-8")
    assert "Every model ran: 8 of 8." in page
    assert page.count("data:image/png;base64,") == 7  # one's own function shows no picture

    again = _stable(_run(checkout))
    assert not [line for line in again if line.startswith("moved")]
    assert "environment quickstart reused" in again
