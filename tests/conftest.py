"""What every test may rely on: no credentials, no user's folders, no colour, plain English."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes import canaries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.channel import Channel

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


RAM_DISK = Path("/dev/shm")


@pytest.fixture(scope="session")
def fast_disk() -> Iterator[Path]:
    """A folder on the RAM disk where there is one: environments are thousands of small files."""
    parent = RAM_DISK if os.access(RAM_DISK, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="labsync-tests-", dir=parent))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def fast_path(fast_disk: Path) -> Iterator[Path]:
    """A folder of one's own there, gone after the test."""
    folder = Path(tempfile.mkdtemp(dir=fast_disk))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def channel(fast_disk: Path) -> Channel:
    """The shared channel of conda packages; who damages it takes a copy."""
    from tests.fakes.channel import make_channel

    return make_channel(fast_disk / "channel")


@pytest.fixture(autouse=True)
def no_secret_is_written_down() -> Iterator[None]:
    """Look for the secrets that the tests work with in whatever labsync wrote about its work."""
    canaries.OPENED.clear()
    yield
    for root in canaries.OPENED:
        canaries.assert_none_below(root)
