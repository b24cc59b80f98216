"""What this machine can run, decided from readings: precision, attention, driver, memory. Pure.

Standard library only: the probes read this file too. The readings come from `probes/machine.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from .troubles import REBUILD, Finding

GIB: Final = 1 << 30
CONTEXT: Final = GIB // 2  # what CUDA takes on a GPU before the first tensor
SLACK: Final = 1.1  # an allocator never fills its blocks to the brim
ATTENTION: Final = (
    "sdpa"  # in torch itself and right everywhere; FlashAttention needs 8.0 and a build of its own
)
_BFLOAT16_FROM = (8, 0)
# The oldest driver that runs any release of a CUDA generation ("minor version compatibility"):
# https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/
_OLDEST_DRIVER: Final = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580,)}
_DRIVER = re.compile(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)")
_ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)([af]?)")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU; `free` and `total` are bytes of its memory."""

    name: str
    capability: tuple[int, int]
    total: int = 0
    free: int = 0


@dataclass(frozen=True, slots=True)
class Machine:
    """What was read of a machine; versions are as their packages write them, empty where there is none.

    `cuda` is the CUDA that torch was built for, `architectures` what it was compiled for (`sm_75`).
    """

    torch: str = ""
    torchvision: str = ""
    cuda: str = ""
    architectures: tuple[str, ...] = ()
    driver: str = ""
    gpus: tuple[Gpu, ...] = field(default=())


def driver_version(text: str) -> str:
    """Return the version in `/proc/driver/nvidia/version`, empty where it holds none."""
    found = _DRIVER.search(text)
    return found[1] if found else ""


def gpu_problem(machine: Machine, device: str) -> Finding | None:
    """Return why torch cannot use the GPU named by `device` (`cuda` or `cuda:N`), None when it can."""
    if not machine.cuda:
        return Finding("build", f"torch {machine.torch} finds no GPU it can use: it was built without CUDA")
    if not machine.driver and not machine.gpus:
        return Finding(
            "gpu", f"torch {machine.torch} finds no GPU it can use: no NVIDIA driver is loaded here"
        )
    if old := _driver_problem(machine):
        return old
    if not machine.gpus:
        return Finding(
            "gpu",
            f"torch {machine.torch} finds no GPU it can use, although the driver {machine.driver} is loaded",
            "look whether `CUDA_VISIBLE_DEVICES` hides it and whether `nvidia-smi` lists it",
        )
    number = int(device.partition(":")[2] or 0)
    if number >= len(machine.gpus):
        count = f"{len(machine.gpus)} GPU{'s' if len(machine.gpus) > 1 else ''}"
        return Finding(
            "gpu", f"there is no `{device}`: this session has {count}", "write `cuda:0`, or `cuda`"
        )
    return _architecture_problem(machine, machine.gpus[number])


def _driver_problem(machine: Machine) -> Finding | None:
    oldest = _OLDEST_DRIVER.get(_numbers(machine.cuda)[0])
    if not machine.driver or oldest is None or _numbers(machine.driver) >= oldest:
        return None
    wanted = ".".join(f"{number:02}" for number in oldest)
    return Finding(
        "driver",
        f"the NVIDIA driver {machine.driver} is too old for torch {machine.torch}, whose CUDA {machine.cuda} "
        f"needs {wanted} or newer",
    )


def _architecture_problem(machine: Machine, gpu: Gpu) -> Finding | None:
    if not machine.architectures or any(_runs(gpu.capability, name) for name in machine.architectures):
        return None
    major, minor = gpu.capability
    return Finding(
        "driver",
        f"torch {machine.torch} was not compiled for the {gpu.name} (compute capability {major}.{minor}), "
        f"but for {', '.join(machine.architectures)}",
        f"pin a torch that has sm_{major}{minor} in the environment's spec, {REBUILD}",
    )


def _runs(capability: tuple[int, int], architecture: str) -> bool:
    """Say whether code for an architecture runs: within its generation upwards, as PTX anywhere upwards."""
    match = _ARCHITECTURE.fullmatch(architecture)
    if match is None:
        return False
    built = int(match[2]), int(match[3])
    if match[4]:  # `sm_90a` runs on 9.0 and on nothing else
        return capability == built
    return capability >= built and (match[1] == "compute" or capability[0] == built[0])


def torchvision_problem(machine: Machine) -> Finding | None:
    """Return why this torchvision does not belong to this torch, None when it does or cannot be known."""
    torch, vision = _numbers(machine.torch), _numbers(machine.torchvision)
    # Since 2.0 and 0.15 the two have been released together, one minor version after the other.
    if len(torch) < 2 or len(vision) < 2 or torch[0] != 2 or vision[:2] == (0, torch[1] + 15):
        return None
    wanted = f"0.{torch[1] + 15}"
    return Finding(
        "torchvision",
        f"torchvision {machine.torchvision} does not belong to torch {machine.torch}, but {wanted} does",
        f"write `torchvision =={wanted}.*` into the environment's spec, {REBUILD}",
    )


def precision(wanted: str, gpu: Gpu | None) -> tuple[str, str]:
    """Return the precision to use, and a note where it is not the wanted one; `gpu` is None on a CPU.

    Empty and `auto` mean float32 on a CPU and a half type on a GPU. bfloat16 is used from compute
    capability 8.0: a T4 says that it can, and emulates it (https://github.com/pytorch/pytorch/issues/148322).
    `int8` is the precision of the weights of linear layers; the rest of the model has `beside_int8`.
    """
    if gpu is None:
        return ("float32" if wanted in {"", "auto"} else wanted), ""
    native = gpu.capability >= _BFLOAT16_FROM
    if wanted in {"", "auto"}:
        return ("bfloat16" if native else "float16"), ""
    if wanted == "bfloat16" and not native:
        major, minor = gpu.capability
        return "float16", f"float16 instead of bfloat16, which the {gpu.name} ({major}.{minor}) only emulates"
    return wanted, ""


def beside_int8(gpu: Gpu | None) -> str:
    """Return the precision of what int8 leaves as it is: half, or int8 would take more than it saves."""
    return precision("", gpu)[0] if gpu else "bfloat16"


def memory_problem(estimated: int, free: int, device: str) -> Finding | None:
    """Return why a model that needs `estimated` bytes cannot run in `free` bytes of a device, None if it can.

    Zero means unknown, which stands in nobody's way.
    """
    needed = int(estimated * SLACK) + CONTEXT if device.startswith("cuda") else estimated
    if not estimated or not free or needed <= free:
        return None
    where = f"{device} has" if device.startswith("cuda") else "there are"
    return Finding(
        "memory",
        f"it needs about {needed / GIB:.1f} GiB and {where} {free / GIB:.1f} GiB free; it was not loaded",
    )


def available_memory(meminfo: str, limits: list[tuple[str, str]]) -> int:
    """Return the bytes of RAM that a new process may use, 0 where that cannot be known.

    `meminfo` is `/proc/meminfo`. `limits` are pairs of a control group's limit (`max`: none) and its
    `memory.stat`, as their files hold them; of what is used only what the kernel cannot take back counts.
    """
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    free = int(found[1]) * 1024 if found else 0
    for limit, stat in limits:
        used = re.search(r"^(?:anon|total_rss) (\d+)$", stat, re.MULTILINE)
        if limit.strip().isdigit() and used:
            left = max(int(limit) - int(used[1]), 0)
            free = min(free, left) if free else left
    return free


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: `2.13.0+cu128` gives (2, 13, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else (0,)
