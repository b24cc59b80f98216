"""labsync beside `hf download`, from the project's test hub."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from benchmarks import data
from benchmarks.hub import FILE, MODEL, serve_hub
from benchmarks.labs import make_hub_lab, told
from benchmarks.measure import Command
from benchmarks.rounds import Bench, Contender, Job, Told

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.hub import RunningHub
    from benchmarks.measure import Measured


@contextlib.contextmanager
def hub(bench: Bench, folder: Path) -> Iterator[Sequence[Contender]]:
    """Download a model into the Hugging Face cache, by plain HTTP."""
    source = folder / FILE
    data.make_file(source, bench.sizes.one)
    content = data.content(source)
    with serve_hub(source) as running:
        data.remove(source)  # the hub has it in memory
        locking = make_hub_lab(bench, folder / "locked", running.url)
        locking.run("lock", "--yes")

        def ours(place: Path) -> Job:
            lab = make_hub_lab(bench, place, running.url, locking.folder / "labsync.lock")

            def check(measured: Measured) -> Told:
                content.expect(_blob(place, running))
                return told(measured)

            return Job(lab.command("pull", "--yes"), (), check)

        def theirs(place: Path) -> Job:
            env = {
                **bench.env,
                "HF_ENDPOINT": running.url,
                "HF_HOME": str(place / "huggingface"),
                "HF_HUB_DISABLE_XET": "1",
            }
            argv = (bench.tools.hf, "download", MODEL)
            return Job(Command(argv, place, env), (), lambda _: content.expect(_blob(place, running)))

        yield Contender("labsync", ours), Contender("hf download", theirs)


def _blob(place: Path, running: RunningHub) -> Path:
    """Return where the Hugging Face cache keeps the model's file."""
    model = place / "huggingface" / "hub" / f"models--{MODEL.replace('/', '--')}"
    return model / "snapshots" / running.commit / FILE
