"""The locked files of an environment as a folder: how they are named there, and what of them is at hand.

```
conda/<subdir>/<file>                       conda's packages; with a package list it would be a channel
wheels/<file>                               wheels from Python's package index
libraries/<name>/<commit>/<for>/<file>      wheels of git libraries; <for> is `any`, or names the environment
```
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from labsync.digest import sha256_bytes
from labsync.env.lock import normal_name
from labsync.env.record import dist_infos
from labsync.env.switch import current

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from labsync.env.base import EnvironmentRequest, Library
    from labsync.env.lock import LockedPackage

ANY = "any"
WHEELS = "wheels"


def package_path(package: LockedPackage) -> str:
    """Return the path of a locked file in the folder."""
    if package.manager == "pip":
        return f"{WHEELS}/{package.file_name}"
    subdir = urlsplit(package.url).path.split("/")[-2]
    return f"conda/{subdir}/{package.file_name}"


def library_folders(request: EnvironmentRequest, library: Library) -> tuple[str, str]:
    """Return where a library's wheel lies: one for every Python, or one for this very environment."""
    packages = request.lock.packages if request.lock else ()
    python = (request.lock.python if request.lock else "") or request.python.minor
    decisive = [python, sorted([one.name, one.version, one.sha256] for one in packages)]
    key = sha256_bytes(json.dumps(decisive).encode())[:12]
    base = f"libraries/{library.name}/{library.commit}"
    return f"{base}/{ANY}", f"{base}/{key}"


def local_files(request: EnvironmentRequest, packages: Sequence[LockedPackage]) -> Mapping[str, Path]:
    """Return the files of packages that lie in the request's folder of them, by URL."""
    if request.packages is None:
        return {}
    paths = {package.url: request.packages / package_path(package) for package in packages}
    return {url: path for url, path in paths.items() if path.is_file()}


def missing(request: EnvironmentRequest) -> Iterator[LockedPackage]:
    """Yield the locked packages that neither a cache nor the current environment has unpacked."""
    if request.lock is None:
        return
    unpacked = request.home / "pkgs" / "conda"
    here = current(request.envs_dir, request.name)
    wheels = dist_infos(here).values() if here else ()
    have = {normal_name(info.name.removesuffix(".dist-info")) for info in wheels}
    for package in request.lock.packages:
        if package.manager == "conda":
            stem = package.file_name.removesuffix(".conda").removesuffix(".tar.bz2")
            known = (unpacked / stem).is_dir()
        else:
            known = normal_name(f"{package.name}-{package.version}") in have
        if not known:
            yield package


# No index tells how large a package is when it is unpacked: CUDA's libraries are 1.5 times their wheel,
# Python's own text is 4.4 times its package.
UNPACKED = 3


def bytes_to_build(request: EnvironmentRequest) -> int:
    """Return about how many bytes building it would add to the disk; what is unpacked already is linked."""
    return sum(package.size for package in missing(request)) * UNPACKED
