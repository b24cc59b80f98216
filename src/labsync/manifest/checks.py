"""Rules that no artifact can break alone: overlapping paths, groups, fallbacks, one repository twice."""

from __future__ import annotations

import difflib
import os.path
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from labsync.manifest.schema import did_you_mean
from labsync.names import KINDS, NAME, fold

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from labsync.manifest.model import Artifact, MirrorSpec
    from labsync.manifest.schema import Section
    from labsync.names import ArtifactName

OWN = (".labsync", ".git")


@dataclass(frozen=True)
class Read:
    """An artifact and the section it was read from."""

    artifact: Artifact
    section: Section


def check_paths_apart(read: Sequence[Read], own_files: Iterable[str]) -> None:
    """Report every artifact whose path is, holds or lies in another's, or in what labsync itself uses.

    Paths are compared as the least discerning file system would: by Unicode form and letter case.
    """
    own = {fold(path): f"labsync's own `{path}`" for path in (*OWN, *own_files)}
    for item in read:
        if path := item.artifact.path:
            _check_apart(item, fold(path), own)
    taken: dict[str, Read] = {}
    holding: dict[str, Read] = {}
    for item in read:
        if not item.artifact.path:
            continue
        folded = fold(item.artifact.path)
        above = tuple(_folders_above(folded))
        found = (taken.get(path) for path in (folded, *above))
        other = next((hit for hit in (*found, holding.get(folded)) if hit), None)
        if other:
            item.section.report(_path_key(item), f"{_relation(item, other)} of `{other.artifact.name}`")
        taken.setdefault(folded, item)
        for folder in above:
            holding.setdefault(folder, item)


def _folders_above(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _check_apart(item: Read, folded: str, own: dict[str, str]) -> None:
    for path, whose in own.items():
        if _overlap(path, folded):
            item.section.report(_path_key(item), f"the path `{item.artifact.path}` overlaps {whose}")
            return


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def _relation(item: Read, other: Read) -> str:
    mine, theirs = fold(item.artifact.path), fold(other.artifact.path)
    if mine == theirs:
        return f"the path `{item.artifact.path}` is also the path"
    if mine.startswith(f"{theirs}/"):
        return f"the path `{item.artifact.path}` lies in the path `{other.artifact.path}`"
    return f"the path `{item.artifact.path}` holds the path `{other.artifact.path}`"


def _path_key(item: Read) -> str:
    return "path" if item.section.find("path") is not None else ""


def check_places_apart(read: Sequence[Read], mirror: MirrorSpec, root: Path) -> None:
    """Report an artifact's path that overlaps its own `file:` origin, or the folder of the mirror."""
    for item in read:
        artifact = item.artifact
        if not artifact.path:
            continue
        path = os.path.normpath(root / artifact.path)
        origin = artifact.origin.removeprefix("file://").rstrip("/")
        if artifact.origin.startswith("file://") and _overlap(path, origin):
            item.section.report("origin", f"the origin and the path `{artifact.path}` overlap")
        if mirror.url.startswith("file://") and _overlap(path, mirror.url.removeprefix("file://")):
            item.section.report(_path_key(item), f"the path `{artifact.path}` overlaps the mirror's folder")


def check_repositories(read: Sequence[Read]) -> None:
    """Report one repository at one revision that the Hugging Face cache is to hold twice."""
    seen: dict[tuple[str, str], Read] = {}
    for item in read:
        artifact = item.artifact
        if not artifact.origin.startswith("hf://") or artifact.path:
            continue
        key = (fold(artifact.origin), artifact.revision or "main")
        other = seen.setdefault(key, item)
        if other is not item:
            item.section.report(
                "origin", f"`{other.artifact.name}` is the same repository at the same revision"
            )


def with_fallbacks(read: Sequence[Read]) -> tuple[Artifact, ...]:
    """Return the artifacts with the fallbacks of their smoke tests as `kind/name`, reporting unknown ones."""
    able = [item.artifact for item in read if item.artifact.kind in {"models", "checkpoints"}]
    return tuple(_with_fallbacks(item, able) for item in read)


def _with_fallbacks(item: Read, able: Sequence[Artifact]) -> Artifact:
    artifact = item.artifact
    smoke, section = artifact.smoke, item.section.section("smoke")
    if smoke is None or section is None or not smoke.fallback:
        return artifact
    names: list[str] = []
    for word in smoke.fallback:
        found = [other for other in able if word in {other.name, other.short_name}]
        if len(found) == 1 and found[0].name != artifact.name:
            names.append(found[0].name)
        elif len(found) > 1:
            section.report("fallback", f"`{word}` is several artifacts, write `kind/name`")
        elif found:
            section.report("fallback", "an artifact cannot be its own fallback")
        else:
            known = [name for other in able for name in (other.short_name, other.name)]
            section.report("fallback", f"`{word}` is no model or checkpoint{did_you_mean(word, known)}")
    return replace(artifact, smoke=replace(smoke, fallback=tuple(names)))


def matches(artifact: Artifact, word: str) -> bool:
    """Say whether a kind, a name, `kind/name` or a glob over them means this artifact."""
    if word == artifact.kind:
        return True
    return fnmatchcase(artifact.short_name, word) or fnmatchcase(artifact.name, word)


def read_groups(
    section: Section | None, artifacts: Sequence[Artifact]
) -> dict[str, tuple[ArtifactName, ...]]:
    """Return each group's members as `kind/name`, in the manifest's order."""
    groups: dict[str, tuple[ArtifactName, ...]] = {}
    if section is None:
        return groups
    short_names = {artifact.short_name for artifact in artifacts}
    for name in section.written:
        if not NAME.fullmatch(name):
            section.report(name, "a name is written `a-z 0-9 . _ -` and begins with a letter or digit")
        elif name in KINDS or name in short_names:
            section.report(
                name, f"`{name}` is the name of {'a kind' if name in KINDS else 'an artifact'} already"
            )
        members = {
            found.name for word in section.texts(name) for found in _members(section, name, word, artifacts)
        }
        groups[name] = tuple(artifact.name for artifact in artifacts if artifact.name in members)
    return groups


def _members(section: Section, group: str, word: str, artifacts: Sequence[Artifact]) -> list[Artifact]:
    found = [artifact for artifact in artifacts if matches(artifact, word)]
    if not found and word in section.written:
        section.report(group, f"`{word}` is a group; groups hold artifacts, not groups")
    elif not found:
        known = [name for artifact in artifacts for name in (artifact.short_name, artifact.name)]
        section.report(group, f"`{word}` names nothing{did_you_mean(word, known)}")
    return found


def closest(word: str, known: Iterable[str]) -> list[str]:
    """Return up to three known words close to this one."""
    return difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
