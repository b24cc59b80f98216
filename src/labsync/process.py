"""The only caller of `subprocess`: children get a closed stdin, a limit, and are ended as a group."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from labsync.errors import NotFoundError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
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
    timeout: float | None = None,
    keep: Sequence[int] = (),
) -> Completed:
    """Run a program in a process group of its own and return how it ended; never raises on failure.

    `env` is the whole environment, None means ours. Without `stdin` the child reads an empty one.
    After `timeout` seconds the group gets SIGTERM, then SIGKILL. `keep` are descriptors that the child
    holds open as well: a lock on one of them lasts until both have ended. Raises NotFoundError when the
    program does not exist.
    """
    with _naming(argv[0]):
        child = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=None if env is None else dict(env),
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=tuple(keep),
        )
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


class Detached:
    """A program that goes on when we end, in a session of its own; what it says is added to a file."""

    def __init__(self, argv: Sequence[str], *, cwd: Path, log: Path) -> None:
        with log.open("ab") as said, _naming(argv[0]):
            self._child = subprocess.Popen(
                list(argv),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def ended(self) -> int | None:
        """Return how it ended, None while it goes on."""
        return self._child.poll()


class Servant:
    """A program that stays, and answers on stdout what it is told on stdin. One thread at a time.

    It ends when `end` is called, when this value is no longer used, and when we end, however that is.
    `keep` is as in `run`.
    """

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str], patience: float, keep: Sequence[int] = ()
    ) -> None:
        self._name = argv[0]
        self._patience = patience
        self._ahead = b""  # what came behind the last line
        with contextlib.ExitStack() as kept:
            # No pipe: one that nobody reads fills up. No file: disks are full at times.
            errors = kept.enter_context(open(os.memfd_create("errors"), "w+b"))
            with _naming(argv[0]):
                child = subprocess.Popen(
                    list(argv),
                    env=dict(env),
                    bufsize=0,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    start_new_session=True,
                    pass_fds=tuple(keep),
                )
            kept.pop_all()
        assert child.stdin is not None
        assert child.stdout is not None
        self._stdin, self._stdout = child.stdin.fileno(), child.stdout.fileno()
        self._ready = select.poll()
        self._ready.register(self._stdout, select.POLLIN)
        self._last = weakref.finalize(self, _dismiss, child, errors)
        self._ended: Completed | None = None

    def tell(self, line: bytes) -> None:
        """Send a line, shorter than a pipe is deep; whether it was heard shows in the answer."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._stdin, line)

    def line(self) -> bytes:
        """Return the next line of the answer without its end; empty when the program has ended."""
        while b"\n" not in self._ahead:
            if not (more := self._read(1 << 16)):
                return b""
            self._ahead += more
        line, _, self._ahead = self._ahead.partition(b"\n")
        return line

    def read(self, most: int) -> bytes:
        """Return what has come of the answer, at least a byte; empty when the program has ended.

        Raises UnavailableError when nothing comes for as long as our patience lasts.
        """
        if not self._ahead:
            return self._read(most)
        block, self._ahead = self._ahead[:most], self._ahead[most:]
        return block

    def _read(self, most: int) -> bytes:
        if not self._ready.poll(self._patience * 1000):
            raise UnavailableError(f"`{self._name}` has not answered for {self._patience:.0f} s")
        return os.read(self._stdout, most)

    def end(self) -> Completed:
        """Let the program end, or end it, and return how it ended."""
        self._ended = self._ended or self._last()
        assert self._ended is not None
        return self._ended


@contextlib.contextmanager
def _naming(program: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(f"the program `{program}` was not found", hint=f"install `{program}`") from error


def _dismiss(child: subprocess.Popen[bytes], errors: BinaryIO) -> Completed:
    """Close the pipes, by which a servant knows that it is no longer needed, and see to it that it ends."""
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
    child.stdin = child.stdout = None
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        _end(child)
    with errors:
        errors.seek(0)
        return Completed(child.returncode, b"", errors.read())


def _end(child: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    for signum, grace in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signum)
        try:
            return child.communicate(timeout=grace)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("unreachable: the last wait has no limit")
