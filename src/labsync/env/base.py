"""What is asked of an environment, and the contract of a manager that makes one."""

from __future__ import annotations

import os
import platform
import site
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from labsync.settings import home_dir

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labsync.env.lock import EnvironmentLock
    from labsync.env.tools import Tools
    from labsync.env.verify import Damage
    from labsync.manifest.model import Manager as ManagerName
    from labsync.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that environments are made from; `site_packages` is what `inherit` makes visible."""

    executable: Path
    version: str
    site_packages: tuple[str, ...]

    @classmethod
    def running(cls) -> Interpreter:
        """Return the Python that runs labsync."""
        return cls(Path(sys.executable), platform.python_version(), running_site_packages())

    @property
    def minor(self) -> str:
        """Major and minor, as in `3.11`: what a wheel is made for."""
        return ".".join(self.version.split(".")[:2])


def running_site_packages() -> tuple[str, ...]:
    """Return the folders where the packages of the running Python lie, the first winning."""
    folders = list(site.getsitepackages())
    if site.ENABLE_USER_SITE:
        folders.insert(0, site.getusersitepackages())
    return tuple(folder for folder in dict.fromkeys(folders) if os.path.isdir(folder))


@dataclass(frozen=True, slots=True)
class Library:
    """A git library to install from its pinned tree.

    `origin` is the repository's URL, `requested` the branch or tag that the user wrote. With
    `snapshot` only its files are installed, and each is checked first; without it the tree is
    taken as it lies there, `.git` left out.
    """

    name: str
    tree: Path
    origin: str
    commit: str
    requested: str = ""
    snapshot: Snapshot | None = None


@dataclass(frozen=True, slots=True)
class EnvironmentRequest:
    """Everything that decides an environment; `imports` are the modules that must import in it.

    `lock` is None only where nothing is added to what `inherit` makes visible. `conda_envs` is where
    conda looks for environments by name; only an environment of manager conda is shown there. `spared`
    are versions that stay although no process runs in them: those that kernels name. `packages` is a
    folder that some of the locked files lie in (see `env.packages`), which are taken from there then.
    """

    name: str
    manager: ManagerName = "venv"
    inherit: bool = False
    lock: EnvironmentLock | None = None
    libraries: tuple[Library, ...] = ()
    imports: tuple[str, ...] = ()
    home: Path = field(default_factory=lambda: home_dir(os.environ))
    conda_envs: Path = field(default_factory=lambda: conda_envs_dir(os.environ))
    spared: tuple[Path, ...] = ()
    packages: Path | None = None
    offline: bool = False
    python: Interpreter = field(default_factory=Interpreter.running)

    @property
    def envs_dir(self) -> Path:
        """Where the environments lie."""
        return self.home / "envs"


def conda_envs_dir(env: Mapping[str, str]) -> Path:
    """Return the user's own folder of conda environments."""
    return Path(env.get("HOME") or "~").expanduser() / ".conda" / "envs"


class Manager(Protocol):
    """Makes environments of one kind; the frame around it (`labsync.env.build`) is the same for all."""

    def create(self, request: EnvironmentRequest, prefix: Path, tools: Tools) -> None:
        """Make the environment at its final path `prefix`, with every locked package and nothing else.

        `prefix` does not exist before. Every package has the locked digest afterwards, and
        `prefix/bin/python` runs. Raises EnvironmentFailedError (13), InvalidError (3) for a lock
        that this manager cannot install; what lies at `prefix` then is removed by the caller.
        """

    def repair(self, request: EnvironmentRequest, prefix: Path, damage: Damage, tools: Tools) -> None:
        """Install anew what is damaged of the lock's packages, in the environment as it stands.

        Raises as `create`; nothing is removed then.
        """

    def variables(self, request: EnvironmentRequest, prefix: Path, tools: Tools) -> Mapping[str, str]:
        """Return what programs find set in the environment, asked once when it is whole.

        `${PATH}` stands for the path as it is without the environment, `$$` for a `$`.
        """


def manager_for(name: ManagerName) -> Manager:
    """Return the manager of this name."""
    from labsync.env.conda import CondaManager
    from labsync.env.venv import VenvManager

    return CondaManager() if name == "conda" else VenvManager()
