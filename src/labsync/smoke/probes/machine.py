"""Read what `hardware.py` decides by: versions, driver, GPUs, free memory."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from .. import hardware

if TYPE_CHECKING:
    from ..troubles import Finding

_DRIVER = Path("/proc/driver/nvidia/version")
_GROUPS = (  # of control groups, version 2 and 1
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.stat")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.stat")),
)


@cache
def read_machine() -> hardware.Machine:
    """Return the readings of this machine, made once; imports torch."""
    import torch

    return hardware.Machine(
        torch=str(torch.__version__),
        torchvision=_version("torchvision"),
        cuda=torch.version.cuda or "",
        architectures=tuple(torch.cuda.get_arch_list()),
        driver=hardware.driver_version(_text(_DRIVER)),
        gpus=tuple(_gpu(number) for number in range(torch.cuda.device_count())),
    )


def gpu_of(device: str) -> hardware.Gpu | None:
    """Return the GPU that `cuda` or `cuda:N` names, None for the CPU."""
    number = int(device.partition(":")[2] or 0)
    return read_machine().gpus[number] if device.startswith("cuda") else None


def free_memory(device: str) -> int:
    """Return the free bytes of the device's memory, 0 where that cannot be known."""
    if gpu := gpu_of(device):
        return gpu.free
    limits = [(_text(limit), _text(stat)) for limit, stat in _GROUPS]
    return hardware.available_memory(_text(Path("/proc/meminfo")), limits)


def torchvision_finding() -> Finding | None:
    """Return why torchvision does not belong to torch; neither is imported."""
    machine = hardware.Machine(torch=_version("torch"), torchvision=_version("torchvision"))
    return hardware.torchvision_problem(machine)


def _gpu(number: int) -> hardware.Gpu:
    import torch

    free, total = torch.cuda.mem_get_info(number)
    return hardware.Gpu(
        torch.cuda.get_device_name(number), torch.cuda.get_device_capability(number), total, free
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
