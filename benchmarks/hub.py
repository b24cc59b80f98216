"""The project's test hub as a process of its own: `python -m benchmarks.hub FILE` prints its address.

It serves one model, `bench/model`, with one file of the given bytes, until its standard input ends.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "bench/model"
FILE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class RunningHub:
    """Where the hub answers, and the commit that it serves."""

    url: str
    commit: str


@contextlib.contextmanager
def serve_hub(file: Path) -> Iterator[RunningHub]:
    """Run the hub with that file, from the project's root."""
    argv = [sys.executable, "-m", "benchmarks.hub", str(file)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        url, commit = child.stdout.readline().split()
        try:
            yield RunningHub(url, commit)
        finally:
            child.kill()


def main(file: Path) -> None:
    """Serve until nobody holds the other end of standard input."""
    from tests.fakes.hub import Hub  # noqa: PLC0415  only the child needs it

    with Hub() as hub:
        commit = hub.add_repo("models", MODEL, {FILE: file.read_bytes(), "config.json": b"{}"})
        sys.stdout.write(f"{hub.url} {commit}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
