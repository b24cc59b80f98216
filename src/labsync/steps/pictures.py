"""What models saw when they were last run: one PNG each, kept until the next run for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labsync import atomic

if TYPE_CHECKING:
    from pathlib import Path

    from labsync.steps.lab import Lab


def keep_picture(lab: Lab, name: str, picture: bytes) -> None:
    """Keep the picture of the artifact `name`; without a new one an older one would be a lie, and goes."""
    path = _path(lab, name)
    if picture:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(path, picture)
    else:
        path.unlink(missing_ok=True)


def kept_picture(lab: Lab, name: str) -> bytes:
    """Return the PNG of the artifact's last run, empty where there is none."""
    path = _path(lab, name)
    return path.read_bytes() if path.is_file() else b""


def _path(lab: Lab, name: str) -> Path:
    return lab.manifest.state_dir / "smoke" / f"{name.replace('/', '--')}.png"
