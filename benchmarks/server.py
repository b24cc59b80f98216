"""The one S3 server that all contenders use: `rclone serve s3` over a folder on the RAM disk."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

BUCKET = "bench"
KEY, SECRET = "testing", "testingsecret"
CREDENTIALS: Mapping[str, str] = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class ServerError(Exception):
    """A server does not start."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server; `root` holds its buckets as folders."""

    url: str
    root: Path

    @property
    def bucket(self) -> Path:
        """The folder of the one bucket. What is put there past the server must be there when it starts."""
        return self.root / BUCKET


@contextlib.contextmanager
def serve(rclone: str, root: Path) -> Iterator[Server]:
    """Serve the folder; a fresh server for each workload begins without caches and with little memory."""
    (root / BUCKET).mkdir(parents=True, exist_ok=True)
    port = free_port()
    argv = [rclone, "serve", "s3", "--config", "", "--addr", f"127.0.0.1:{port}"]
    child = subprocess.Popen(
        [*argv, "--auth-key", f"{KEY},{SECRET}", str(root)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port, child)
        yield Server(f"http://127.0.0.1:{port}", root)
    finally:
        child.kill()
        child.wait()


def free_port() -> int:
    """Return a port of loopback that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int, child: subprocess.Popen[bytes]) -> None:
    """Wait until the child takes connections; raises ServerError when it ended instead."""
    for _ in range(600):
        if child.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.1)
    raise ServerError(f"`{' '.join(map(str, child.args))}` does not take connections")  # type: ignore[arg-type]
