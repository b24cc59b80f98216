"""What an environment was built from, its digest, and the stamp that says the build came to its end.

`<prefix>/labsync-stamp.json`, written last:

    {"version": 1, "hash": <64 hex>, "inputs": {…}, "imports": [modules that were imported in it],
     "variables": {what programs in it find set}, "packages": [records of packages, conda's and pip's],
     "files": [paths that must be there]}
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import labsync
from labsync import atomic
from labsync.digest import sha256_bytes
from labsync.env.package import package_digest
from labsync.env.record import site_packages

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from labsync.env.base import EnvironmentRequest

VERSION = 1
STAMP = "labsync-stamp.json"
DIGITS = 12
# Whether torchvision needs help was decided at the build, and depends on these even when they are inherited.
_DECISIVE = ("torch", "torchvision")


def inputs_of(request: EnvironmentRequest) -> Mapping[str, object]:
    """Return everything that decides what the environment holds, as plain JSON values."""
    packages = request.lock.packages if request.lock else ()
    python = request.python
    inherited = {name: _version(name) for name in _DECISIVE} | {"paths": list(python.site_packages)}
    return {
        "manager": request.manager,
        "packages": sorted([one.manager, one.name, one.version, one.url, one.sha256] for one in packages),
        "libraries": sorted([one.name, one.origin, one.commit] for one in request.libraries),
        "labsync": [labsync.__version__, package_digest()],
        "python": None
        if request.manager == "conda"
        else [str(python.executable), os.path.realpath(python.executable), python.version],
        "inherit": inherited if request.inherit else None,
    }


def hash_of(inputs: Mapping[str, object]) -> str:
    """Return the digest of the inputs."""
    return sha256_bytes(json.dumps(inputs, sort_keys=True).encode())


def prefix_of(request: EnvironmentRequest, digest: str) -> Path:
    """Return the final path of the environment with these inputs."""
    return request.envs_dir / f"{request.name}-{digest[:DIGITS]}"


def write_stamp(
    prefix: Path, inputs: Mapping[str, object], imports: Iterable[str], variables: Mapping[str, str]
) -> None:
    """Say that the build came to its end and that these modules import; the rest is durable by then.

    `variables` are what programs in the environment find set.
    """
    site = site_packages(prefix)
    files = [prefix / "bin" / "python", prefix / "pyvenv.cfg", *sorted(site.glob("*.pth"))]
    files += sorted(site.glob("*.dist-info/RECORD"))
    files += sorted((prefix / "conda-meta").glob("*.json"))
    stamp = {
        "version": VERSION,
        "hash": hash_of(inputs),
        "inputs": inputs,
        "imports": sorted(imports),
        "variables": dict(variables),
        "packages": sorted(_packages(prefix)),
        "files": [path.relative_to(prefix).as_posix() for path in files if path.exists()],
    }
    atomic.write_bytes(prefix / STAMP, json.dumps(stamp, indent=1, sort_keys=True).encode())


def is_intact(prefix: Path, digest: str) -> bool:
    """Say whether the environment was built to the end from these inputs, and its main files are there."""
    stamp = _read(prefix)
    if stamp.get("version") != VERSION or stamp.get("hash") != digest:
        return False
    files = stamp.get("files")
    return isinstance(files, list) and all(
        isinstance(name, str) and (prefix / name).exists() for name in files
    )


def imported(prefix: Path) -> frozenset[str]:
    """Return the modules that have been seen to import in the environment."""
    names = _read(prefix).get("imports")
    return frozenset(map(str, names)) if isinstance(names, list) else frozenset()


def is_built(prefix: Path) -> bool:
    """Say whether a build came to its end here, whatever it was built from."""
    return bool(_read(prefix).get("hash")) and (prefix / "bin" / "python").exists()


def installed_by_hand(prefix: Path) -> tuple[str, ...]:
    """Return what was installed, replaced or removed since the build, as `name version`, sorted."""
    built = _read(prefix).get("packages")
    if not isinstance(built, list):
        return ()
    now, before = _packages(prefix), {str(one) for one in built}
    added = sorted(_shown(one) for one in now - before)
    removed = sorted(f"{_shown(one)} (removed)" for one in before - now)
    replaced = {text.partition(" ")[0] for text in added}
    return (*added, *(text for text in removed if text.partition(" ")[0] not in replaced))


def _packages(prefix: Path) -> set[str]:
    """Return the names of conda's records and of the folders of Python's, which say name and version."""
    records = {path.name.removesuffix(".json") for path in (prefix / "conda-meta").glob("*.json")}
    return records | {path.name for path in site_packages(prefix).glob("*.dist-info")}


def _shown(record: str) -> str:
    if record.endswith(".dist-info"):
        name, _, version = record.removesuffix(".dist-info").partition("-")
        return f"{name.replace('_', '-')} {version}"
    name, version, _ = record.rsplit("-", 2)
    return f"{name} {version}"


def variables_of(prefix: Path) -> Mapping[str, str]:
    """Return what programs in the environment find set; empty where it was not built to the end."""
    found = _read(prefix).get("variables")
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _read(prefix: Path) -> Mapping[str, object]:
    try:
        stamp: object = json.loads((prefix / STAMP).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _version(name: str) -> str:
    import importlib.metadata  # `status` reads stamps, and starts sooner without it

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
