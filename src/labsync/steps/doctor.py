"""Doctor: look at everything labsync stands on, and say what to do about what is wrong."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.artifact_locks import locks_work
from labsync.disk.budget import measure, reserve_of
from labsync.errors import DiskError, InvalidError, LabsyncError, combine
from labsync.lock import check_lock
from labsync.steps.outcome import Check

if TYPE_CHECKING:
    from collections.abc import Callable

    from labsync.steps.lab import Lab


def examine(lab: Lab) -> tuple[list[Check], int]:
    """Return every finding, and the exit code that the failed ones give together.

    What stands on something that failed is not looked at: it would fail of the same cause.
    """
    found: list[Check] = []
    codes: dict[str, int] = {}
    for name, look, stands_on in _LOOKS:
        if stands_on in codes:
            continue
        try:
            check = look(lab)
        except LabsyncError as error:
            check = Check(name, "failed", error.what, error.hint)
            codes[name] = int(error.exit_code)
        if check is not None:
            found.append(check)
    return found, combine(codes.values())


def _python(lab: Lab) -> Check:  # noqa: ARG001  one signature for all looks
    return Check("python", "ok", f"{platform.python_version()} at {sys.executable}")


def _manifest(lab: Lab) -> Check:
    return Check("manifest", "ok", f"{lab.manifest.path}, {len(lab.manifest.artifacts)} artifacts")


def _lock(lab: Lab) -> Check:
    stale = [reason for reason in check_lock(lab.manifest, lab.lock) if not reason.informational]
    if stale:
        raise InvalidError(
            f"{len(stale)} artifacts are not locked as the manifest asks, first `{stale[0].name}`",
            hint="`labsync lock`",
        )
    unresolved = [a.name for a in (lab.lock.artifacts.values() if lab.lock else ()) if a.unresolved]
    if unresolved:
        return Check("lock", "warning", f"unresolved: {', '.join(unresolved)}", "`labsync lock` tries again")
    return Check("lock", "ok", lab.manifest.lock_path.name)


def _disk(lab: Lab) -> Check:
    _, free, total = measure(lab.manifest.root)
    reserve = reserve_of(total, lab.manifest.disk)
    detail = f"{free / 2**30:.1f} GiB free of {total / 2**30:.1f}, reserve {reserve / 2**30:.1f}"
    if free < reserve:
        raise DiskError(f"less is free than the reserve: {detail}", hint="`labsync du` shows what takes room")
    return Check("disk", "ok", detail)


def _locks(lab: Lab) -> Check | None:
    if lab.options.dry_run:
        return None
    if locks_work(lab.manifest.state_dir):
        return Check("locks", "ok", "two labsync at once are kept apart")
    return Check(
        "locks",
        "warning",
        "this file system has no working locks; files stay whole, but work may be done twice",
        "run one labsync at a time here",
    )


def _mirror(lab: Lab) -> Check:
    if not lab.has_mirror:
        return Check("mirror", "warning", "not asked, because of `--offline`")
    heads = lab.mirror.heads()
    return Check("mirror", "ok", f"{lab.mirror.url} answers, {len(heads)} heads")


def _conditional(lab: Lab) -> Check | None:
    if not lab.has_mirror:
        return None
    if lab.options.dry_run:
        return Check(
            "compare-and-swap", "warning", "not tried, because of `--dry-run`: it writes a scratch key"
        )
    if lab.mirror.probe():
        return Check("compare-and-swap", "ok", "the mirror has conditional writes")
    if lab.manifest.mirror.single_writer:
        return Check("compare-and-swap", "warning", "none; the manifest says that this box alone writes")
    return Check(
        "compare-and-swap",
        "warning",
        "the mirror has no conditional writes, so every writing command is refused",
        "`mirror: {url: …, single_writer: true}` when only one box ever writes",
    )


def _tools(lab: Lab) -> Check | None:
    if not any(artifact.origin.startswith("git+") for artifact in lab.manifest.artifacts):
        return None
    found = shutil.which("git")
    hint = "install git, or pull the libraries from a mirror that has them"
    return Check("git", "ok", found) if found else Check("git", "warning", "not found", hint)


def _environment(lab: Lab) -> Check | None:
    if lab.manifest.environment is None:
        return None
    from labsync.steps.environment import environment_finding

    built = environment_finding(lab)
    if built.state == "ok":
        return Check("environment", "ok", built.prefix)
    return Check("environment", "warning", f"{built.name} is {built.state}", "`labsync env build`")


def _kernel(lab: Lab) -> Check | None:
    if lab.manifest.environment is None:
        return None
    from labsync.steps.environment import environment_finding, kernel_finding

    state = kernel_finding(lab, environment_finding(lab)).state
    if state == "ok":
        return Check("kernel", "ok", "registered")
    return Check("kernel", "warning", state, "`labsync kernel` registers and proves it")


def _gpu(lab: Lab) -> Check:  # noqa: ARG001  one signature for all looks
    if Path("/proc/driver/nvidia/version").exists():
        return Check("gpu", "ok", "an NVIDIA driver is loaded")
    return Check("gpu", "warning", "none here", "smoke tests of models stay pending unless `--device cpu`")


# Each with its name, and the name of what it stands on.
_LOOKS: tuple[tuple[str, Callable[[Lab], Check | None], str], ...] = (
    ("python", _python, ""),
    ("manifest", _manifest, ""),
    ("lock", _lock, ""),
    ("disk", _disk, ""),
    ("locks", _locks, ""),
    ("mirror", _mirror, ""),
    ("compare-and-swap", _conditional, "mirror"),
    ("git", _tools, ""),
    ("environment", _environment, ""),
    ("kernel", _kernel, "environment"),
    ("gpu", _gpu, ""),
)
