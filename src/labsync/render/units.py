"""Counts as people read them."""

from __future__ import annotations


def size(count: int) -> str:
    """Return a byte count as people read it, in binary units."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if round(value, 1) < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def files(count: int) -> str:
    """Return a number of files in words: `1 file`, `12 files`."""
    return f"{count} file" if count == 1 else f"{count} files"
