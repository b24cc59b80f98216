"""The repository beside the files of a library: where it lies, and what it stands on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

GIT_DIR = ".git"


def standing(tree: Path) -> str:
    """Return what `HEAD` of a checkout says: a commit, or `ref: refs/heads/…`; empty where there is none.

    No git is asked: this is what a command looks at when there is nothing to do.
    """
    try:
        return (tree / GIT_DIR / "HEAD").read_text("ascii", "replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
