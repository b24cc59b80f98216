"""Which kind of mirror an address names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from labsync.errors import InvalidError

if TYPE_CHECKING:
    from labsync.manifest.model import MirrorSpec
    from labsync.mirrors.base import Mirror


def open_mirror(spec: MirrorSpec, conditional: bool | None = None) -> Mirror:
    """Return the mirror of a manifest; nothing is asked or made before the first use.

    `conditional` is what an earlier `probe` of this mirror said; with None an S3 server that is not
    Amazon's is probed before the first write.
    """
    if spec.url.startswith("s3://"):
        from labsync.mirrors.s3 import S3Mirror

        return S3Mirror(spec, conditional=conditional)
    if spec.url.startswith("file:///"):
        from labsync.mirrors.directory import DirectoryMirror

        return DirectoryMirror(Path(spec.url.removeprefix("file://")), single_writer=spec.single_writer)
    raise InvalidError(
        f"`{spec.url}` is no address of a mirror",
        hint="write `mirror: s3://bucket/prefix` or `mirror: ./folder` in the manifest",
    )
