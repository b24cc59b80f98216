"""The stage that is killed on: servers, a forking labsync, a folder in memory where there is one."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.hub import Hub
from tests.fakes.s3 import ENV
from tests.fakes.strict_s3 import strict_server
from tests.fakes.zygote import zygote
from tests.faults.scenes import TINY, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def fast_folder() -> Iterator[Path]:
    """Return a folder in memory where the system has one."""
    where = MEMORY if os.access(MEMORY, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="labsync-faults-", dir=where))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def shared_stage(fast_folder: Path) -> Iterator[Stage]:
    said = fast_folder / "said"
    said.mkdir(exist_ok=True)
    with zygote(said) as forks, strict_server() as s3, Hub() as hub:
        hub.add_repo("models", "lab/tiny", TINY)
        yield Stage(fast_folder / "stage", forks, s3, hub)


@pytest.fixture
def stage(shared_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    return shared_stage
