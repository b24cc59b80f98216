"""Write the lock of a lab whose one artifact has a folder or file on this machine as its origin.

`python -m benchmarks.lock_files labsync.yaml` writes what `labsync lock` writes for it, but reads each file
where it lies, instead of fetching a million of them into a stage.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from labsync.digest import sha256_stream
from labsync.lock import Lock, LockedArtifact, LockedFile, inputs_digest, write_lock
from labsync.manifest.parse import load_manifest
from labsync.snapshot import FileEntry

BLOCK = 1 << 20


def locked_files(origin: Path) -> list[LockedFile]:
    """Return all files of a folder, or the one file, as the lock has them."""
    if origin.is_file():
        return [LockedFile(_entry(origin, origin.name))]
    found = [Path(root, name) for root, _, names in os.walk(origin) for name in names]
    entries = [_entry(file, file.relative_to(origin).as_posix()) for file in found]
    return [LockedFile(entry) for entry in sorted(entries, key=lambda entry: entry.path.encode())]


def _entry(file: Path, path: str) -> FileEntry:
    with file.open("rb", buffering=0) as stream:
        sha256, size = sha256_stream(iter(lambda: stream.read(BLOCK), b""))
    return FileEntry(path, sha256, size)


def main(path: Path) -> None:
    """Write the lock beside a manifest."""
    manifest = load_manifest(path)
    (artifact,) = manifest.artifacts
    origin = Path(unquote(urlsplit(artifact.origin).path))
    written = artifact.written or artifact.origin
    files = tuple(locked_files(origin))
    line = LockedArtifact(artifact.name, inputs_digest(artifact), written, files=files)
    write_lock(path.with_suffix(".lock"), Lock.of([line]))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
