"""Writing to a stream whose reader may go away, as `labsync log | head` means it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TextIO


def put(stream: TextIO, lines: Iterable[str]) -> None:
    """Print the lines; once the reader has gone the rest goes nowhere, and the command's end is its own."""
    try:
        for line in lines:
            print(line, file=stream)
        stream.flush()
    except BrokenPipeError:
        silence(stream)


def silence(stream: TextIO) -> None:
    """Let everything written to this stream from now on go nowhere.

    What is still buffered would make Python complain when it exits
    (https://docs.python.org/3/library/signal.html#note-on-sigpipe).
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
