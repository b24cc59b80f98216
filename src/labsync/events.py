"""What the library says while it works: values that `render` shows; the library itself never prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage of the flow begins: `lock`, `pull`, `environment`, `kernel`, `smoke` and so on."""

    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TransferPlanned:
    """Files and bytes that the following transfer will move."""

    title: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class BytesMoved:
    """Bytes that arrived; negative when progress was rewound because a file starts again."""

    count: int


@dataclass(frozen=True, slots=True)
class FileStarted:
    """A file's turn has come; files so small that many share one turn are only told when they are done."""

    artifact: str
    path: str


@dataclass(frozen=True, slots=True)
class FileDone:
    """A file is verified and visible in every place of its route."""

    artifact: str
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class TransferEnded:
    """The transfer announced last has ended, successful or not."""


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence for the person: `warning` where something wants attention."""

    message: str
    level: str = "info"


Event: TypeAlias = StageStarted | TransferPlanned | BytesMoved | FileStarted | FileDone | TransferEnded | Note


class Observer(Protocol):
    """Receives events, from several threads at once; must neither block for long nor raise."""

    def __call__(self, event: Event) -> None:
        """Take one event."""


def ignore(event: Event) -> None:
    """Drop the event."""
