"""labsync alone: how plan and status grow with the number of files."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from benchmarks import data
from benchmarks.labs import make_lab, make_origin, told
from benchmarks.rounds import Bench, Contender, Job
from benchmarks.workloads import TINY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.labs import Lab


@contextlib.contextmanager
def growth(bench: Bench, folder: Path) -> Iterator[Sequence[Contender]]:
    """Ask for the status of a whole lab, and for the plan of an empty one."""
    contenders: list[Contender] = []
    for count in bench.sizes.growth:
        here = folder / str(count)
        data.make_files(here / "many", count, *TINY)
        origin = make_origin(here / "many", here)
        whole = make_lab(bench, here / "whole", origin, None, filled=True)
        whole.run("status")  # hashes every file, once
        empty = make_lab(bench, here / "empty", origin, None)
        contenders += [
            _contender(f"labsync status, {count:,} files", whole, "status"),
            _contender(f"labsync pull --dry-run, {count:,} files", empty, "pull", "--dry-run"),
        ]
    yield contenders


def _contender(name: str, lab: Lab, *args: str) -> Contender:
    return Contender(name, lambda _: Job(lab.command(*args), (), told))
