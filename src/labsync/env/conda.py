"""Manager conda: an environment of conda's own packages, made by py-rattler without any conda executable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from labsync.digest import sha256_file
from labsync.env.activation import activation
from labsync.env.conda_meta import conda_distributions
from labsync.env.lock import EnvironmentLock, normal_name
from labsync.env.lock_text import write_env_lock
from labsync.env.machine import check_machine
from labsync.env.packages import local_files
from labsync.env.pip import install_wheels, repair_wheels
from labsync.env.rattler_client import ask
from labsync.errors import InvalidError
from labsync.events import TransferEnded, TransferPlanned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from labsync.env.base import EnvironmentRequest
    from labsync.env.lock import LockedPackage
    from labsync.env.tools import Tools
    from labsync.env.verify import Damage

# The least that packages leave for the path, which is written over a placeholder in their binaries.
LONGEST_PREFIX = 240


class CondaManager:
    """Makes environments that conda itself takes for its own, Python included."""

    def create(self, request: EnvironmentRequest, prefix: Path, tools: Tools) -> None:
        """Install the locked packages of conda, then the locked wheels, each checked against its digest."""
        lock = _checked(request, prefix, tools)
        install_packages(lock, prefix, tools, files=local_files(request, lock.packages))
        wheels = lock.of("pip")
        _refuse_overlap(wheels, prefix, tools)
        if wheels:
            install_wheels(wheels, prefix, tools, request.packages)

    def repair(self, request: EnvironmentRequest, prefix: Path, damage: Damage, tools: Tools) -> None:
        """Link the damaged packages anew from a cache that is hashed first, then install the wheels."""
        if damage.conda and request.lock:
            files = local_files(request, request.lock.packages)
            install_packages(request.lock, prefix, tools, files=files, reinstall=tuple(damage.conda))
        repair_wheels(request, prefix, damage, tools)

    def variables(self, request: EnvironmentRequest, prefix: Path, tools: Tools) -> Mapping[str, str]:
        """Return what `conda activate` sets, the environment's own scripts included."""
        return activation(request.name, prefix, tools)


def install_packages(
    lock: EnvironmentLock,
    prefix: Path,
    tools: Tools,
    *,
    files: Mapping[str, Path] = MappingProxyType({}),
    reinstall: Sequence[str] = (),
) -> None:
    """Bring the prefix to exactly the lock's packages of conda; `reinstall` names those to link anew.

    `files` are files on this disk that are taken for those at the URLs.
    What is unpacked in the cache is hashed first and fetched again where it is wrong. Raises
    EnvironmentFailedError (13), DiskError (9).
    """
    packages = lock.of("conda")
    files = {**_on_this_disk(packages), **{one.url: files[one.url] for one in packages if one.url in files}}
    _check_files(packages, files, tools)
    tools.observe(TransferPlanned("packages", len(packages), sum(one.size for one in packages)))
    try:
        path = prefix / "labsync-lock.yaml"
        write_env_lock(path, replace(lock, packages=packages))
        task = {
            "task": "install",
            "lock": str(path),
            "prefix": str(prefix),
            "cache": str(tools.caches / "conda"),
            "reinstall": list(reinstall),
            "files": {url: file.as_uri() for url, file in files.items()},
        }
        ask(tools, "install the packages of conda", task)
    finally:
        tools.observe(TransferEnded())


def _on_this_disk(packages: Sequence[LockedPackage]) -> dict[str, Path]:
    parts = {package.url: urlsplit(package.url) for package in packages}
    return {url: Path(unquote(part.path)) for url, part in parts.items() if part.scheme == "file"}


def _check_files(packages: Sequence[LockedPackage], files: Mapping[str, Path], tools: Tools) -> None:
    """Hash what lies on this disk: rattler compares digests only of what it downloads."""
    for package in packages:
        if (path := files.get(package.url)) is None:
            continue
        if not path.is_file():
            raise tools.failed(f"the package `{path}` does not exist", "the channel may have moved")
        if (digest := sha256_file(path)[0]) != package.sha256:
            raise tools.failed(
                f"hash mismatch of `{path}`: locked is {package.sha256}, and it has {digest}",
                "the channel has other bytes than were locked; `labsync env lock` locks what it has now",
            )


def _checked(request: EnvironmentRequest, prefix: Path, tools: Tools) -> EnvironmentLock:
    lock = request.lock
    if lock is None or not lock.of("conda"):
        raise InvalidError(
            "the environment's lock holds no packages of conda",
            hint="`labsync env lock` makes one from the spec, or write `manager: venv`",
        )
    if request.inherit:
        raise InvalidError("`inherit: true` belongs to manager `venv`", hint="take it out")
    if len(str(prefix)) > LONGEST_PREFIX:
        raise InvalidError(
            f"the path `{prefix}` is longer than the {LONGEST_PREFIX} characters that packages leave for it",
            hint="set LABSYNC_HOME to a shorter path",
        )
    check_machine(lock, tools.observe)
    return lock


def _refuse_overlap(wheels: Sequence[LockedPackage], prefix: Path, tools: Tools) -> None:
    """Refuse a wheel of what conda installed: uv would replace it, and conda's records would lie."""
    owned = conda_distributions(prefix)
    if both := [one.name for one in wheels if normal_name(one.name) in owned]:
        raise tools.failed(
            f"`{both[0]}` is locked as a package of conda (`{owned[normal_name(both[0])]}`) and as a wheel",
            "take one of the two out of the spec, then `labsync env lock`",
        )
