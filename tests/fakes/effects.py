"""Every step by which a process changes something outside itself, seen at the edge of the system.

The product has no failpoints of its own: its steps are the calls that leave the process, and each is
named by the place in labsync that makes it. So no step can be forgotten, and nothing costs anything
when nobody looks.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import pathlib
import socket
import sqlite3
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import labsync
import labsync.atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    Watcher = Callable[["Step", Callable[[], Any]], Any]

DISK = (
    "fsync", "fdatasync", "replace", "rename", "link", "unlink", "rmdir", "mkdir", "symlink", "write",
    "pwrite", "writev", "ftruncate", "truncate", "posix_fallocate", "chmod", "fchmod", "utime",
)  # fmt: skip
WIRE = ("send", "sendall", "connect")
_SOURCE = str(Path(labsync.__file__).parent) + os.sep
# What only passes a step on; who wanted it is further up.
_PASSING = {"atomic", "database", "mirrors.s3_connection", "mirrors.s3_client", "mirrors.s3_dial"}
_HELPERS = {"_ask", "_whole", "send", "_conditionally", "_drain", "<lambda>", "<listcomp>", "commit"}
_WRITING = set("wxa+")
_inside = threading.local()


@dataclass(frozen=True)
class Step:
    """One call: the operation, the place in labsync that wants it, the arguments."""

    op: str
    place: str
    args: tuple[Any, ...]

    @property
    def name(self) -> str:
        return f"{self.place}: {self.op}"


def place() -> str:
    """Return where in labsync the running call comes from; empty for anything else."""
    frame: FrameType | None = sys._getframe(2)
    found = ""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_SOURCE):
            module = file[len(_SOURCE) : -3].replace(os.sep, ".")
            here = f"{module}.{frame.f_code.co_name}"
            if module not in _PASSING and frame.f_code.co_name not in _HELPERS:
                return here
            found = found or here
        frame = frame.f_back
    return found


@contextlib.contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Let the watcher see each step, by all threads, before it is made; it makes the call, or does not."""
    with contextlib.ExitStack() as patches:

        def patch(owner: object, name: str, replacement: object) -> None:
            patches.enter_context(mock.patch.object(owner, name, replacement))

        for op in DISK:
            patch(os, op, _wrapped(op, getattr(os, op), watcher))
        for op in WIRE:
            patch(socket.socket, op, _wrapped(op, getattr(socket.socket, op), watcher))
        patch(os, "open", _opened(os.open, watcher, lambda flags: bool(int(flags) & os.O_CREAT)))
        opened = _opened(io.open, watcher, lambda mode: bool(_WRITING & set(str(mode))))
        patch(io, "open", opened)
        patch(builtins, "open", opened)
        _patch_old_pathlib(patch)
        patch(labsync.atomic, "_renameat2", _wrapped("renameat2", labsync.atomic._renameat2, watcher))
        patch(sqlite3, "connect", _connecting(sqlite3.connect, watcher))
        yield


def _patch_old_pathlib(patch: Callable[[object, str, object], None]) -> None:
    """Let Python 3.10's pathlib, which keeps functions of its own, call those that are watched."""
    accessor = getattr(pathlib, "_NormalAccessor", None)
    if accessor is not None:
        for name in ("open", "replace", "rename", "unlink", "mkdir", "rmdir", "symlink", "link", "chmod"):
            owner = io if name == "open" else os
            patch(accessor, name, staticmethod(getattr(owner, name)))


def _wrapped(op: str, real: Callable[..., Any], watcher: Watcher) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        return _seen(watcher, op, args, lambda: real(*args, **options))

    return call


def _opened(real: Callable[..., Any], watcher: Watcher, creates: Callable[[Any], bool]) -> Callable[..., Any]:
    def call(path: Any, how: Any = "r", *args: Any, **options: Any) -> Any:
        if isinstance(path, int) or not creates(options.get("mode", how) if real is io.open else how):
            return real(path, how, *args, **options)
        return _seen(watcher, "create", (path,), lambda: real(path, how, *args, **options))

    return call


def _connecting(real: Callable[..., Any], watcher: Watcher) -> Callable[..., Any]:
    class Watched(sqlite3.Connection):
        """Shows each commit with the file's name, and whether it is durable when it returns."""

        def __init__(self, address: str, *args: Any, **options: Any) -> None:
            super().__init__(address, *args, **options)
            self._address = address
            self._durable = False

        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            if sql.startswith("PRAGMA synchronous"):
                self._durable = sql.endswith("FULL")
            if sql != "COMMIT":
                return super().execute(sql, *args)
            cursor: sqlite3.Cursor = _seen(
                watcher, "commit", (self._address, self._durable), lambda: super(Watched, self).execute(sql)
            )
            return cursor

    def connect(*args: Any, **options: Any) -> Any:
        return real(*args, **options, factory=Watched)

    return connect


def _seen(watcher: Watcher, op: str, args: tuple[Any, ...], call: Callable[[], Any]) -> Any:
    where = "" if getattr(_inside, "step", False) else place()
    if not where:
        return call()
    _inside.step = True  # what the watcher itself does, and what a step is made of, is no step
    try:
        return watcher(Step(op, where, args), call)
    finally:
        _inside.step = False
