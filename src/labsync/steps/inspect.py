"""Questions that change nothing: history, places, sizes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.errors import LabsyncError, NotFoundError, UsageError
from labsync.mirrors.base import HeadName
from labsync.mirrors.placer import STAGE
from labsync.report import ErrorReport
from labsync.settings import home_dir
from labsync.steps.lab import EMBEDDED
from labsync.steps.outcome import Document, Location, SnapshotLine, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from labsync.manifest.model import Artifact
    from labsync.mirrors.base import Index
    from labsync.steps.lab import Lab


def history(lab: Lab, artifact: Artifact) -> list[SnapshotLine]:
    """Return the artifact's snapshots in the mirror, the newest first."""
    if artifact.is_made:
        labels: dict[str, list[str]] = {}
        for name in lab.view.names(artifact.name):
            if head := lab.view.head(name):
                labels.setdefault(head.index, []).append(name.label or "head")
        return [
            _line(artifact, index, " ".join(labels.get(index_id, ())))
            for index_id, index in lab.view.history(artifact.name)
        ]
    lines = []
    for name in lab.view.names(artifact.name):
        if head := lab.view.head(name):
            wanted = lab.lock.artifacts.get(artifact.name) if lab.lock else None
            label = "locked" if wanted and wanted.snapshot.id == head.snapshot else ""
            lines.append(_line(artifact, lab.view.index(head.index), label))
    return sorted(lines, key=lambda line: line.time, reverse=True)


def _line(artifact: Artifact, index: Index, label: str) -> SnapshotLine:
    snapshot = index.snapshot
    return SnapshotLine(
        artifact.name, snapshot.id, index.time, index.host, len(snapshot), snapshot.size, label
    )


def mirror_url(lab: Lab, artifact: Artifact) -> Location:
    """Return where the artifact lies in the mirror.

    The newest batch's folder: complete after one full push, otherwise only the newest part of it
    (older files lie in older batches; the index knows them all).
    """
    if artifact.is_made:
        head = lab.view.newest(artifact.name)
    else:
        head = lab.view.head(HeadName.sourced(artifact.name, lab.locked(artifact).snapshot.id))
    if head is None:
        raise NotFoundError(
            f"`{artifact.name}` is not in the mirror",
            artifact=artifact.name,
            hint=f"`labsync push {artifact.name}` or `labsync mirror {artifact.name}`",
        )
    keys = [located.key for located in lab.view.index(head.index).files]
    batches = sorted({"/".join(key.split("/")[:3]) for key in keys}, key=lambda key: key.split("/")[2])
    where = keys[0] if artifact.is_file and len(keys) == 1 else f"{batches[-1]}/" if batches else ""
    return Location(artifact.name, f"{lab.mirror.url.rstrip('/')}/{where}")


def usage(lab: Lab, artifacts: Sequence[Artifact]) -> tuple[list[Usage], list[ErrorReport]]:
    """Return what each artifact, and labsync itself, takes on this disk."""
    lines: list[Usage] = []
    errors: list[ErrorReport] = []
    for artifact in artifacts:
        try:
            lines.append(_artifact_usage(lab, artifact))
        except LabsyncError as error:
            errors.append(ErrorReport.of(error, artifact.name))
    return lines + _own_usage(lab), errors


def _own_usage(lab: Lab) -> list[Usage]:
    """Return what labsync keeps for itself, each byte counted once."""
    state, url = lab.manifest.state_dir, lab.manifest.mirror.url
    on_the_way = Path(url.removeprefix(EMBEDDED)) / STAGE if url.startswith(EMBEDDED) else None
    own = [
        (
            "embedded mirror",
            state / "mirror",
            "the only copy of what was made here, unless `mirror:` names another",
        ),
        ("stage", state / "stage", "parts of transfers; may be deleted when no labsync runs"),
        ("fetched", state / "fetched", "read by `labsync lock`, for the next `labsync pull`"),
        ("git", state / "git", "scratch repositories; may be deleted when no labsync runs"),
        ("set aside", state / "aside", "your own files that `--force` replaced; yours to delete"),
        ("environments", home_dir(lab.options.env) / "envs", "built again by `labsync env build`"),
    ]
    if on_the_way:
        own.insert(1, ("mirror's stage", on_the_way, "parts of writes; the next one removes a killed run's"))
    lines = []
    for name, folder, note in own:
        files, size = measure_tree(folder, without=None if folder == on_the_way else on_the_way)
        if files:
            lines.append(Usage(name, str(folder), files, size, note))
    return lines + _caches(home_dir(lab.options.env) / "pkgs")


def _caches(folder: Path) -> list[Usage]:
    """Return what the packages take that no environment shares by hard links."""
    alone = [stat for stat in _stats(folder, None) if stat.st_nlink == 1]
    note = "unpacked packages that no environment has; may be deleted when no labsync runs"
    size = sum(stat.st_blocks * 512 for stat in alone)
    return [Usage("package caches", str(folder), len(alone), size, note)] if alone else []


def _artifact_usage(lab: Lab, artifact: Artifact) -> Usage:
    home = lab.home(artifact)
    files = home.inventory(rehash=False).files
    size = sum(found.entry.size for found in files.values())
    note = "made here" if artifact.is_made else "comes back by `labsync pull`"
    return Usage(artifact.name, str(home.path), len(files), size, note)


def measure_tree(folder: Path, *, without: Path | None = None) -> tuple[int, int]:
    """Return the number of files below a folder and the bytes they occupy, links not followed.

    A file with several names there occupies its bytes once. What is below `without` does not count.
    """
    if folder.is_file():
        return 1, folder.stat().st_blocks * 512
    files = size = 0
    seen: set[tuple[int, int]] = set()
    for stat in _stats(folder, without):
        inode = (stat.st_dev, stat.st_ino)
        files, size = files + 1, size + (0 if inode in seen else stat.st_blocks * 512)
        if stat.st_nlink > 1:
            seen.add(inode)
    return files, size


def _stats(folder: Path, without: Path | None) -> Iterator[os.stat_result]:
    if folder == without:
        return
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _stats(folder / entry.name, without)
                else:
                    yield entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return


def mirror_policy(lab: Lab, *, bucket: bool, kms_key: str) -> Document:
    """Return the least policy for the mirror, or how to set its bucket up; UsageError (2) for a folder."""
    from labsync.mirrors.s3_policy import bucket_setup, policy

    spec = lab.manifest.mirror
    if not spec.url.startswith("s3://"):
        raise UsageError(
            f"the mirror `{spec.url}` is a folder and needs no policy",
            hint="`mirror: s3://bucket/prefix` in the manifest names a bucket",
        )
    if bucket:
        return Document("bucket set-up", bucket_setup(spec))
    return Document("policy", policy(spec, kms_key))
