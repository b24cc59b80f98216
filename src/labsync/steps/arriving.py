"""A file that is read once to know its digest, kept so that a killed read goes on where it was.

```
.labsync/fetched/<file>-<version>-<bytes>.part    the name says how many of its bytes are durable
```

Nothing but the origin's word tells that the two halves of such a file belong together: a strong ETag
(https://www.rfc-editor.org/rfc/rfc9110#section-8.8.1). Without one, a read begins again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from dataclasses import replace
from io import FileIO
from typing import TYPE_CHECKING

from labsync.digest import sha256_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from labsync.origins.base import Listed
    from labsync.places import Ref

STEP = 8 << 20  # bytes after which what has arrived is made durable
KEPT = 86_400  # seconds that a part waits for the next run


class Arriving:
    """One file on its way into `folder`; `ref` asks for the version that its bytes are of.

    What arrived of another version is removed. One run at a time reads a file.
    """

    def __init__(self, folder: Path, ref: Ref, listed: Listed) -> None:
        self._is_kept = bool(listed.version) and listed.size >= 0
        self.ref = replace(ref, revision=listed.version) if self._is_kept else ref
        self._any_version = ref
        file = _short(f"{ref.location} {ref.path}")
        version = _short(f"{listed.version} {listed.size}") if self._is_kept else secrets.token_hex(8)
        self._name = f"{file}-{version}"
        self._folder = folder
        self.durable = 0
        if self._is_kept:  # else nothing was kept, and thousands of files need not look for it
            self._take_over(list(folder.glob(f"{file}-*.part")))

    def _take_over(self, parts: Sequence[Path]) -> None:
        mine = (part for part in parts if part.name.startswith(f"{self._name}-"))
        self.durable = max(map(_durable, mine), default=0)
        for part in parts:
            if part != self.path:
                part.unlink(missing_ok=True)

    @property
    def path(self) -> Path:
        """Where it lies now."""
        return self._folder / f"{self._name}-{self.durable}.part"

    @contextlib.contextmanager
    def opened(self) -> Iterator[FileIO]:
        """Give the file, to be written behind the last durable byte of an earlier run."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with FileIO(descriptor, "r+b") as file:
            file.truncate(self.durable)
            file.seek(self.durable)
            yield file

    def go_to(self, file: FileIO, at: int) -> None:
        """Let what comes next be written at `at`, and forget what lies behind it."""
        if at < self.durable:
            self._rename(at)
        file.seek(at)
        file.truncate()

    def forget_version(self) -> None:
        """Take it that the origin has another version, or no parts: then no run can continue this one."""
        self._is_kept = False
        self.ref = self._any_version

    def note(self, file: FileIO) -> None:
        """Make durable what has arrived, once enough has: the bytes first, then the name that tells."""
        if self._is_kept and file.tell() - self.durable >= STEP:
            os.fsync(file.fileno())
            self._rename(file.tell())

    def _rename(self, durable: int) -> None:
        before = self.path
        self.durable = durable
        before.rename(self.path)


def sweep(folder: Path) -> None:
    """Remove what killed runs left and none will continue; call it while no other `lock` runs."""
    for part in folder.glob("*.part"):
        if not _durable(part) or time.time() - part.stat().st_mtime > KEPT:
            part.unlink(missing_ok=True)


def _short(text: str) -> str:
    return sha256_bytes(text.encode("utf-8", "surrogatepass"))[:16]


def _durable(part: Path) -> int:
    """Return how many bytes the name promises, 0 for more than there are."""
    count = part.stem.rpartition("-")[2]
    promised = int(count) if count.isdigit() and part.stem.count("-") == 2 else 0
    return promised if promised <= part.stat().st_size else 0
