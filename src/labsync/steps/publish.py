"""Make what is whole in the mirror visible there: index after the bytes, head last."""

from __future__ import annotations

import socket
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from labsync.mirrors.base import Head, HeadMovedError, HeadName, Index
from labsync.steps.uploads import end_uploads

if TYPE_CHECKING:
    from labsync.manifest.model import Artifact
    from labsync.mirrors.base import Located
    from labsync.names import ArtifactName
    from labsync.steps.lab import Lab

ROUNDS = 8  # of compare-and-swap, before another box that never rests is reported


def now() -> str:
    """Return the time as the mirror's records write it: UTC, RFC 3339, whole seconds."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_index(lab: Lab, name: ArtifactName, files: tuple[Located, ...], parent: str = "") -> Index:
    """Return an index made here and now."""
    shards = {file.key for file in files if file.offset is not None}
    packs = {key: lab.view.packs[key] for key in sorted(shards) if key in lab.view.packs}
    return Index(name, files, parent=parent, time=now(), host=socket.gethostname(), packs=packs)


def publish(lab: Lab, name: HeadName, index: Index, expected: Head | None) -> Head:
    """Publish an index under a head and remember both; raises HeadMovedError when the head moved."""
    head = lab.mirror.publish(name, index, expected)
    lab.view.remember(head)
    return head


def publish_sourced(lab: Lab, artifact: Artifact, located: tuple[Located, ...]) -> None:
    """Publish a sourced snapshot, unless its head names it already with an index that serves.

    It does not serve when it is lost, or when it names a key that this command found damaged. Then a
    new index of the same snapshot takes its place. A box that published the same meanwhile is as good.
    """
    snapshot = new_index(lab, artifact.name, located).snapshot.id
    name = HeadName.sourced(artifact.name, snapshot)
    for left in reversed(range(ROUNDS)):
        head = lab.view.head(name)
        old = lab.view.readable(head) if head is not None and head.snapshot == snapshot else None
        if old is not None and not any(file.key in lab.view.damaged for file in old.files):
            break
        parent = head.index if head is not None and old is not None else ""
        try:
            publish(lab, name, new_index(lab, artifact.name, located, parent), head)
            break
        except HeadMovedError:
            if not left:
                raise
            lab.view.refresh()
    end_uploads(lab, artifact)
