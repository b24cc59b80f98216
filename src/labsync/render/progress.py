"""Progress for people, on stderr: a bar on a terminal or in a notebook, a plain line every 10 s elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Protocol

from labsync.events import BytesMoved, FileDone, Note, StageStarted, TransferEnded, TransferPlanned
from labsync.render.output import silence
from labsync.render.units import size
from labsync.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from labsync.events import Event

INTERVAL = 10.0


class Bar(Protocol):
    """Shows one transfer."""

    def advance(self, count: int) -> None:
        """Move on by `count` bytes, back when it is negative."""

    def close(self) -> None:
        """Take the bar away."""


class PlainBar:
    """One line every ten seconds, for logs and pipes."""

    def __init__(
        self, planned: TransferPlanned, stream: TextIO, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._planned, self._stream, self._now = planned, stream, now
        self._moved, self._last = 0, now()

    def advance(self, count: int) -> None:
        """Add the bytes and print a line when the last one is ten seconds old."""
        self._moved += count
        if (now := self._now()) - self._last >= INTERVAL:
            self._last = now
            share = 100 * self._moved // max(self._planned.bytes, 1)
            total = size(self._planned.bytes)
            print(
                f"{self._planned.title}: {size(self._moved)} of {total}, {share} %",
                file=self._stream,
                flush=True,
            )

    def close(self) -> None:
        """Say nothing more."""


class TqdmBar:
    """A tqdm bar; in a notebook its widget."""

    def __init__(self, planned: TransferPlanned, stream: TextIO) -> None:
        from tqdm.auto import tqdm

        self._bar = tqdm(
            total=planned.bytes,
            desc=planned.title,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            leave=False,
            file=stream,
        )

    def advance(self, count: int) -> None:
        """Move the bar."""
        self._bar.update(count)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()


def _bar(planned: TransferPlanned, stream: TextIO) -> Bar:
    return TqdmBar(planned, stream) if stream.isatty() else PlainBar(planned, stream)


class Progress:
    """The observer of the command line."""

    def __init__(self, *, quiet: bool, verbose: bool, stream: TextIO | None = None) -> None:
        self._quiet, self._verbose = quiet, verbose
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()
        self._bar: Bar | None = None

    def __call__(self, event: Event) -> None:
        """Show one event; that nobody reads any more stops no transfer."""
        with self._lock:
            try:
                self._show(event)
            except BrokenPipeError:
                silence(self._stream)

    def _show(self, event: Event) -> None:
        match event:
            case BytesMoved(count) if self._bar:
                self._bar.advance(count)
            case TransferPlanned() if not self._quiet:
                self._close()
                self._bar = _bar(event, self._stream)
            case TransferEnded():
                self._close()
            case _:
                self._say(self._sentence(event))

    def _sentence(self, event: Event) -> str:
        match event:
            case Note(message, "warning"):
                return f"warning: {redact(message)}"
            case Note(message) if not self._quiet:
                return redact(message)
            case StageStarted(name, detail) if not self._quiet:
                return f"== {name}{f': {detail}' if detail else ''}"
            case FileDone(artifact, path, count) if self._verbose:
                return f"{artifact}/{path}  {size(count)}"
        return ""

    def _close(self) -> None:
        if self._bar:
            self._bar.close()
            self._bar = None

    def _say(self, line: str) -> None:
        if line:
            print(line, file=self._stream, flush=True)
