"""Make the lock of a conda spec: py-rattler chooses conda's packages, uv the wheels beside them."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.env.content_hash import virtual_packages
from labsync.env.lock import EnvironmentLock, LockedPackage, current_platform, normal_name
from labsync.env.lock_text import write_env_lock
from labsync.env.rattler_client import ask
from labsync.env.resolve import PYPI, PackageIndexes, Target, resolve_pip
from labsync.errors import InvalidError
from labsync.events import Note
from labsync.secrets import find_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from labsync.env.lock import PackageManager
    from labsync.env.spec import EnvironmentFile
    from labsync.env.tools import Tools

# Where conda calls a distribution otherwise than Python's package index does.
_NAMES = {
    "pytorch": "torch", "pytorch-cpu": "torch", "pytorch-gpu": "torch", "matplotlib-base": "matplotlib",
    "py-opencv": "opencv-python", "python-tzdata": "tzdata", "msgpack-python": "msgpack",
    "libprotobuf-python": "protobuf", "importlib_metadata": "importlib-metadata",
}  # fmt: skip
# What conda's OpenCV provides is all of these: each has the module `cv2`.
_OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
_TOKEN = re.compile(r"/t/[^/]+/")  # as conda writes a channel's token into its address
_PIP_VERSION = re.compile(r"[0-9]+(?:\.[0-9]+)*(?:(?:a|b|rc)[0-9]+)?(?:\.post[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Held:
    """An older lock whose versions stay where they can; those of `free` may move, and what these need."""

    lock: EnvironmentLock
    free: frozenset[str] = frozenset()

    def versions(self, manager: PackageManager) -> tuple[str, ...]:
        """Return the versions that stay, as requirements."""
        packages = self.lock.of(manager)
        return tuple(
            f"{one.name}=={one.version}" for one in packages if normal_name(one.name) not in self.free
        )


def lock_conda(
    spec: EnvironmentFile,
    tools: Tools,
    held: Held | None = None,
    indexes: PackageIndexes = PYPI,
) -> EnvironmentLock:
    """Choose every package of the spec for the machine it declares; nothing is installed.

    The machine need not be this one: a lock for a GPU is made without one. No wheel replaces a package
    of conda. Raises EnvironmentFailedError (13) with the solver's own explanation when nothing fits
    together or a channel does not answer, InvalidError (3) for a spec that cannot be locked.
    """
    platform = current_platform()
    target = virtual_packages(platform, dict(spec.target))
    gpu = f" and CUDA {target['__cuda']}" if "__cuda" in target else ""
    tools.observe(Note(f"choosing packages from {', '.join(spec.channels)} for {platform}{gpu}"))
    packages = _solve(spec, platform, target, tools, held)
    python = next((one.version for one in packages if one.name == "python"), "")
    wheels: Sequence[LockedPackage] = ()
    if spec.requirements:
        machine = Target(python, platform, target["__glibc"])
        bounds = (*_constraints(packages), *(held.versions("pip") if held else ()))
        wheels = resolve_pip(spec, machine, tools, indexes, constraints=bounds, provided=_provided(packages))
    return EnvironmentLock(
        platform,
        spec.content_hash(platform),
        (*packages, *wheels),
        ".".join(python.split(".")[:2]),
        (Path(spec.path).name,),
        spec.channels,
        tuple(target.items()),
    )


def _solve(
    spec: EnvironmentFile, platform: str, target: Mapping[str, str], tools: Tools, held: Held | None
) -> tuple[LockedPackage, ...]:
    with tempfile.TemporaryDirectory(prefix="labsync-solve-") as work:
        locked = Path(work) / "conda-lock.yml"
        if held:
            write_env_lock(locked, EnvironmentLock(platform, "", held.lock.of("conda")))
        task = {
            "task": "solve",
            "channels": list(spec.channels),
            "specs": [package.match_spec for package in spec.packages] + (["pip"] if spec.has_pip else []),
            "platform": platform,
            "virtual": [f"{name} {version}" for name, version in target.items()],
            "locked": str(locked) if held else "",
            "free": sorted(held.free) if held else [],
            "cache": str(tools.caches / "repodata"),
        }
        rows = ask(tools, f"choose packages for `{spec.path}`", task)
    assert isinstance(rows, list)
    packages = (_package(row, spec) for row in sorted(rows, key=lambda row: str(row["name"])))
    # Of what is held rattler only knows what it read from the lock, where it finds no sizes.
    sizes = {one.sha256: one.size for one in held.lock.packages} if held else {}
    return tuple(one if one.size else replace(one, size=sizes.get(one.sha256, 0)) for one in packages)


def _package(row: Mapping[str, object], spec: EnvironmentFile) -> LockedPackage:
    depends = row["depends"]
    assert isinstance(depends, list)
    pairs = dict(sorted(_dependency(str(one)) for one in depends))
    if find_secrets(str(row["url"])) or _TOKEN.search(str(row["url"])):
        raise InvalidError(
            f"the URL of `{row['name']}` holds a password or token, and the lock is kept in git",
            path=spec.path,
            hint="take it from a channel that needs none, or from a mirror of it",
        )
    if not row["sha256"] or not row["md5"]:
        raise InvalidError(
            f"the channel tells no SHA-256 of `{row['name']}`, so its bytes could not be checked",
            path=spec.path,
            hint="take it from another channel, as in `conda-forge::NAME`",
        )
    return LockedPackage(
        str(row["name"]),
        str(row["version"]),
        str(row["url"]),
        str(row["sha256"]),
        "conda",
        tuple(pairs.items()),
        str(row["md5"]),
        int(str(row["size"])),
    )


def _dependency(text: str) -> tuple[str, str]:
    name, _, spec = text.partition(" ")
    return name, "" if spec == "*" else spec


def _provided(packages: Sequence[LockedPackage]) -> frozenset[str]:
    """Return the distributions that conda's packages provide, as Python's package index calls them."""
    names = {_NAMES.get(one.name, normal_name(one.name)) for one in packages}
    opencv = _OPENCV if "opencv-python" in names or "opencv" in names else ()
    return frozenset((*names, *opencv))


def _constraints(packages: Sequence[LockedPackage]) -> Iterator[str]:
    for one in packages:
        if _PIP_VERSION.fullmatch(one.version) and any(name == "python" for name, _ in one.dependencies):
            yield f"{_NAMES.get(one.name, normal_name(one.name))}=={one.version}"
