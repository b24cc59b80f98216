"""labsync as a process of its own, to be stopped in the middle; and what must be true of a lab after that."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.mirrors.directory import DirectoryMirror
from tests.fakes.box import Box, Run
from tests.fakes.canaries import assert_hidden
from tests.fakes.http_faults import FileServer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from http.server import BaseHTTPRequestHandler

    from tests.fakes.http_faults import Fault, Reply, Request

LIMIT = 30.0  # seconds: only a broken labsync reaches it


def start(box: Box, *args: str, through: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start labsync in a box, `through` another program if need be; every command gets `--json`."""
    return subprocess.Popen(
        [*through, sys.executable, "-m", "labsync", *args, "--json"],
        cwd=box.root,
        env={**os.environ, **box.env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(happened: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    """Wait until something has happened, or the child has ended, or the test must fail."""
    end = time.monotonic() + LIMIT
    while not happened() and child.poll() is None:
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.0005)


def stop(child: subprocess.Popen[str], signum: signal.Signals) -> Run:
    """Send the signal and return how the child ended."""
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(signum)
    out, err = child.communicate(timeout=LIMIT)
    assert_hidden(out + err)
    lines = [json.loads(line) for line in out.splitlines() if line.endswith("}")]
    return Run(child.returncode, lines, err)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def assert_whole(folder: Path, *versions: Mapping[str, bytes]) -> None:
    """Assert that each file below a folder is one of its versions, byte for byte."""
    for file in folder.rglob("*"):
        if file.is_file():
            path = file.relative_to(folder).as_posix()
            assert file.read_bytes() in [files[path] for files in versions if path in files], path


def assert_sound(mirror: Path) -> None:
    """Assert that each head of a directory mirror names a snapshot all of whose bytes are there."""
    opened = DirectoryMirror(mirror)
    for name in opened.heads():
        head = opened.head(name)
        index = opened.index(head.index)
        assert index.snapshot.id == head.snapshot
        for located in index.files:
            assert digest((mirror / located.key).read_bytes()) == located.entry.sha256


def data_files(mirror: Path) -> list[Path]:
    """Return the data files of a directory mirror that are visible."""
    return [
        path
        for path in mirror.rglob("*")
        if path.is_file() and not path.name.endswith(".labsync-new") and ".labsync" not in path.parts
    ]


def parts(box: Box) -> list[Path]:
    """Return what transfers left half done in the box."""
    state = box.root / ".labsync"
    return [path for path in state.rglob("*") if path.suffix == ".part" or path.parent.name == "stage"]


class Trickle(FileServer):
    """Serves `slow` paths in small blocks, without an end until `release` is set."""

    def __init__(self, files: Mapping[str, bytes], slow: str) -> None:
        self.slow = slow
        self.flowing = threading.Event()
        self.release = threading.Event()
        super().__init__(files)

    def close(self) -> None:
        self.release.set()
        super().close()

    def _send(self, handler: BaseHTTPRequestHandler, request: Request, reply: Reply, fault: Fault) -> None:
        if request.path != self.slow or request.method != "GET" or self.release.is_set():
            super()._send(handler, request, reply, fault)
            return
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(reply.body)))
        handler.end_headers()
        with contextlib.suppress(OSError):
            for at in range(0, len(reply.body), 4096):
                handler.wfile.write(reply.body[at : at + 4096])
                if at >= 65536:
                    self.flowing.set()
                    self.release.wait(0.01)
        handler.close_connection = True
