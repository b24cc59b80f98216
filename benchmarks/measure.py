"""Run one command and say what it cost: wall and CPU seconds, peak memory."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

LIMIT = 900.0  # seconds: only a tool that hangs needs them
TAIL = 1 << 20


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, where, with which whole environment."""

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Measured:
    """How a command ended and what it cost, its children included; `rss` in bytes; outputs are tails.

    The kernel counts the memory of the process that started it as the least: `rss` below that of the
    benchmark itself is not seen.
    """

    code: int
    wall: float
    cpu: float
    rss: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Kill:
    """`when` a command is to be killed, and what to look `at` while it stands still just before that."""

    when: threading.Event = field(default_factory=threading.Event)
    at: Callable[[], None] = lambda: None


def measure(command: Command, kill: Kill | None = None) -> Measured:
    """Run a command to its end, or to the end that `kill` or LIMIT makes for it and its children."""
    kill = kill or Kill()
    ended = threading.Event()
    with tempfile.TemporaryFile(dir=command.cwd) as out, tempfile.TemporaryFile(dir=command.cwd) as err:
        begin = time.perf_counter()
        child = subprocess.Popen(
            command.argv,
            cwd=command.cwd,
            env=dict(command.env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        killer = threading.Thread(target=_kill_on, args=(kill, ended, child.pid))
        killer.start()
        try:
            _, status, usage = os.wait4(child.pid, 0)
        finally:
            wall = time.perf_counter() - begin
            ended.set()
            kill.when.set()
            killer.join()
        child.returncode = os.waitstatus_to_exitcode(status)
        return Measured(
            child.returncode,
            wall,
            usage.ru_utime + usage.ru_stime,
            usage.ru_maxrss * 1024,
            _tail(out),
            _tail(err),
        )


def _kill_on(kill: Kill, ended: threading.Event, pid: int) -> None:
    kill.when.wait(LIMIT)
    if not ended.is_set():  # else the number may be another's by now
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGSTOP)
            kill.at()
            os.killpg(pid, signal.SIGKILL)


def _tail(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - TAIL))
    return file.read().decode("utf-8", "replace")
