"""The environment's lock and its spec: resolve, compare, edit.

What resolves them is imported where it is used, so that `status` starts without it.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from labsync.errors import InvalidError, LabsyncError, UsageError
from labsync.events import Note
from labsync.report import ErrorReport
from labsync.settings import home_dir
from labsync.steps.outcome import LockLine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from labsync.env.conda_lock import Held
    from labsync.env.lock import EnvironmentLock
    from labsync.env.spec import EnvironmentFile
    from labsync.manifest.model import EnvironmentSpec
    from labsync.steps.lab import Lab


def wanted_environment(lab: Lab) -> EnvironmentSpec:
    """Return the manifest's environment; UsageError (2) when it asks for none."""
    if lab.manifest.environment is None:
        raise UsageError(
            "the manifest asks for no environment", hint="add `environment: {name: …, manager: venv}`"
        )
    return lab.manifest.environment


def spec_file(lab: Lab, spec: EnvironmentSpec) -> EnvironmentFile:
    """Return the environment's spec as its manager reads it, for the machine that the manifest declares."""
    from labsync.env.spec import read_spec

    return with_target(spec, read_spec(lab.manifest.root / spec.spec, spec.manager))


def with_target(spec: EnvironmentSpec, found: EnvironmentFile) -> EnvironmentFile:
    """Return the spec for the machine that the manifest declares, where it declares one."""
    target = {f"__{name.lstrip('_')}": version for name, version in spec.target}
    return replace(found, target=tuple((dict(found.target) | target).items()))


def lock_environment(lab: Lab, *, check: bool) -> tuple[LockLine, tuple[ErrorReport, ...]]:
    """Write the environment's lock, or with `check` only say whether it fits the spec."""
    from labsync.env.lock import check_lock, read_env_lock
    from labsync.env.lock_text import format_env_lock, write_env_lock

    spec = wanted_environment(lab)
    spec_path(lab, spec)
    wanted = spec_file(lab, spec)
    path = lab.manifest.root / spec.lock
    if check:
        lock = read_env_lock(path)
        why = check_lock(wanted, lock)
        stale = (ErrorReport.of(InvalidError(why, path=spec.lock, hint="`labsync env lock`")),) if why else ()
        return _line(lock, spec, "stale" if why else "unchanged"), stale
    lock = resolve_spec(lab, wanted)
    same = path.is_file() and path.read_bytes() == format_env_lock(lock).encode()
    if not same and not lab.options.dry_run:
        write_env_lock(path, lock)
    return _line(lock, spec, "unchanged" if same else "locked"), ()


def _line(lock: EnvironmentLock, spec: EnvironmentSpec, state: str) -> LockLine:
    size = sum(package.size for package in lock.packages)
    return LockLine(f"environments/{spec.name}", state, "", len(lock.packages), size)


def resolve_spec(lab: Lab, wanted: EnvironmentFile, held: Held | None = None) -> EnvironmentLock:
    """Choose every package of the spec; versions that are held stay where they can."""
    from labsync.env.base import Interpreter
    from labsync.env.conda_lock import lock_conda
    from labsync.env.resolve import Target, lock_pip
    from labsync.env.tools import Tools

    home = home_dir(lab.options.env)
    tools = Tools(home, home / "env-lock.log", lab.options.offline, observe=lab.observe)
    if wanted.manager == "conda":
        return lock_conda(wanted, tools, held)
    glibc = dict(wanted.target).get("__glibc", Target("").glibc)
    target = Target(Interpreter.running().version, glibc=glibc)
    return lock_pip(wanted, target, tools, constraints=held.versions("pip") if held else ())


def spec_path(lab: Lab, spec: EnvironmentSpec) -> Path:
    """Return the path of the environment's spec; UsageError (2) where it has none."""
    if not spec.spec:
        raise UsageError(
            f"the environment `{spec.name}` has no `spec`, so there is nothing to lock",
            hint="write `spec: envs/NAME.yaml` under `environment:`",
        )
    return lab.manifest.root / spec.spec


def add_packages(lab: Lab, requirements: Sequence[str], *, pip: bool) -> None:
    """Ask for more packages in the spec and lock them; everything else stays as it was locked."""
    from labsync.env.edit import requirement_name, with_package

    spec = wanted_environment(lab)
    pip = pip or spec.manager == "venv"
    path = spec_path(lab, spec)
    text = path.read_text("utf-8")
    for requirement in requirements:
        text = with_package(text, requirement, pip=pip)
    _relock(lab, spec, text, frozenset(requirement_name(one, pip=pip) for one in requirements))


def remove_packages(lab: Lab, names: Sequence[str]) -> None:
    """Take packages out of the spec and lock what is left; everything else stays as it was locked."""
    from labsync.env.edit import without_package

    spec = wanted_environment(lab)
    text = spec_path(lab, spec).read_text("utf-8")
    for name in names:
        text = without_package(text, name)
    _relock(lab, spec, text, frozenset())


def _relock(lab: Lab, spec: EnvironmentSpec, text: str, free: frozenset[str]) -> None:
    """Write the spec and its lock, both only when it could be resolved."""
    from labsync import atomic
    from labsync.env.conda_lock import Held
    from labsync.env.lock import read_env_lock
    from labsync.env.lock_text import write_env_lock
    from labsync.env.spec import parse_spec

    path, lock_path = lab.manifest.root / spec.spec, lab.manifest.root / spec.lock
    wanted = with_target(spec, parse_spec(text, str(path), spec.manager))
    held = Held(read_env_lock(lock_path), free) if lock_path.exists() else None
    try:
        lock = resolve_spec(lab, wanted, held)
    except LabsyncError:
        if held is None:
            raise
        lock = resolve_spec(lab, wanted)
        lab.observe(Note("with everything else as it was locked there is no solution: more moves", "warning"))
    if lab.options.dry_run:
        return
    atomic.write_bytes(path, text.encode())
    write_env_lock(lock_path, lock)


@contextlib.contextmanager
def kept_on_failure(lab: Lab) -> Iterator[None]:
    """Bring spec and lock back as they were when the block fails: they change with the environment or not."""
    from labsync import atomic

    spec = wanted_environment(lab)
    paths = [lab.manifest.root / path for path in (spec.spec, spec.lock) if path]
    before = {path: path.read_bytes() for path in paths if path.exists()}
    try:
        yield
    except LabsyncError:
        for path, data in before.items():
            if path.read_bytes() != data:
                atomic.write_bytes(path, data)
        raise


def ensure_environment_lock(lab: Lab) -> None:
    """Make the lock of an environment that has a spec and was never locked."""
    spec = wanted_environment(lab)
    if spec.spec and not (lab.manifest.root / spec.lock).exists():
        lab.observe(Note(f"no environment lock yet: writing {spec.lock}"))
        lock_environment(lab, check=False)
