"""Asking the trainer to save: a signal to a process, a file that appears, or a command."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsync import process
from labsync.errors import LabsyncError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

FORMS = "`signal:USR1:PID`, `file:PATH` or `command:…`"
_SIGNAL = re.compile(r"(?:SIG)?(?P<name>[A-Z0-9]+):(?P<pid>[0-9]{1,10})")


@dataclass(frozen=True, slots=True)
class SendSignal:
    """Send a signal to a process."""

    pid: int
    signum: signal.Signals

    def __call__(self) -> str:
        """Send it and say so."""
        try:
            os.kill(self.pid, self.signum)
        except ProcessLookupError:
            return f"no process {self.pid} to send {self.signum.name} to"
        except PermissionError:
            return f"not allowed to send {self.signum.name} to process {self.pid}"
        return f"sent {self.signum.name} to process {self.pid}"


@dataclass(frozen=True, slots=True)
class TouchFile:
    """Make a file that the trainer looks for."""

    path: Path

    def __call__(self) -> str:
        """Make it and say so."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        except OSError as error:
            return f"`{self.path}` could not be made: {error.strerror}"
        return f"made `{self.path}`"


@dataclass(frozen=True, slots=True)
class RunCommand:
    """Run a command, not by a shell, beside the guard's own work."""

    argv: tuple[str, ...]
    cwd: Path

    def __call__(self) -> str:
        """Start it and say so; how it ends is its own business."""

        def work() -> None:
            with contextlib.suppress(LabsyncError):
                process.run(self.argv, cwd=self.cwd)

        threading.Thread(target=work, name="labsync-on-drain", daemon=True).start()
        return f"started `{shlex.join(self.argv)}`"


Hook = SendSignal | TouchFile | RunCommand


def parse_hook(text: str, root: Path) -> Hook:
    """Return what `--on-drain` asks for; paths and commands are relative to `root`. UsageError otherwise."""
    form, _, rest = text.partition(":")
    try:
        if form == "signal" and (match := _SIGNAL.fullmatch(rest)):
            return SendSignal(int(match["pid"]), signal.Signals[f"SIG{match['name']}"])
        if form == "file" and rest:
            return TouchFile(root / rest)
        if form == "command" and (argv := shlex.split(rest)):
            return RunCommand(tuple(argv), root)
    except (KeyError, ValueError):
        pass
    raise UsageError(f"`--on-drain {text}` is not understood", hint=f"write {FORMS}")


def call_all(hooks: Sequence[Hook], say: Callable[[str], None]) -> None:
    """Call every hook; one that fails is said and keeps no other from its turn."""
    for hook in hooks:
        say(f"the end is near: {hook()}")
