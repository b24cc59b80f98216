"""What every test may rely on: no credentials, no user's folders, no colour, plain English."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

FOREIGN = ("AWS_", "HF_", "HUGGING", "LABSYNC_", "TRANSFORMERS_", "JUPYTER_")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give each test a home of its own and none of the machine's settings; returns the home."""
    for name in os.environ:
        if name.startswith(FOREIGN):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    for name, folder in {
        "HOME": home,
        "LABSYNC_HOME": home / "labsync",
        "HF_HOME": home / "huggingface",
        "JUPYTER_DATA_DIR": home / "jupyter",
        "JUPYTER_RUNTIME_DIR": home / "jupyter-runtime",
        "XDG_CACHE_HOME": home / "cache",
    }.items():
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return home
