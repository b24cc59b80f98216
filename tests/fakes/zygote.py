"""A process that has imported labsync and forks one real labsync process per command.

Starting Python and importing takes half a second, a fork a few milliseconds; the processes are as real,
and can be killed in front of any step of theirs.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.fakes.box import Box, Run
from tests.fakes.canaries import assert_hidden

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.fakes.effects import Step

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Kill:
    """Kill the process with SIGKILL in front of the `count`-th step of this name (from 1).

    With an empty name any step counts. `torn` lets half of a write go out first. With `after` it is
    killed that many seconds after its start instead, wherever it is then.
    """

    name: str = ""
    count: int = 1
    torn: bool = False
    after: float = 0.0


@dataclass(frozen=True)
class Ended:
    """How a process ended, and its steps in order."""

    run: Run
    steps: list[str]

    @property
    def killed(self) -> bool:
        return self.run.code == -signal.SIGKILL


@dataclass(frozen=True)
class _Order:
    args: list[str]
    folder: str
    env: dict[str, str]
    out: str
    kill: dict[str, Any] | None = None
    unset: list[str] = field(default_factory=list)


class Zygote:
    """The forking process; use it as a context manager (`zygote`)."""

    def __init__(self, process: subprocess.Popen[str], out: Path) -> None:
        self._process = process
        self._out = out

    def run(self, box: Box, *args: str, kill: Kill | None = None) -> Ended:
        """Run one command in a box to its end."""
        env = {**os.environ, **box.env}
        order = _Order([*args, "--json"], str(box.root), env, str(self._out), asdict(kill) if kill else None)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        code = os.waitstatus_to_exitcode(status)
        err = (self._out / "stderr").read_text("utf-8")
        assert_hidden((self._out / "stdout").read_text("utf-8") + err)
        lines = (self._out / "stdout").read_text("utf-8").splitlines()
        run = Run(
            code,
            [json.loads(line) for line in lines if line.endswith("}")],
            err,
        )
        return Ended(run, (self._out / "steps").read_text("utf-8").splitlines())


@contextlib.contextmanager
def zygote(out: Path) -> Iterator[Zygote]:
    """Start the forking process; what its children say goes to files in the folder `out`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.zygote"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Zygote(process, out)
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait()


def _serve() -> None:
    for module in pkgutil.walk_packages(importlib.import_module("labsync").__path__, "labsync."):
        if ".smoke.probes" not in module.name and "__main__" not in module.name:
            importlib.import_module(module.name)
    for name in ("huggingface_hub", "urllib3", "zstandard", "fsspec", "tests.fakes.effects"):
        importlib.import_module(name)
    for line in sys.stdin:
        order = _Order(**json.loads(line))
        child = os.fork()
        if not child:
            _live(order)
        if order.kill and order.kill["after"]:
            time.sleep(order.kill["after"])
            os.kill(child, signal.SIGKILL)  # a zombie takes it, too
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


def _live(order: _Order) -> None:
    """Be a labsync process to the end."""
    from labsync.cli.app import run
    from tests.fakes.effects import watched

    out = Path(order.out)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(out / name, flags), descriptor)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    log = os.open(out / "steps", flags | os.O_APPEND)
    os.environ.clear()
    os.environ.update(order.env)
    os.chdir(order.folder)
    code = 1
    with contextlib.suppress(BaseException), watched(_killer(log, order.kill)):
        code = run(order.args)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _killer(log: int, kill: Mapping[str, Any] | None) -> Callable[[Step, Callable[[], Any]], Any]:
    write, counts = os.write, Counter[str]()
    target = Kill(**kill) if kill and not kill["after"] else None

    def watch(step: Step, call: Callable[[], Any]) -> Any:
        write(log, f"{step.name}\n".encode())
        key = step.name if target and target.name else ""
        counts[key] += 1
        if target and (key, counts[key]) == (target.name, target.count):
            if target.torn and step.op in {"write", "pwrite"}:
                data = memoryview(step.args[1])
                os.pwrite(step.args[0], data[: len(data) // 2], step.args[2]) if step.op == "pwrite" else (
                    write(step.args[0], data[: len(data) // 2])
                )
            os.kill(os.getpid(), signal.SIGKILL)
        return call()

    return watch


if __name__ == "__main__":
    _serve()
