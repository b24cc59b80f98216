"""What conda knows of a prefix: one record per package in `conda-meta`, with every file it installed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from labsync.env.lock import normal_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

META = "conda-meta"


def records(prefix: Path) -> Iterator[Mapping[str, object]]:
    """Yield the record of each package that conda installed.

    One that cannot be read (a full disk leaves them empty) has only `name` and `unreadable`, its path.
    """
    for path in sorted((prefix / META).glob("*.json")):
        try:
            record: object = json.loads(path.read_bytes())
        except (OSError, ValueError):
            record = None
        if isinstance(record, dict):
            yield record
        else:
            yield {"name": path.stem.rsplit("-", 2)[0], "unreadable": path}


def conda_distributions(prefix: Path) -> Mapping[str, str]:
    """Return the Python distributions that conda installed: normal name, and whose package it is."""
    found = {}
    for record in records(prefix):
        files = record.get("files")
        for file in files if isinstance(files, list) else ():
            folder, _, name = str(file).rpartition("/")
            if name == "METADATA" and folder.endswith(".dist-info"):
                distribution = folder.rpartition("/")[2].removesuffix(".dist-info").rpartition("-")[0]
                found[normal_name(distribution)] = str(record.get("name"))
    return found
