"""Manager venv: an environment on an existing Python, its packages installed by uv from the lock."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from labsync import atomic
from labsync.env.pip import install_wheels, repair_wheels
from labsync.env.record import site_packages
from labsync.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from labsync.env.base import EnvironmentRequest
    from labsync.env.lock import LockedPackage
    from labsync.env.tools import Tools
    from labsync.env.verify import Damage

INHERIT = "_labsync_inherit.pth"


class VenvManager:
    """Makes a virtual environment; with `inherit` it also sees the packages of the running Python."""

    def create(self, request: EnvironmentRequest, prefix: Path, tools: Tools) -> None:
        """Make the environment and install the locked wheels, each checked against its digest."""
        packages = request.lock.packages if request.lock else ()
        _check(request, packages)
        tools.uv(
            [
                "venv", "--no-config", "--no-project", "--python", str(request.python.executable),
                "--prompt", request.name, str(prefix),
            ],
            "make the virtual environment",
        )  # fmt: skip
        if request.inherit:
            _inherit(prefix, request.python.site_packages)
        if packages:
            install_wheels(packages, prefix, tools, request.packages)

    def repair(self, request: EnvironmentRequest, prefix: Path, damage: Damage, tools: Tools) -> None:
        """Install the damaged wheels anew."""
        repair_wheels(request, prefix, damage, tools)

    def variables(self, request: EnvironmentRequest, prefix: Path, tools: Tools) -> Mapping[str, str]:  # noqa: ARG002
        """Return what `activate` of a virtual environment sets."""
        return {"PATH": f"{prefix}/bin:${{PATH}}", "VIRTUAL_ENV": str(prefix)}


def _check(request: EnvironmentRequest, packages: Sequence[LockedPackage]) -> None:
    lock = request.lock
    if conda := [package.name for package in packages if package.manager == "conda"]:
        raise InvalidError(
            f"the environment's lock holds packages of conda: {', '.join(conda[:5])}",
            hint="manager `venv` installs wheels only; make the lock anew with `labsync env lock`",
        )
    if lock and lock.python and lock.python != request.python.minor:
        raise InvalidError(
            f"the environment's lock is for Python {lock.python}, and this is {request.python.version}",
            hint=f"run labsync with Python {lock.python}, or make the lock anew with `labsync env lock`",
        )


def _inherit(prefix: Path, folders: Sequence[str]) -> None:
    # A venv made from a venv sees only the base Python's packages, hence not `--system-site-packages`.
    # `addsitedir` also runs the `.pth` files there, which editable installs need, and appends, so that
    # the environment's own packages win.
    lines = [f"import site; site.addsitedir({json.dumps(folder)})\n" for folder in folders]
    atomic.write_bytes(site_packages(prefix) / INHERIT, "".join(lines).encode())
