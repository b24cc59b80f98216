"""How much room a build takes, from the sizes that the lock recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labsync.env.lock import normal_name
from labsync.env.record import dist_infos
from labsync.env.switch import current

if TYPE_CHECKING:
    from labsync.env.base import EnvironmentRequest

# No index tells how large a package is when it is unpacked: CUDA's libraries are 1.5 times their wheel,
# Python's own text is 4.4 times its package.
UNPACKED = 3


def bytes_to_build(request: EnvironmentRequest) -> int:
    """Return about how many bytes building it would add to the disk.

    What the caches or the current environment have unpacked is linked, and takes none.
    """
    if request.lock is None:
        return 0
    unpacked = request.home / "pkgs" / "conda"
    here = current(request.envs_dir, request.name)
    wheels = {f"{info.name}" for info in dist_infos(here).values()} if here else set[str]()
    have = {normal_name(name.removesuffix(".dist-info")) for name in wheels}
    missing = 0
    for package in request.lock.packages:
        if package.manager == "conda":
            stem = package.file_name.removesuffix(".conda").removesuffix(".tar.bz2")
            known = (unpacked / stem).is_dir()
        else:
            known = normal_name(f"{package.name}-{package.version}") in have
        missing += 0 if known else package.size
    return missing * UNPACKED
