"""Doctor: look at everything labsync stands on, and say what to do about what is wrong."""

from __future__ import annotations

import platform
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.artifact_locks import locks_work
from labsync.disk.budget import measure, reserve_of
from labsync.errors import DiskError, InvalidError, LabsyncError, combine
from labsync.lock import check_lock
from labsync.mirrors.s3_errors import RightMissingError
from labsync.steps.outcome import Check
from labsync.steps.writers import secret_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from labsync.steps.lab import Lab

    Look = tuple[str, Callable[[Lab], Check | None], str]


def examine(lab: Lab) -> tuple[list[Check], int]:
    """Return every finding, and the exit code that the failed ones give together.

    What stands on something that failed is not looked at: it would fail of the same cause. Only where
    the mirror may not be listed its other rights are still tried.
    """
    found: list[Check] = []
    codes: dict[str, int] = {}
    blocking: set[str] = set()
    for name, look, stands_on in _looks(lab):
        if stands_on in blocking:
            blocking.add(name)
            continue
        try:
            check = look(lab)
        except LabsyncError as error:
            check = Check(name, "failed", error.what, error.hint)
            codes[name] = int(error.exit_code)
            if not (name == "mirror" and isinstance(error, RightMissingError)):
                blocking.add(name)
        if check is not None:
            found.append(check)
    return found, combine(codes.values())


def _looks(lab: Lab) -> tuple[Look, ...]:
    """Return the looks that fit the lab: a bucket has some of its own."""
    if not lab.manifest.mirror.url.startswith("s3://"):
        return _LOOKS
    from labsync.steps.doctor_bucket import bucket_looks, credentials

    at = next(number for number, (name, _, _) in enumerate(_LOOKS) if name == "mirror")
    mirror = ("mirror", _mirror, "credentials")
    swap = ("compare-and-swap", _conditional, "s3:GetObject")
    first = (*_LOOKS[:at], ("credentials", credentials, ""))
    return (*first, mirror, *bucket_looks(), swap, *_LOOKS[at + 2 :])


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
    try:
        heads = lab.mirror.heads()
    except RightMissingError as error:
        from labsync.steps.doctor_bucket import listing_refused

        raise listing_refused(error) from error
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
    from labsync.env.machine import cuda_version

    if cuda := cuda_version():
        return Check("gpu", "ok", f"an NVIDIA driver for CUDA {cuda}")
    if Path("/proc/driver/nvidia/version").exists():
        return Check("gpu", "ok", "an NVIDIA driver is loaded")
    return Check("gpu", "warning", "none here", "smoke tests of models stay pending unless `--device cpu`")


def _open_secrets(lab: Lab) -> Check | None:  # noqa: ARG001  one signature for all looks
    """Warn about credentials that other users of this machine can read."""
    shown = [path for path in secret_files() if path.is_file() and path.stat().st_mode & 0o077]
    if not shown:
        return Check("secrets", "ok", "credential files are yours alone")
    listed = " ".join(shlex.quote(str(path)) for path in shown)
    return Check("secrets", "warning", f"others may read {listed}", f"`chmod 600 {listed}`")


# Each with its name, and the name of what it stands on.
_LOOKS: tuple[Look, ...] = (
    ("python", _python, ""),
    ("manifest", _manifest, ""),
    ("lock", _lock, ""),
    ("disk", _disk, ""),
    ("locks", _locks, ""),
    ("mirror", _mirror, ""),
    ("compare-and-swap", _conditional, "mirror"),
    ("secrets", _open_secrets, ""),
    ("git", _tools, ""),
    ("environment", _environment, ""),
    ("kernel", _kernel, "environment"),
    ("gpu", _gpu, ""),
)
