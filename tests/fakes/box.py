"""A box: a folder with a manifest, a home of its own, and the command line as a person types it."""

from __future__ import annotations

import contextlib
import io
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

from labsync.cli.app import run
from tests.fakes.canaries import OPENED, assert_hidden

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Run:
    """One command's end: its exit code, its JSON lines, what it said to the person."""

    code: int
    lines: list[dict[str, Any]]
    stderr: str

    @property
    def report(self) -> dict[str, Any]:
        return self.lines[-1]

    @property
    def artifacts(self) -> dict[str, dict[str, Any]]:
        return {artifact["name"]: artifact for artifact in self.report["artifacts"]}

    @property
    def transferred(self) -> dict[str, int]:
        moved: dict[str, int] = self.report["transferred"]
        return moved

    @property
    def requests(self) -> dict[str, int]:
        sent: dict[str, int] = self.report["mirror_requests"]
        return {method: count for method, count in sent.items() if count}

    @property
    def errors(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.report["errors"]
        return listed

    @property
    def messages(self) -> str:
        return "\n".join(f"{e['message']} | {e['hint']} | {e['issues']}" for e in self.errors)


class Box:
    """Runs labsync in `root`, with `env` besides a home of its own; every command gets `--json`."""

    def __init__(self, root: Path, manifest: str, env: dict[str, str] | None = None) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.manifest = root / "labsync.yaml"
        self.manifest.write_text(manifest, "utf-8")
        OPENED.append(self.root)
        home = root.parent / f"{root.name}-home"
        self.env = {
            "HOME": str(home),
            "LABSYNC_HOME": str(home / "labsync"),
            "HF_HOME": str(home / "huggingface"),
            "JUPYTER_DATA_DIR": str(home / "jupyter"),
            **(env or {}),
        }

    def labsync(self, *args: str) -> Run:
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, self.env),
            contextlib.chdir(self.root) if hasattr(contextlib, "chdir") else _chdir(self.root),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = run([*args, "--json"])
        assert_hidden(out.getvalue() + err.getvalue())
        lines = [json.loads(line) for line in out.getvalue().splitlines()]
        return Run(code, lines, err.getvalue())

    def write(self, path: str, data: bytes) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return target

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def tree(self, path: str) -> dict[str, bytes]:
        folder = self.root / path
        return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@contextlib.contextmanager
def _chdir(folder: Path) -> Any:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
