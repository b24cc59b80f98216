"""What a command was asked to do, and the few environment variables that labsync reads."""

from __future__ import annotations

import math
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_JOBS = 8


def never(question: str) -> bool:  # noqa: ARG001  the signature of a confirmation
    """Answer no: nobody is there to ask."""
    return False


@dataclass(frozen=True, slots=True)
class Options:
    """The options that all commands share.

    `offline` means no network at all (a directory mirror still works); `no_mirror` stops writing to
    the mirror, not reading; `bandwidth` is the most bytes per second that a run may move over the
    network; `confirm` asks the person and is only called when `yes` is false. Setting `stop` ends a
    transfer under way, as a signal would.
    """

    jobs: int = DEFAULT_JOBS
    force: bool = False
    offline: bool = False
    yes: bool = False
    dry_run: bool = False
    no_mirror: bool = False
    bandwidth: float = math.inf
    confirm: Callable[[str], bool] = never
    stop: threading.Event = field(default_factory=threading.Event)
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def agrees(self, question: str) -> bool:
        """Say whether the person wants this, asking only without `--yes`."""
        return self.yes or self.confirm(question)


def home_dir(env: Mapping[str, str]) -> Path:
    """Return the folder of labsync's environments and caches: `LABSYNC_HOME`, or `~/.labsync`."""
    if set_by_user := env.get("LABSYNC_HOME"):
        return Path(set_by_user).expanduser().absolute()
    return Path("~/.labsync").expanduser()
