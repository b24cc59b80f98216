"""The pip layer of an environment: uv installs the locked wheels, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labsync import atomic
from labsync.env.lock import normal_name
from labsync.env.packages import WHEELS, package_path
from labsync.env.record import damaged_files, dist_infos
from labsync.events import Note

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from labsync.env.base import EnvironmentRequest
    from labsync.env.lock import LockedPackage
    from labsync.env.tools import Tools
    from labsync.env.verify import Damage


def install_wheels(
    packages: Sequence[LockedPackage], prefix: Path, tools: Tools, folder: Path | None = None
) -> None:
    """Install exactly these wheels, each checked against its digest; EnvironmentFailedError (13).

    Those that lie in the folder (see `env.packages`) are taken from there.
    """
    size = sum(package.size for package in packages) / 2**20
    tools.observe(Note(f"installing {len(packages)} wheels" + (f", {size:,.0f} MiB" if size >= 1 else "")))
    _install(packages, prefix, tools, "install the locked packages", folder=folder)
    if damaged := _damaged(packages, prefix):
        # uv trusts its cache, and a file edited in an older environment is the cache's own: both are links.
        again = [one for one in packages if normal_name(one.name) in damaged]
        _install_again(again, prefix, tools, folder)


def repair_wheels(request: EnvironmentRequest, prefix: Path, damage: Damage, tools: Tools) -> None:
    """Install the damaged wheels of the lock anew, past a cache that may share the damage."""
    locked = request.lock.of("pip") if request.lock else ()
    if wheels := [one for one in locked if normal_name(one.name) in damage.pip]:
        _install_again(wheels, prefix, tools, request.packages)


def _install_again(
    packages: Sequence[LockedPackage], prefix: Path, tools: Tools, folder: Path | None
) -> None:
    doing = "install the locked packages again"
    _install(packages, prefix, tools, doing, "--reinstall", "--no-cache", folder=folder)
    if damaged := _damaged(packages, prefix):
        raise tools.failed(f"installed packages are damaged: {', '.join(damaged[:5])}")


def _install(
    packages: Sequence[LockedPackage],
    prefix: Path,
    tools: Tools,
    doing: str,
    *options: str,
    folder: Path | None = None,
) -> None:
    requirements = prefix / "labsync-requirements.txt"
    lines = (f"{_requirement(one, folder)} --hash=sha256:{one.sha256}\n" for one in packages)
    atomic.write_bytes(requirements, "".join(lines).encode())
    # By version and not by path: uv would record the path as where the wheel came from.
    wheels = ("--find-links", str(folder / WHEELS)) if folder and (folder / WHEELS).is_dir() else ()
    tools.uv(
        [
            "pip", "install", "--no-config", "--python", str(prefix / "bin" / "python"), "--require-hashes",
            "--no-deps", "--no-index", "--only-binary", ":all:", *wheels,
            "--requirement", str(requirements), *options,
        ],
        doing,
    )  # fmt: skip


def _requirement(package: LockedPackage, folder: Path | None) -> str:
    if folder and (folder / package_path(package)).is_file():
        return f"{package.name}=={package.version}"
    return f"{package.name} @ {package.url}"


def _damaged(packages: Sequence[LockedPackage], prefix: Path) -> list[str]:
    installed = dist_infos(prefix)
    names = [normal_name(package.name) for package in packages]
    return [name for name in names if name not in installed or any(damaged_files(installed[name]))]
