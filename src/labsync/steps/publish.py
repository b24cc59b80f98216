"""Make what is whole in the mirror visible there: index after the bytes, head last."""

from __future__ import annotations

import socket
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from labsync.mirrors.base import Head, HeadName, Index

if TYPE_CHECKING:
    from labsync.manifest.model import Artifact
    from labsync.mirrors.base import Located
    from labsync.names import ArtifactName
    from labsync.steps.lab import Lab


def now() -> str:
    """Return the time as the mirror's records write it: UTC, RFC 3339, whole seconds."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_index(name: ArtifactName, files: tuple[Located, ...], parent: str = "") -> Index:
    """Return an index made here and now."""
    return Index(name, files, parent=parent, time=now(), host=socket.gethostname())


def publish(lab: Lab, name: HeadName, index: Index, expected: Head | None) -> Head:
    """Publish an index under a head and remember both; raises HeadMovedError when the head moved."""
    head = lab.mirror.publish(name, index, expected)
    lab.view.remember(head)
    return head


def publish_sourced(lab: Lab, artifact: Artifact, located: tuple[Located, ...]) -> None:
    """Publish a sourced snapshot, unless its head names it already."""
    index = new_index(artifact.name, located)
    name = HeadName.sourced(artifact.name, index.snapshot.id)
    head = lab.view.head(name)
    if head is not None and head.snapshot == index.snapshot.id:
        return
    publish(lab, name, index, head)
    lab.state.close_batches(lab.memory_key(artifact))
