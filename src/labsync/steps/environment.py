"""The environment and the kernel that the manifest asks for.

What builds them is imported where it is used, so that `status` starts without it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.errors import InvalidError, NotFoundError, UsageError
from labsync.events import Note
from labsync.report import Built, ErrorReport
from labsync.settings import home_dir

if TYPE_CHECKING:
    from labsync.env.base import EnvironmentRequest, Library
    from labsync.env.kernel import KernelRequest
    from labsync.env.lock import EnvironmentLock
    from labsync.env.spec import EnvironmentFile
    from labsync.manifest.model import Artifact, EnvironmentSpec
    from labsync.steps.lab import Lab

# What a model's task needs to import; the environment is not proven before these do.
IMPORTS = {
    "segment-anything": ("torch",),
    "image-text-to-text": ("torch", "transformers"),
    "image-feature-extraction": ("torch", "transformers"),
    "video-classification": ("torch", "transformers"),
    "feature-extraction": ("torch", "transformers"),
}


def wanted_environment(lab: Lab) -> EnvironmentSpec:
    """Return the manifest's environment; UsageError (2) when it asks for none."""
    if lab.manifest.environment is None:
        raise UsageError(
            "the manifest asks for no environment", hint="add `environment: {name: …, manager: venv}`"
        )
    return lab.manifest.environment


def built_environment(lab: Lab) -> Built:
    """Build the environment beside the old one and switch, or find that it is built already."""
    from labsync.env.build import build_environment, environment_state

    if lab.options.dry_run:
        return environment_state(environment_request(lab))
    return build_environment(environment_request(lab), lab.observe)


def failed_environment(lab: Lab) -> Built:
    """Return the environment that could not be built, for the report."""
    return Built(wanted_environment(lab).name, "", "failed")


def environment_is_missing(lab: Lab) -> bool:
    """Say whether the manifest asks for an environment that was never built here; only a link is asked."""
    spec = lab.manifest.environment
    return spec is not None and not os.path.lexists(home_dir(lab.options.env) / "envs" / spec.name)


def environment_finding(lab: Lab) -> Built:
    """Say how the environment stands, changing nothing."""
    from labsync.env.build import environment_state

    return environment_state(environment_request(lab))


def environment_request(lab: Lab) -> EnvironmentRequest:
    """Return everything that decides the environment."""
    from labsync.env.base import EnvironmentRequest, conda_envs_dir

    spec = wanted_environment(lab)
    return EnvironmentRequest(
        name=spec.name,
        manager=spec.manager,
        inherit=spec.inherit,
        lock=_lock(lab, spec),
        libraries=tuple(_library(lab, a) for a in lab.manifest.artifacts if a.install),
        imports=smoke_imports(lab),
        home=home_dir(lab.options.env),
        conda_envs=conda_envs_dir(lab.options.env),
        offline=lab.options.offline,
    )


def smoke_imports(lab: Lab) -> tuple[str, ...]:
    """Return what must be importable for the manifest's smoke tests."""
    tasks = {artifact.smoke.task for artifact in lab.manifest.artifacts if artifact.smoke}
    return tuple(sorted({name for task in tasks for name in IMPORTS.get(task, ())}))


def _lock(lab: Lab, spec: EnvironmentSpec) -> EnvironmentLock | None:
    from labsync.env.lock import check_lock, read_env_lock

    if not spec.spec and not spec.lock:
        return None
    lock = read_env_lock(lab.manifest.root / spec.lock)
    if spec.spec:
        why = check_lock(spec_file(lab, spec), lock)
        if why:
            raise InvalidError(why, path=spec.lock, hint="`labsync env lock` brings it up to date")
    return lock


