"""Begin a lab: write a manifest from a template, never over an existing one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labsync import atomic
from labsync.errors import RefusedError
from labsync.manifest.templates import template_files, template_text

if TYPE_CHECKING:
    from pathlib import Path

    from labsync.manifest.templates import TemplateName


def write_manifest(folder: Path, template: TemplateName, *, dry_run: bool) -> Path:
    """Write `labsync.yaml` into the folder and return its path; RefusedError when there is one.

    The environment file that it names is written beside it, unless there is one already.
    """
    path = folder / "labsync.yaml"
    refusal = RefusedError(
        f"`{path}` exists already", path=str(path), hint="edit it, or run `labsync init` in another folder"
    )
    if path.exists():
        raise refusal
    if not dry_run and not atomic.create_bytes(path, template_text(template).encode()):
        raise refusal
    if not dry_run:
        for beside, text in template_files(template).items():
            atomic.create_bytes(folder / beside, text.encode())
    return path
