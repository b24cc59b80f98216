"""A box whose environment is conda's, on the channel that the tests make."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from labsync import process
from labsync.env.base import EnvironmentRequest
from labsync.env.conda_lock import lock_conda
from labsync.env.repair import repair_environment, verify_environment
from labsync.env.spec import parse_spec
from labsync.env.tools import Tools
from labsync.events import ignore
from tests.fakes.box import Box
from tests.fakes.channel import MINOR

if TYPE_CHECKING:
    from pathlib import Path

    from labsync.env.lock import EnvironmentLock
    from labsync.report import Built

BASE = (f"python={MINOR}", "ipykernel", "tiny<2")


def spec_text(channel: str, *lines: str, target: str = "{}", pip: tuple[str, ...] = ()) -> str:
    listed = "".join(f"  - {json.dumps(line)}\n" for line in lines or BASE)
    wheels = "  - pip:\n" + "".join(f"    - {json.dumps(line)}\n" for line in pip) if pip else ""
    return f"name: lab\nchannels: [{json.dumps(channel)}]\ntarget: {target}\ndependencies:\n{listed}{wheels}"


def make_lock(
    root: Path, channel: str, *lines: str, target: str = "{}", offline: bool = False
) -> EnvironmentLock:
    spec = parse_spec(spec_text(channel, *lines, target=target), "envs/lab.yaml", "conda")
    return lock_conda(spec, Tools(root / "lock-home", root / "lock.log", offline))


def request(root: Path, lock: EnvironmentLock, name: str = "lab", **more: Any) -> EnvironmentRequest:
    return EnvironmentRequest(
        name,
        manager="conda",
        lock=lock,
        home=root / "home",
        conda_envs=root / "user" / ".conda" / "envs",
        **{"imports": ("tiny",), **more},
    )


def repaired(asked: EnvironmentRequest) -> Built:
    """Find what is damaged and put it right."""
    _, damage = verify_environment(asked.envs_dir, asked.name)
    return repair_environment(asked, damage, ignore)


def evaluate(prefix: str | Path, code: str) -> str:
    done = process.run([f"{prefix}/bin/python", "-c", code])
    assert done.returncode == 0, done.error_text
    return done.stdout.decode().strip()


def conda_box(
    root: Path,
    channel: str,
    *lines: str,
    more: str = "",
    mirror: str = "",
    env: dict[str, str] | None = None,
) -> Box:
    """Return a box whose manifest asks for an environment of these packages."""
    manifest = (
        f"version: 1\nproject: conda-lab\nmirror: {mirror or root / 'mirror'}\n{more}"
        "environment: {name: lab, manager: conda, spec: envs/lab.yaml, kernel: Python (lab)}\n"
    )
    box = Box(root / "box", manifest, env)
    box.write("envs/lab.yaml", spec_text(channel, *lines).encode())
    return box
