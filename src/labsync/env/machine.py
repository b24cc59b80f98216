"""Whether this machine has what a lock was made for: the virtual packages of conda, seen without conda."""

from __future__ import annotations

import ctypes
import platform
import re
from typing import TYPE_CHECKING

from labsync.errors import EnvironmentFailedError
from labsync.events import Note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from labsync.env.lock import EnvironmentLock
    from labsync.events import Observer

_AT_LEAST = re.compile(r">=\s*([0-9]+(?:\.[0-9]+)*)")


def check_machine(lock: EnvironmentLock, observe: Observer) -> None:
    """Raise EnvironmentFailedError (13) where the machine's glibc is too old; warn of a missing GPU.

    An environment for a GPU can be built without one: that is what a session without GPU is for.
    """
    glibc, cuda = glibc_version(), cuda_version()
    for package, wanted in _needed(lock, "__glibc"):
        if glibc and _numbers(glibc) < _numbers(wanted):
            raise EnvironmentFailedError(
                f"`{package}` needs glibc {wanted}, and this machine has {glibc}",
                hint=f"write `glibc: '{glibc}'` under the spec's `target:`, then `labsync env lock`",
            )
    for package, wanted in _needed(lock, "__cuda"):
        if _numbers(cuda) < _numbers(wanted):
            here = f"has a driver for CUDA {cuda}" if cuda else "has no GPU"
            observe(
                Note(
                    f"the environment is for CUDA {wanted} (`{package}`), and this machine {here}", "warning"
                )
            )
            return


def _needed(lock: EnvironmentLock, virtual: str) -> Iterator[tuple[str, str]]:
    for package in lock.of("conda"):
        for name, spec in package.dependencies:
            if name == virtual and (match := _AT_LEAST.search(spec)):
                yield package.name, match[1]


def glibc_version() -> str:
    """Return this machine's glibc, as in `2.36`; empty where it has another C library."""
    name, version = platform.libc_ver()
    return version if name == "glibc" else ""


def cuda_version() -> str:
    """Return the newest CUDA that the loaded NVIDIA driver knows, as in `12.4`; empty without one."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ""
    number = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return ""
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
