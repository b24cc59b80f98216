"""Running uv and the new environment's Python: one log per build, failures as errors with their output."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsync import process
from labsync.atomic import disk_errors, make_dirs
from labsync.errors import DiskError, EnvironmentFailedError
from labsync.events import ignore
from labsync.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from labsync.events import Observer
    from labsync.process import Completed

HOUR = 3600.0
_TAIL = 1500
# Each of these would point uv, or the new Python, at something other than the environment being built.
_MISLEADING = (
    "CONDA_PREFIX", "PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "UV_CONSTRAINT", "UV_NO_BINARY",
    "UV_OVERRIDE", "UV_PREFIX", "UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_TARGET", "VIRTUAL_ENV",
    "__PYVENV_LAUNCHER__",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tools:
    """Runs programs for one build; what they print goes to `log`, and to the error when they fail.

    The caches lie beside the environments, on the same file system, so that packages are linked and
    not copied. `keep` is the descriptor of the build's lock: a program that outlives a killed labsync
    holds it on, and the next one waits.
    """

    home: Path
    log: Path
    offline: bool = False
    keep: tuple[int, ...] = ()
    observe: Observer = ignore

    @property
    def caches(self) -> Path:
        """Where the unpacked packages of earlier builds lie."""
        return self.home / "pkgs"

    def uv(self, arguments: Sequence[str], doing: str, *, env: Mapping[str, str] | None = None) -> Completed:
        """Run uv; raises EnvironmentFailedError (13) that says what `doing` names could not be done."""
        offline = ("--offline",) if self.offline else ()
        return self.run([find_uv(), *arguments, *offline], doing, env=env)

    def run(
        self,
        argv: Sequence[str],
        doing: str,
        *,
        env: Mapping[str, str] | None = None,
        timeout: float = HOUR,
    ) -> Completed:
        """Run a program to its end; `doing` is what it does, as in `install the locked packages`."""
        done = process.run(
            argv, cwd=self.home, env=self.environment(env or {}), timeout=timeout, keep=self.keep
        )
        with disk_errors(self.log):
            self.record(argv, done)
        if done.returncode != 0:
            raise self._failure(doing, done, timeout)
        return done

    def failed(self, what: str, hint: str = "") -> EnvironmentFailedError:
        """Return an error of this build; the log's place is part of its hint."""
        log = f"the whole output is in `{self.log}`"
        return EnvironmentFailedError(
            redact(what), hint=f"{hint}; {log}" if hint else log, path=str(self.log)
        )

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a program: ours, without what would mislead it."""
        ours = {key: value for key, value in os.environ.items() if key not in _MISLEADING}
        ours["UV_CACHE_DIR"] = str(self.caches / "uv")
        ours["UV_PYTHON_DOWNLOADS"] = "never"
        ours["UV_NO_PROGRESS"] = ours["NO_COLOR"] = "1"
        ours["LC_ALL"] = "C.UTF-8"
        return ours | dict(more)

    def record(self, argv: Sequence[str], done: Completed) -> None:
        """Append what a program printed to the log."""
        make_dirs(self.log.parent)
        with self.log.open("ab") as log:
            for part in (f"$ {shlex.join(argv)}\n".encode(), done.stdout, done.stderr):
                log.write(redact(part.decode("utf-8", "replace")).encode())

    def _failure(self, doing: str, done: Completed, timeout: float) -> EnvironmentFailedError | DiskError:
        output = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
        if is_full(output):
            return no_space(doing)
        if done.timed_out:
            return self.failed(f"could not {doing} within {timeout:.0f} s")
        if done.returncode < 0:
            output = f"{output}\nended by signal {-done.returncode}".strip()
        return self.failed(f"could not {doing}: {output[-_TAIL:]}")


def is_full(output: str) -> bool:
    """Say whether a program failed because the disk was full, by what it printed."""
    return any(words in output for words in ("No space left on device", "Disk quota exceeded", "os error 28"))


def no_space(doing: str) -> DiskError:
    """Return the error of a disk that was full while trying to do this."""
    return DiskError(f"no space left while trying to {doing}", hint="free some space: `labsync du`")


def find_uv() -> str:
    """Return the path of the uv that was installed with labsync, or of the one on the PATH."""
    import uv

    try:
        return str(uv.find_uv_bin())
    except FileNotFoundError as error:
        raise EnvironmentFailedError(
            "the program `uv` was not found", hint="install it beside labsync: `pip install uv`"
        ) from error
