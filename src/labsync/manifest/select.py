"""Which artifacts a command is about: kinds, names, `kind/name`, groups, globs, `NAME@SNAPSHOT`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsync.errors import UsageError
from labsync.manifest.checks import closest, matches
from labsync.names import KINDS, escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labsync.manifest.model import Artifact, Manifest

_SNAPSHOT = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True, slots=True)
class Selection:
    """A selected artifact; `snapshot` is the beginning of the id that was asked for, empty for the newest."""

    artifact: Artifact
    snapshot: str = ""


def select(manifest: Manifest, selectors: Sequence[str]) -> tuple[Selection, ...]:
    """Return the selected artifacts, each once, in the manifest's order; all when nothing is selected.

    Raises UsageError (2) for a selector that means nothing, with close names in the hint, and for a
    snapshot of anything but one made artifact.
    """
    if not selectors:
        return tuple(Selection(artifact) for artifact in manifest.artifacts)
    chosen: dict[str, str] = {}
    for selector in selectors:
        word, at, snapshot = selector.partition("@")
        found = _find(manifest, word, selector)
        if at:
            _check_snapshot(found, snapshot, selector)
        for artifact in found:
            before = chosen.get(artifact.name, "")
            if before and snapshot and before != snapshot:
                raise UsageError(f"two snapshots of `{artifact.name}` are selected", hint="name one of them")
            chosen[artifact.name] = snapshot or before
    return tuple(
        Selection(artifact, chosen[artifact.name])
        for artifact in manifest.artifacts
        if artifact.name in chosen
    )


def _find(manifest: Manifest, word: str, selector: str) -> list[Artifact]:
    members = manifest.groups.get(word)
    if members is not None:
        return [artifact for artifact in manifest.artifacts if artifact.name in members]
    found = [artifact for artifact in manifest.artifacts if matches(artifact, word)]
    if found or word in KINDS:
        return found
    known = [*KINDS, *manifest.groups]
    known += [name for artifact in manifest.artifacts for name in (artifact.short_name, artifact.name)]
    close = ", ".join(f"`{name}`" for name in closest(word, known))
    raise UsageError(
        f"`{escape(selector)}` selects nothing in `{manifest.path.name}`",
        hint=f"did you mean {close}?" if close else "`labsync status` lists the artifacts",
    )


def _check_snapshot(found: Sequence[Artifact], snapshot: str, selector: str) -> None:
    if not _SNAPSHOT.fullmatch(snapshot):
        raise UsageError(
            f"`{escape(selector)}` does not name a snapshot",
            hint="write at least the first 4 hex digits of its id; `labsync log` lists the ids",
        )
    if len(found) != 1 or not found[0].is_made:
        raise UsageError(
            f"`{escape(selector)}` picks a snapshot of something else than one artifact that is made here",
            hint="name one checkpoint or result; sourced artifacts are what the lock says",
        )
