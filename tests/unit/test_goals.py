"""From what is known to a goal: what the manifest still wants, and where the origin has it."""

from __future__ import annotations

import pytest

from labsync.filters import Filter
from labsync.lock import LockedArtifact, LockedFile
from labsync.manifest.model import Artifact
from labsync.names import ArtifactName
from labsync.places import Ref
from labsync.snapshot import FileEntry, Snapshot
from labsync.steps.goals import origin_refs, within

PATHS = ("a.json", "b.bin", "sub/c.json", "sub/d.bin")
SNAPSHOT = Snapshot.of(FileEntry(path, "0" * 64, 1) for path in PATHS)


@pytest.mark.parametrize(
    ("filtered", "paths"),
    [
        (Filter(), PATHS),
        (Filter(include=("*.json",)), ("a.json", "sub/c.json")),
        (Filter(exclude=("sub/",)), ("a.json", "b.bin")),
        (Filter(include=("*.json",), exclude=("sub/**",)), ("a.json",)),
        (Filter(include=("*.txt",)), ()),
    ],
)
def test_a_snapshot_within_what_the_manifest_wants(filtered: Filter, paths: tuple[str, ...]) -> None:
    artifact = Artifact("results", "runs", path="outputs", filter=filtered)
    assert tuple(entry.path for entry in within(artifact, SNAPSHOT)) == paths


def test_origin_refs_name_the_locked_revision() -> None:
    artifact = Artifact("models", "m", origin="hf://org/m", revision="main")
    files = tuple(LockedFile(entry) for entry in SNAPSHOT)
    locked = LockedArtifact(ArtifactName("models/m"), "", "hf://org/m", revision="c" * 40, files=files)
    assert origin_refs(artifact, locked) == {
        path: Ref("hf://org/m", revision="c" * 40, path=path) for path in PATHS
    }
