"""Locked artifacts as the hub's listing would give them, from contents."""

from __future__ import annotations

import io

from labsync.digest import git_blob_id, sha256_bytes
from labsync.lock import LockedArtifact, LockedFile
from labsync.manifest.model import Artifact
from labsync.names import ArtifactName
from labsync.snapshot import FileEntry

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LFS = (".safetensors", ".bin", ".pt")


def hf_artifact(origin: str = "hf://org/name", revision: str = "") -> Artifact:
    return Artifact("models", "name", origin=origin, revision=revision)


def locked_from(
    contents: dict[str, bytes], *, commit: str = COMMIT, filtered: bool = False, xet: str = ""
) -> LockedArtifact:
    files = tuple(_locked_file(path, data, xet) for path, data in sorted(contents.items()))
    return LockedArtifact(
        ArtifactName("models/name"), "", "hf://org/name", revision=commit, files=files, filtered=filtered
    )


def _locked_file(path: str, data: bytes, xet: str) -> LockedFile:
    lfs = path.endswith(LFS)
    pointer = f"pointer to {sha256_bytes(data)}".encode() if lfs else data
    oid = git_blob_id(io.BytesIO(pointer), len(pointer))
    return LockedFile(FileEntry(path, sha256_bytes(data), len(data)), oid, lfs, xet if lfs else "")
