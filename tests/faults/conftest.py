"""The stage that is killed on: servers and a forking labsync."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.hub import Hub
from tests.fakes.s3 import ENV
from tests.fakes.strict_s3 import strict_server
from tests.fakes.zygote import zygote
from tests.faults.scenes import TINY, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def shared_stage(fast_disk: Path) -> Iterator[Stage]:
    said = fast_disk / "said"
    said.mkdir(exist_ok=True)
    with zygote(said) as forks, strict_server() as s3, Hub() as hub:
        hub.add_repo("models", "lab/tiny", TINY)
        yield Stage(fast_disk / "stage", forks, s3, hub)


@pytest.fixture
def stage(shared_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    return shared_stage
