"""Read every file of an environment again and compare; put right what is damaged, package by package."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labsync import atomic
from labsync.digest import sha256_bytes, sha256_file
from labsync.env.conda_meta import conda_distributions, records
from labsync.env.record import damaged_files, dist_infos

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_THREADS = 4
_LINK = "softlink"


@dataclass(frozen=True, slots=True)
class Damage:
    """Files that are missing or wrong, by package: conda's own, and Python's distributions beside them."""

    conda: Mapping[str, tuple[Path, ...]]
    pip: Mapping[str, tuple[Path, ...]]

    def __bool__(self) -> bool:
        return bool(self.conda or self.pip)

    def __str__(self) -> str:
        found = [*self.conda.items(), *self.pip.items()]
        files = sum(len(paths) for _, paths in found)
        names = ", ".join(f"`{name}`" for name, _ in found[:5]) + (" …" if len(found) > 5 else "")
        return f"{files} {'file' if files == 1 else 'files'} damaged or missing, of {names}"


def find_damage(prefix: Path) -> Damage:
    """Hash every file that a package installed here; raises DiskError (9) for one that cannot be read.

    What was installed by hand is judged by its own record, what Python compiled is left out.
    """
    with atomic.disk_errors(prefix), ThreadPoolExecutor(_THREADS) as pool:
        known = list(records(prefix))
        listed = [(str(record.get("name")), path) for record in known for path in _paths(record)]
        answers = list(pool.map(lambda item: _is_right(prefix, item[1]), listed))
        conda: dict[str, tuple[Path, ...]] = {
            str(record["name"]): (path,)
            for record in known
            if isinstance(path := record.get("unreadable"), Path)
        }
        for (name, path), right in zip(listed, answers, strict=True):
            if not right:
                conda[name] = (*conda.get(name, ()), prefix / str(path["_path"]))
        owned = conda_distributions(prefix)
        others = {name: info for name, info in dist_infos(prefix).items() if name not in owned}
        found = zip(others, pool.map(lambda info: tuple(_damaged(info)), others.values()), strict=True)
        return Damage(conda, {name: paths for name, paths in found if paths})


def _damaged(info: Path) -> Iterator[Path]:
    if (info / "RECORD").is_file():
        yield from damaged_files(info)
    else:
        yield info / "RECORD"


def _paths(record: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    data = record.get("paths_data")
    paths = data.get("paths") if isinstance(data, dict) else None
    for path in paths if isinstance(paths, list) else ():
        if isinstance(path, dict):
            yield path


def _is_right(prefix: Path, entry: Mapping[str, object]) -> bool:
    path = prefix / str(entry["_path"])
    expected = entry.get("sha256_in_prefix") or entry.get("sha256")
    if entry.get("path_type") == _LINK:
        # Of a link the digest in the prefix is that of its text.
        if not path.is_symlink():
            return False
        recorded = entry.get("sha256_in_prefix")
        return recorded is None or sha256_bytes(os.fsencode(os.readlink(path))) == recorded
    if not path.is_file():
        return entry.get("path_type") == "directory" and path.is_dir()
    return expected is None or sha256_file(path)[0] == expected
