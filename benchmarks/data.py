"""The files that are moved: made anew for each workload, the same bytes every time."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 1 << 20
PER_FOLDER = 100


class WrongResultError(Exception):
    """A run ended, but not with what it should have made."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a transfer must bring; `sha256` is empty for many files, of which only size and number count."""

    files: int
    size: int
    sha256: str = ""

    def expect(self, path: Path) -> None:
        """Raise WrongResultError unless it is at that path."""
        found = size_of(path)
        if found != (self.files, self.size):
            raise WrongResultError(f"made {found[0]} files, {found[1]} bytes: not {self.files}, {self.size}")
        if self.sha256 and _sha256(_only_file(path)) != self.sha256:
            raise WrongResultError("made a file of other bytes")


def content(source: Path) -> Content:
    """Return what must arrive when a file or a folder is copied."""
    return Content(*size_of(source), _sha256(source) if source.is_file() else "")


def _only_file(path: Path) -> Path:
    return path if path.is_file() else next(found for found in path.rglob("*") if found.is_file())


def _sha256(path: Path) -> str:
    sha256 = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            sha256.update(block)
    return sha256.hexdigest()


def make_file(path: Path, size: int) -> None:
    """Write a file of incompressible bytes, no block of it like another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    block = bytearray(random.Random(size).randbytes(BLOCK))  # noqa: S311  only noise
    with path.open("wb") as file:
        for number in range(0, size, BLOCK):
            block[:8] = number.to_bytes(8, "big")
            file.write(memoryview(block)[: size - number])


def make_files(folder: Path, count: int, low: int, high: int) -> None:
    """Write so many files of `low` to `high` bytes, a hundred in each folder, no two alike."""
    dice = random.Random(count)  # noqa: S311  only noise
    noise = dice.randbytes(high)
    for number in range(count):
        if number % PER_FOLDER == 0:
            (folder / f"d{number // PER_FOLDER:05}").mkdir(parents=True)
        path = folder / f"d{number // PER_FOLDER:05}" / f"f{number:07}.bin"
        data = number.to_bytes(8, "big") + noise[: dice.randint(low, high) - 8]
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(fd, data)
        os.close(fd)


def link(source: Path, target: Path) -> None:
    """Let the same file or files be seen at a second path, which takes no room."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=os.link)
    else:
        target.hardlink_to(source)


def size_of(path: Path) -> tuple[int, int]:
    """Return how many files a folder holds, and their bytes; nothing where there is none."""
    if path.is_file():
        return 1, path.stat().st_size
    files = size = 0
    for root, _, names in os.walk(path):
        files += len(names)  # never a list of them all: see `Measured` about this program's own memory
        size += sum(os.stat(f"{root}/{name}").st_size for name in names)
    return files, size


def remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
