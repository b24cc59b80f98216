"""Real git repositories in a folder, served over HTTP by the real `git http-backend`."""

from __future__ import annotations

import base64
import gzip
import os
import subprocess
from typing import TYPE_CHECKING

from tests.fakes.http_faults import FaultyServer, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_IDENTITY = {
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b", "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
    "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1",
}  # fmt: skip


class GitRepo:
    """A repository with a work tree, made commit by commit; equal content has equal commits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "uploadpack.allowAnySHA1InWant", "false")

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run git in the work tree and return its output."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | _IDENTITY
        argv = ["git", "-C", str(self.folder), *arguments]
        done = subprocess.run(argv, env=env, input=stdin, capture_output=True, check=True, timeout=60)
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    def commit(self, files: Mapping[str, bytes], executable: Iterable[str] = ()) -> str:
        """Commit these files on top and return the commit."""
        for path, data in files.items():
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        for path in executable:
            (self.folder / path).chmod(0o755)
        self.git("add", "--all", "--force", ".")
        return self.save()

    def save(self) -> str:
        """Commit the index as it is and return the commit."""
        self.git("commit", "--quiet", "--allow-empty", "--message", "change")
        return self.git("rev-parse", "HEAD")


class GitServer(FaultyServer):
    """Serves the repositories below `root`; `password` makes it want Basic auth of the user `git`.

    `old` answers with protocol version 0, which gives away only what a ref names.
    """

    def __init__(self, root: Path, password: str = "", *, old: bool = False) -> None:
        self.root = root
        self.password = password
        self.old = old
        super().__init__()

    def repo(self, name: str) -> GitRepo:
        """Make a repository; its address is `url_of(name)`."""
        return GitRepo(self.root / name)

    def url_of(self, name: str) -> str:
        """Return the origin of a repository."""
        return f"git+{self.url}/{name}/.git"

    def answer(self, request: Request) -> Reply:
        if self.password:
            wanted = "Basic " + base64.b64encode(f"git:{self.password}".encode()).decode()
            if request.headers.get("authorization") != wanted:
                return Reply(401, b"", {"WWW-Authenticate": 'Basic realm="git"'})
        body = request.body
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | _IDENTITY
        env |= {
            "GIT_PROJECT_ROOT": str(self.root), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": request.path,
            "QUERY_STRING": request.query, "REQUEST_METHOD": request.method,
            "CONTENT_TYPE": request.headers.get("content-type", ""), "CONTENT_LENGTH": str(len(body)),
            "GIT_PROTOCOL": "" if self.old else request.headers.get("git-protocol", ""),
        }  # fmt: skip
        done = subprocess.run(
            ["git", "http-backend"], env=env, input=body, capture_output=True, check=False, timeout=60
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        return Reply(int(headers.pop("Status", "200")[:3]), content, headers)
