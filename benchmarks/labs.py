"""Labs of labsync for the workloads: a manifest, a lock, and commands in them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import data
from benchmarks.data import WrongResultError
from benchmarks.hub import MODEL
from benchmarks.measure import Command, measure
from benchmarks.rounds import ROOT, Told
from benchmarks.server import BUCKET, CREDENTIALS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.measure import Measured
    from benchmarks.rounds import Bench


@dataclass(frozen=True, slots=True)
class Mirror:
    """A mirror on the one server: a prefix of the bucket."""

    url: str
    prefix: str

    def __str__(self) -> str:
        target = f'url: "s3://{BUCKET}/{self.prefix}", endpoint: "{self.url}", region: us-east-1'
        return f"{{{target}, single_writer: true}}"


@dataclass(frozen=True, slots=True)
class Origin:
    """What an artifact is made of: a file, or a folder of files, which is locked and then moved away.

    `files` are its bytes at another path, so that labs can be given them.
    """

    files: Path
    artifact: str
    path: str
    origin: str
    locked: Path

    def line(self, *, packed: bool, mirror: bool) -> str:
        """Return the artifact's part of a manifest."""
        kind, _, name = self.artifact.partition("/")
        keys = f'origin: "{self.origin}", path: {self.path}, mirror: {str(mirror).lower()}'
        return f"{kind}:\n  {name}: {{{keys}{', layout: packed' if packed else ''}}}\n"


def make_origin(files: Path, folder: Path) -> Origin:
    """Lock a file or a folder; its origin is gone afterwards, so that only a mirror can give it."""
    single = files.is_file()
    there = folder / "origin" / files.name
    data.link(files, there)
    lock = folder / "locked"
    lock.mkdir(parents=True)
    artifact, path = ("checkpoints/one", "one.bin") if single else ("datasets/data", "data")
    origin = Origin(files, artifact, path, there.as_uri() + ("" if single else "/"), lock)
    manifest = lock / "labsync.yaml"
    manifest.write_text(_manifest("", origin.line(packed=False, mirror=False)))
    argv = [sys.executable, "-m", "benchmarks.lock_files", str(manifest)]
    subprocess.run(argv, cwd=ROOT, check=True)
    manifest.unlink()
    data.remove(folder / "origin")
    return origin


def _manifest(mirror: str, artifact: str) -> str:
    where = f"mirror: {mirror}\n" if mirror else ""
    return f"version: 1\nproject: bench\nsession: none\ndisk: {{reserve: 64MiB}}\n{where}{artifact}"


@dataclass(frozen=True)
class Lab:
    """A folder with a manifest, and how labsync is run in it."""

    bench: Bench
    folder: Path
    more_env: Mapping[str, str]

    def command(self, *args: str) -> Command:
        """Return a command line of labsync in this lab."""
        env = {**self.bench.env, **CREDENTIALS, **self.more_env}
        return Command((self.bench.tools.labsync, *args, "--json"), self.folder, env)

    def run(self, *args: str) -> dict[str, Any]:
        """Run labsync outside of any timing and return its report; it must succeed."""
        return report(measure(self.command(*args)))


def make_lab(
    bench: Bench,
    folder: Path,
    origin: Origin,
    mirror: Mirror | None,
    *,
    packed: bool = False,
    filled: bool = False,
) -> Lab:
    """Make a lab with the origin's lock, and with its files where it is to be `filled`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(origin.locked, folder, dirs_exist_ok=True)
    line = origin.line(packed=packed, mirror=mirror is not None)
    (folder / "labsync.yaml").write_text(_manifest(str(mirror or ""), line))
    if filled:
        data.link(origin.files, folder / origin.path)
    return Lab(bench, folder, {})


def make_hub_lab(bench: Bench, folder: Path, url: str, locked: Path | None = None) -> Lab:
    """Make a lab with the hub's model, and with the lock of another lab like it."""
    folder.mkdir(parents=True, exist_ok=True)
    line = f'models:\n  model: {{origin: "hf://{MODEL}@main", mirror: false}}\n'
    (folder / "labsync.yaml").write_text(_manifest("", line))
    if locked is not None:
        shutil.copy(locked, folder / "labsync.lock")
    return Lab(bench, folder, {"HF_ENDPOINT": url, "HF_HOME": str(folder / "huggingface")})


def report(measured: Measured) -> dict[str, Any]:
    """Return the report that ends labsync's output; raises WrongResultError unless it says 0."""
    lines = measured.stdout.splitlines()
    try:
        found: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        raise WrongResultError(f"exit {measured.code}: {measured.stderr[-500:]}") from None
    if found["exit_code"]:
        errors = "; ".join(error["message"] for error in found["errors"])
        raise WrongResultError(f"exit {found['exit_code']}: {errors}")
    return found


def told(measured: Measured) -> Told:
    """Return what labsync says about its run; raises WrongResultError unless it says 0."""
    found = report(measured)
    return Told(sum(found["mirror_requests"].values()), found["transferred"]["bytes"])
