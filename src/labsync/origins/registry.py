"""Which origin serves which scheme: one line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labsync.origins.git import GitOrigin
from labsync.origins.huggingface import HuggingFaceOrigin
from labsync.origins.url import UrlOrigin

if TYPE_CHECKING:
    from pathlib import Path

    from labsync.manifest.model import Artifact
    from labsync.origins.base import Origin


def origin_for(artifact: Artifact, scratch: Path) -> Origin:
    """Return the origin of a sourced artifact; `scratch` is a folder that origins may fill and lose."""
    scheme = artifact.origin.partition(":")[0]
    if scheme == "hf":
        return HuggingFaceOrigin()
    if scheme.startswith("git+"):
        return GitOrigin(scratch)
    return UrlOrigin()
