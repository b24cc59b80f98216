"""The only caller of `subprocess`: children get a closed stdin, a limit, and are ended as a group."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from labsync.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

GRACE = 5.0


@dataclass(frozen=True, slots=True)
class Completed:
    """A child that has ended; a negative `returncode` is the signal that ended it.

    `timed_out` says that labsync ended it because its time was over.
    """

    returncode: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False

    @property
    def error_text(self) -> str:
        """The end of what the child wrote to stderr, at most 2,000 characters."""
        return self.stderr.decode("utf-8", "replace").strip()[-2000:]


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    stdout: BinaryIO | None = None,
    timeout: float | None = None,
) -> Completed:
    """Run a program in a process group of its own and return how it ended; never raises on failure.

    `env` is the whole environment, None means ours. Without `stdin` the child reads an empty one.
    With `stdout` its output goes to that file instead of into the value. After `timeout` seconds the
    group gets SIGTERM, then SIGKILL. Raises NotFoundError when the program does not exist.
    """
    try:
        child = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=None if env is None else dict(env),
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=stdout if stdout is not None else subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise NotFoundError(f"the program `{argv[0]}` was not found", hint=f"install `{argv[0]}`") from error
    with child:
        try:
            out, err = child.communicate(stdin or None, timeout=timeout)
        except subprocess.TimeoutExpired:
            out, err = _end(child)
            return Completed(child.returncode, out or b"", err or b"", timed_out=True)
        except BaseException:
            _end(child)
            raise
    return Completed(child.returncode, out or b"", err or b"")


def _end(child: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    for signum, grace in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signum)
        try:
            return child.communicate(timeout=grace)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("unreachable: the last wait has no limit")
