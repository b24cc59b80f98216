"""The environment and the kernel that the manifest asks for.

What builds them is imported where it is used, so that `status` starts without it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.disk.budget import Need, check_room, measure
from labsync.errors import IntegrityError, InvalidError, LabsyncError, NotFoundError, RefusedError
from labsync.events import Note, StageStarted
from labsync.report import NOTHING_MOVED, Built, ErrorReport
from labsync.settings import home_dir
from labsync.steps.env_lock import spec_file, wanted_environment

if TYPE_CHECKING:
    from labsync.env.base import EnvironmentRequest, Library
    from labsync.env.kernel import KernelRequest
    from labsync.env.lock import EnvironmentLock
    from labsync.env.verify import Damage
    from labsync.manifest.model import Artifact, EnvironmentSpec
    from labsync.report import Transferred
    from labsync.steps.lab import Lab

# What a model's task needs to import; the environment is not proven before these do.
IMPORTS = {
    "segment-anything": ("torch",),
    "image-text-to-text": ("torch", "transformers"),
    "image-feature-extraction": ("torch", "transformers"),
    "video-classification": ("torch", "transformers"),
    "feature-extraction": ("torch", "transformers"),
}


def built_environment(lab: Lab) -> Built:
    """Build the environment beside the old one and switch, or find that it is built already.

    Packages come from the mirror where it has an archive of them, and else from where they were locked.
    """
    from labsync.env.build import build_environment, environment_state
    from labsync.env.packages import missing
    from labsync.steps.env_archive import EnvironmentArchive

    request = environment_request(lab)
    state = environment_state(request)
    if lab.options.dry_run:
        return state
    if state.state == "ok":
        return build_environment(request, lab.observe)
    _ensure_room(lab, request)
    for error in lab.reach_mirror():
        lab.observe(
            Note(f"the mirror does not answer, so packages come from elsewhere: {error.message}", "warning")
        )
    archive = EnvironmentArchive(lab, request)
    if not archive.is_mirrored:
        return build_environment(request, lab.observe)
    with archive.fetched(archive.holds(missing(request))) as folder:
        return build_environment(replace(request, packages=folder), lab.observe)


def restored_environment(lab: Lab) -> tuple[Built, Transferred]:
    """Build the environment from the mirror's archive of it; NotFoundError (6) where it has none."""
    from labsync.env.build import build_environment, environment_state
    from labsync.steps.env_archive import EnvironmentArchive, require_archive

    request = environment_request(lab)
    archive = EnvironmentArchive(lab, request)
    require_archive(lab, archive)
    state = environment_state(request)
    if lab.options.dry_run or state.state == "ok":
        return state, NOTHING_MOVED
    _ensure_room(lab, request)
    with archive.fetched(request.lock.packages if request.lock else ()) as folder:
        built = build_environment(replace(request, packages=folder), lab.observe)
    return replace(built, state="restored"), archive.transferred


def _ensure_room(lab: Lab, request: EnvironmentRequest) -> None:
    """Check the build against the disk before its first byte; the sizes are the lock's."""
    from labsync.env.packages import bytes_to_build

    room = measure(request.home)
    need = Need(f"environment {request.name}", room.device, bytes_to_build(request))
    free, total = {room.device: room.free}, {room.device: room.total}
    check_room([need], free, total, replace(lab.manifest.disk, budget=None), 0)


def rolled_back(lab: Lab) -> Built:
    """Make the environment's previous version current again."""
    from labsync.env.switch import current
    from labsync.env.versions import previous, roll_back

    name, envs = wanted_environment(lab).name, home_dir(lab.options.env) / "envs"
    if lab.options.dry_run:
        target = previous(envs, name)
        return Built(
            name, str(target or current(envs, name) or ""), "ok", "" if target else "no previous one"
        )
    return roll_back(envs, name, lab.observe)


def verified_environment(lab: Lab, *, repair: bool) -> tuple[Built, tuple[ErrorReport, ...]]:
    """Read every file of the environment again; with `repair` put right what is wrong, or build it."""
    from labsync.env.repair import verify_environment

    spec = wanted_environment(lab)
    lab.observe(StageStarted("verify", f"every file of the environment {spec.name}"))
    try:
        found, damage = verify_environment(home_dir(lab.options.env) / "envs", spec.name)
        if repair and not lab.options.dry_run:
            return _repaired(lab, damage), ()
    except LabsyncError as error:
        return failed_environment(lab), (ErrorReport.of(error),)
    if not damage:
        return found, ()
    what = f"the environment `{spec.name}` is damaged: {damage}"
    return found, (ErrorReport.of(IntegrityError(what, hint="`labsync verify --repair` puts it right")),)


def _repaired(lab: Lab, damage: Damage) -> Built:
    """Put right what is damaged, from the mirror's archive where it has one."""
    from labsync.env.repair import damaged_packages, repair_environment
    from labsync.steps.env_archive import EnvironmentArchive

    request = environment_request(lab)
    archive = EnvironmentArchive(lab, request)
    if not damage or lab.reach_mirror() or not archive.is_mirrored:
        return repair_environment(request, damage, lab.observe)
    with archive.fetched(archive.holds(damaged_packages(request, damage))) as folder:
        return repair_environment(replace(request, packages=folder), damage, lab.observe)


def standing_environment(lab: Lab) -> Built | None:
    """Say how the environment stands by its link and its stamp alone: `ok`, `modified`, `missing`, `foreign`.

    None where the manifest asks for none. Whether it fits its lock is not looked at.
    """
    spec = lab.manifest.environment
    if spec is None:
        return None
    from labsync.env.stamp import installed_by_hand, is_built
    from labsync.env.switch import current

    try:
        prefix = current(home_dir(lab.options.env) / "envs", spec.name)
    except RefusedError as error:
        return Built(spec.name, "", "foreign", error.what)
    if prefix is None or not is_built(prefix):
        return Built(spec.name, str(prefix or ""), "missing", "`labsync env build` builds it")
    if by_hand := installed_by_hand(prefix):
        more = f" and {len(by_hand) - 5} more" if len(by_hand) > 5 else ""
        why = f"installed by hand: {', '.join(by_hand[:5])}{more}; `labsync env add NAME` keeps a package"
        return Built(spec.name, str(prefix), "modified", why)
    return Built(spec.name, str(prefix), "ok")


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
    from labsync.env.kernel import kernel_prefixes

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
        spared=kernel_prefixes(lab.options.env),
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


def renewed_kernel(lab: Lab, environment: Built) -> Built | None:
    """Let a kernel that is registered follow the environment; None where none is, or it is another's."""
    found = kernel_finding(lab, environment)
    if lab.options.dry_run or found.state not in {"stale", "broken"}:
        return None
    return proven_kernel(lab, environment)


def kernel_finding(lab: Lab, environment: Built) -> Built:
    """Say how the kernel stands, changing nothing."""
    from labsync.env.kernel import kernel_state

    state = kernel_state(kernel_request(lab, Path(environment.prefix)))
    return Built(environment.name, environment.prefix, state)
