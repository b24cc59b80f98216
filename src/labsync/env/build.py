"""Build an environment beside the old one, prove it, then switch.

inputs' hash ─▶ intact? reused ─▶ sweep ─▶ manager ─▶ libraries ─▶ labsync ─▶ checks ─▶ stamp ─▶ switch
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from typing import TYPE_CHECKING

from labsync import atomic
from labsync.env.base import manager_for
from labsync.env.checks import check_imports, repair_torchvision
from labsync.env.library import install_libraries
from labsync.env.package import install_labsync
from labsync.env.stamp import (
    DIGITS,
    STAMP,
    hash_of,
    imported,
    inputs_of,
    is_intact,
    prefix_of,
    variables_of,
    write_stamp,
)
from labsync.env.switch import build_lock, check_name, check_shown, current, show
from labsync.env.tools import Tools
from labsync.env.versions import collect, make_current, prune_cache
from labsync.errors import LabsyncError
from labsync.events import Note, StageStarted
from labsync.report import Built

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from labsync.env.base import EnvironmentRequest
    from labsync.events import Observer


def build_environment(request: EnvironmentRequest, observer: Observer) -> Built:
    """Make the environment that is asked for the current one of its name; `built` or `reused`.

    An environment with the same inputs is used again, without starting any program unless `imports`
    names a module that was not imported in it yet. Otherwise it is built at its own final path,
    checked, and switched in by one rename: whatever goes wrong before that, the old one stays as it
    is and current. Raises EnvironmentFailedError (13), InvalidError (3) for what this version cannot
    build, RefusedError (12) for a name that is not labsync's.
    """
    check_name(request.name)
    inputs = inputs_of(request)
    prefix = prefix_of(request, digest := hash_of(inputs))
    now = current(request.envs_dir, request.name)
    _check_shown(request)
    if now == prefix and is_intact(prefix, digest) and imported(prefix).issuperset(request.imports):
        _show(request)
        return Built(request.name, str(prefix), "reused")
    with build_lock_of(request, observer) as held:
        tools = tools_for(request, prefix, observer, held)
        state = "reused"
        if not is_intact(prefix, digest):
            observer(StageStarted("environment", f"building {prefix.name}"))
            _sweep(request, prefix, observer)
            variables = _build(request, prefix, tools)
            _sync(prefix)
            write_stamp(prefix, inputs, request.imports, variables)
            state = "built"
        elif not (seen := imported(prefix)).issuperset(request.imports):
            check_imports(prefix, request.imports, tools)
            write_stamp(prefix, inputs, seen.union(request.imports), variables_of(prefix))
        make_current(request.envs_dir, request.name, prefix)
        _show(request)
        if state == "built":
            collect(request.envs_dir, request.name, request.spared, observer)
            prune_cache(tools.caches, request.envs_dir)
    return Built(request.name, str(prefix), state)


def environment_state(request: EnvironmentRequest) -> Built:
    """Say how the environment stands, changing nothing: `ok`, `missing` or `stale`.

    `prefix` is the current one, or the one to be built where there is none. Raises RefusedError
    (12) as `build_environment` does.
    """
    check_name(request.name)
    _check_shown(request)
    digest = hash_of(inputs_of(request))
    wanted = prefix_of(request, digest)
    now = current(request.envs_dir, request.name)
    if now is None or not now.is_dir():
        return Built(request.name, str(wanted), "missing")
    state = "ok" if now == wanted and is_intact(wanted, digest) else "stale"
    return Built(request.name, str(now), state)


def _sweep(request: EnvironmentRequest, prefix: Path, observer: Observer) -> None:
    """Remove what killed builds of this name left; the build lock says that nobody is at work there."""
    pattern = re.compile(rf"{re.escape(request.name)}-[0-9a-f]{{{DIGITS}}}")
    for folder in request.envs_dir.iterdir():
        unfinished = folder == prefix or not (folder / STAMP).exists()
        if pattern.fullmatch(folder.name) and unfinished and not folder.is_symlink():
            observer(Note(f"removing the unfinished or damaged environment `{folder.name}`"))
            _remove(folder)


def _build(request: EnvironmentRequest, prefix: Path, tools: Tools) -> Mapping[str, str]:
    tools.log.unlink(missing_ok=True)
    manager = manager_for(request.manager)
    try:
        with atomic.disk_errors(prefix):
            manager.create(request, prefix, tools)
            install_libraries(request, prefix, tools)
            install_labsync(prefix, tools)
            repair_torchvision(prefix, tools)
            check_imports(prefix, request.imports, tools)
            variables = manager.variables(request, prefix, tools)
    except LabsyncError:
        _remove(prefix)  # a half-made environment of several GB must not fill a small disk; the log stays
        raise
    tools.log.unlink(missing_ok=True)
    return variables


def build_lock_of(request: EnvironmentRequest, observer: Observer) -> AbstractContextManager[int]:
    """Return the lock that lets one labsync at a time build environments of this name."""
    return build_lock(request.envs_dir, request.name, observer)


def tools_for(request: EnvironmentRequest, prefix: Path, observer: Observer, held: int) -> Tools:
    """Return what runs the programs of one build; `held` is the descriptor of the build's lock."""
    log = prefix.with_name(f"{prefix.name}.log")
    return Tools(request.home, log, request.offline, (held,), observer)


def _check_shown(request: EnvironmentRequest) -> None:
    if request.manager == "conda":
        check_shown(request.conda_envs / request.name, request.envs_dir / request.name)


def _show(request: EnvironmentRequest) -> None:
    if request.manager == "conda":
        show(request.conda_envs / request.name, request.envs_dir / request.name)


def _remove(folder: Path) -> None:
    if folder.exists():
        with atomic.disk_errors(folder):
            shutil.rmtree(folder)


def _sync(prefix: Path) -> None:
    """Make the whole file system durable: uv fsyncs nothing, and the stamp must not outlive the files."""
    descriptor = os.open(prefix, os.O_RDONLY)
    try:
        ctypes.CDLL(None).syncfs(descriptor)
    finally:
        os.close(descriptor)