def _library(lab: Lab, artifact: Artifact) -> Library:
    from labsync.env.base import Library

    locked = lab.locked(artifact)
    tree = lab.home(artifact).path
    if not tree.is_dir():
        raise NotFoundError(
            f"the library `{artifact.name}` is not on the disk",
            artifact=artifact.name,
            hint=f"`labsync pull {artifact.name}`",
        )
    return Library(
        artifact.short_name,
        tree,
        artifact.origin.removeprefix("git+"),
        locked.revision,
        artifact.revision,
        locked.snapshot,
    )


def spec_file(lab: Lab, spec: EnvironmentSpec) -> EnvironmentFile:
    """Return the environment's spec as its manager reads it, for the machine that the manifest declares."""
    from labsync.env.spec import read_spec

    found = read_spec(lab.manifest.root / spec.spec, spec.manager)
    target = {f"__{name.lstrip('_')}": version for name, version in spec.target}
    return replace(found, target=tuple((dict(found.target) | target).items()))


def lock_environment(lab: Lab, *, check: bool) -> list[ErrorReport]:
    """Write the environment's lock, or with `check` only say whether it fits the spec."""
    from labsync.env.lock import check_lock, read_env_lock
    from labsync.env.lock_text import write_env_lock

    spec = wanted_environment(lab)
    if not spec.spec:
        raise UsageError(
            f"the environment `{spec.name}` has no `spec`, so there is nothing to lock",
            hint="write `spec: envs/NAME.yaml` under `environment:`",
        )
    wanted = spec_file(lab, spec)
    path = lab.manifest.root / spec.lock
    if check:
        why = check_lock(wanted, read_env_lock(path))
        return [ErrorReport.of(InvalidError(why, path=spec.lock, hint="`labsync env lock`"))] if why else []
    resolved = resolved_lock(lab, wanted)
    if not lab.options.dry_run:
        write_env_lock(path, resolved)
    return []


def resolved_lock(lab: Lab, wanted: EnvironmentFile) -> EnvironmentLock:
    """Choose every package of the spec."""
    from labsync.env.base import Interpreter
    from labsync.env.conda_lock import lock_conda
    from labsync.env.resolve import Target, lock_pip
    from labsync.env.tools import Tools

    home = home_dir(lab.options.env)
    if wanted.manager == "conda":
        tools = Tools(home, home / "env-lock.log", lab.options.offline, observe=lab.observe)
        return lock_conda(wanted, tools)
    glibc = dict(wanted.target).get("__glibc", Target("").glibc)
    target = Target(Interpreter.running().version, glibc=glibc)
    return lock_pip(wanted, target, home, offline=lab.options.offline)


def ensure_environment_lock(lab: Lab) -> None:
    """Make the lock of an environment that has a spec and was never locked."""
    spec = wanted_environment(lab)
    if spec.spec and not (lab.manifest.root / spec.lock).exists():
        lab.observe(Note(f"no environment lock yet: writing {spec.lock}"))
        lock_environment(lab, check=False)


def kernel_request(lab: Lab, prefix: Path) -> KernelRequest:
    """Return the kernel that belongs to the environment at `prefix`."""
    from labsync.env.kernel import KernelRequest

    spec = wanted_environment(lab)
    return KernelRequest(spec.name, prefix, spec.kernel, offline=spec.offline, env=lab.options.env)


def proven_kernel(lab: Lab, environment: Built) -> Built:
    """Register the kernel and prove it by starting it and importing what the smoke tests need."""
    from labsync.env.kernel_proof import install_kernel

    prefix = Path(environment.prefix)
    if lab.options.dry_run:
        return kernel_finding(lab, environment)
    install_kernel(kernel_request(lab, prefix), smoke_imports(lab))
    return Built(wanted_environment(lab).name, environment.prefix, "proven")


def kernel_finding(lab: Lab, environment: Built) -> Built:
    """Say how the kernel stands, changing nothing."""
    from labsync.env.kernel import kernel_state

    state = kernel_state(kernel_request(lab, Path(environment.prefix)))
    return Built(environment.name, environment.prefix, state)
