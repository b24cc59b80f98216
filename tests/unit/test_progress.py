"""Progress for people: plain lines by the clock, a bar on a terminal, silence when asked."""

from __future__ import annotations

import io

import pytest

from labsync.events import BytesMoved, Event, FileDone, Note, StageStarted, TransferEnded, TransferPlanned
from labsync.render.progress import PlainBar, Progress

PLANNED = TransferPlanned("pull", 2, 4096)
EVENTS: list[Event] = [
    StageStarted("pull", "2 artifacts"),
    StageStarted("smoke"),
    PLANNED,
    BytesMoved(1024),
    FileDone("models/a", "w", 1024),
    TransferEnded(),
    Note("resolving"),
    Note("look here", "warning"),
]


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_a_plain_bar_speaks_every_ten_seconds() -> None:
    clock, stream = Clock(), io.StringIO()
    bar = PlainBar(PLANNED, stream, clock)
    bar.advance(1024)
    clock.time += 9.9
    bar.advance(1024)
    assert stream.getvalue() == ""
    clock.time += 0.1
    bar.advance(0)
    bar.advance(1024)
    clock.time += 10
    bar.advance(-1024)
    bar.close()
    assert stream.getvalue().splitlines() == [
        "pull: 2.0 KiB of 4.0 KiB, 50 %",
        "pull: 2.0 KiB of 4.0 KiB, 50 %",
    ]


def test_a_plan_of_no_bytes_divides_by_nothing() -> None:
    clock, stream = Clock(), io.StringIO()
    bar = PlainBar(TransferPlanned("push", 1, 0), stream, clock)
    clock.time += 10
    bar.advance(0)
    assert stream.getvalue() == "push: 0 B of 0 B, 0 %\n"


@pytest.mark.parametrize(
    ("quiet", "verbose", "said"),
    [
        (False, False, ["== pull: 2 artifacts", "== smoke", "resolving", "warning: look here"]),
        (
            False,
            True,
            ["== pull: 2 artifacts", "== smoke", "models/a/w  1.0 KiB", "resolving", "warning: look here"],
        ),
        (True, False, ["warning: look here"]),
    ],
)  # fmt: skip
def test_what_is_said(quiet: bool, verbose: bool, said: list[str]) -> None:
    stream = io.StringIO()
    show = Progress(quiet=quiet, verbose=verbose, stream=stream)
    for event in EVENTS:
        show(event)
    assert stream.getvalue().splitlines() == said


def test_bytes_without_a_plan_are_no_matter() -> None:
    show = Progress(quiet=True, verbose=False, stream=io.StringIO())
    show(BytesMoved(1))
    show(TransferEnded())


def test_a_terminal_gets_a_bar(capfd: pytest.CaptureFixture[str]) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    show = Progress(quiet=False, verbose=False, stream=stream)
    show(PLANNED)
    show(BytesMoved(4096))
    show(TransferEnded())
    assert "pull:" in stream.getvalue()
    assert "0.00/4.00k" in stream.getvalue()
    assert capfd.readouterr() == ("", "")


def test_a_second_transfer_takes_the_first_bar_away() -> None:
    stream = io.StringIO()
    show = Progress(quiet=False, verbose=False, stream=stream)
    show(PLANNED)
    show(TransferPlanned("push", 1, 1))
    show(BytesMoved(1))
    show(TransferEnded())
    show(TransferEnded())
    assert stream.getvalue() == ""
