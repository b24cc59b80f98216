"""What a machine can run, decided from readings: no GPU is needed to know what would happen on one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labsync.smoke.hardware import (
    GIB,
    Gpu,
    Machine,
    available_memory,
    beside_int8,
    driver_version,
    gpu_problem,
    memory_problem,
    precision,
    torchvision_problem,
)

T4 = Gpu("Tesla T4", (7, 5), 16 * GIB, 15 * GIB)
A10 = Gpu("NVIDIA A10G", (8, 6), 24 * GIB, 23 * GIB)
H200 = Gpu("NVIDIA H200", (9, 0), 141 * GIB, 139 * GIB)
V100 = Gpu("Tesla V100", (7, 0), 16 * GIB, 15 * GIB)
CUDA13 = Machine(
    torch="2.13.0+cu130",
    torchvision="0.28.0",
    cuda="13.0",
    architectures=("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"),
    driver="580.95.05",
    gpus=(T4,),
)

PROC = """NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024
GCC version:  gcc version 12.2.0
"""
OPEN_PROC = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (root@host)\n"


def test_the_drivers_version_is_read_from_its_own_words() -> None:
    assert driver_version(PROC) == "535.183.01"
    assert driver_version(OPEN_PROC) == "580.95.05"
    assert driver_version("") == ""


@pytest.mark.parametrize("gpu", [T4, A10, H200])
def test_a_gpu_that_torch_was_compiled_for_has_no_problem(gpu: Gpu) -> None:
    assert gpu_problem(replace(CUDA13, gpus=(gpu,)), "cuda") is None


@pytest.mark.parametrize(
    ("machine", "device", "trouble", "words"),
    [
        (replace(CUDA13, cuda="", torch="2.13.0+cpu"), "cuda", "build", "it was built without CUDA"),
        (replace(CUDA13, driver="", gpus=()), "cuda", "gpu", "no NVIDIA driver is loaded"),
        (replace(CUDA13, gpus=()), "cuda", "gpu", "although the driver 580.95.05 is loaded"),
        (replace(CUDA13, driver="535.183.01"), "cuda", "driver", "CUDA 13.0 needs 580 or newer"),
        (
            replace(CUDA13, driver="525.60.11", cuda="12.8", gpus=()),
            "cuda",
            "driver",
            "CUDA 12.8 needs 525.60.13 or newer",
        ),
        (CUDA13, "cuda:1", "gpu", "there is no `cuda:1`: this session has 1 GPU"),
        (replace(CUDA13, gpus=(V100,)), "cuda", "driver", "not compiled for the Tesla V100 (compute cap"),
    ],
)
def test_what_keeps_torch_from_a_gpu_is_named(
    machine: Machine, device: str, trouble: str, words: str
) -> None:
    finding = gpu_problem(machine, device)
    assert finding is not None
    assert finding.trouble == trouble
    assert words in finding.cause


def test_a_driver_is_new_enough_for_every_release_of_its_cuda() -> None:
    assert gpu_problem(replace(CUDA13, cuda="12.8", driver="535.183.01"), "cuda") is None


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        (("sm_80",), (8, 6), True),  # upwards within a generation
        (("sm_86",), (8, 0), False),  # never downwards
        (("sm_80",), (9, 0), False),  # nor into the next one
        (("compute_80",), (9, 0), True),  # but PTX is compiled anew
        (("compute_90",), (8, 0), False),
        (("sm_90a",), (9, 0), True),
        (("sm_90a",), (9, 1), False),  # these features are of 9.0 alone
        (("gfx90a",), (9, 0), False),
        ((), (7, 0), True),  # not known is no reason to refuse
    ],
)
def test_an_architecture_runs_where_nvidia_says_so(
    architectures: tuple[str, ...], capability: tuple[int, int], runs: bool
) -> None:
    machine = replace(CUDA13, architectures=architectures, gpus=(replace(T4, capability=capability),))
    assert (gpu_problem(machine, "cuda") is None) == runs


@pytest.mark.parametrize(
    ("torch", "vision", "fits"),
    [
        ("2.13.0+cpu", "0.28.0", True),
        ("2.6.0+cu124", "0.21.0+cu124", True),
        ("2.13.0", "0.27.1", False),
        ("2.0.1", "0.15.2", True),
        ("2.13.0", "", True),
        ("1.13.1", "0.9", True),  # before the two went together
        ("3.0.0", "0.40.0", True),
        ("2.14.0a0+git1234", "0.29.0", True),
    ],
)
def test_torchvision_belongs_to_one_torch(torch: str, vision: str, fits: bool) -> None:
    finding = torchvision_problem(Machine(torch=torch, torchvision=vision))
    assert (finding is None) == fits
    assert finding is None or "0.28 does" in finding.cause


@pytest.mark.parametrize(
    ("wanted", "gpu", "used"),
    [
        ("", None, "float32"),
        ("auto", None, "float32"),
        ("bfloat16", None, "bfloat16"),
        ("", T4, "float16"),
        ("auto", T4, "float16"),
        ("", A10, "bfloat16"),
        ("float32", A10, "float32"),
        ("float16", H200, "float16"),
        ("bfloat16", T4, "float16"),
        ("bfloat16", A10, "bfloat16"),
    ],
)
def test_the_precision_is_what_the_gpu_has_and_not_what_it_says(
    wanted: str, gpu: Gpu | None, used: str
) -> None:
    name, note = precision(wanted, gpu)
    assert name == used
    assert ("only emulates" in note) == (wanted == "bfloat16" and gpu is T4)


@pytest.mark.parametrize(("gpu", "used"), [(None, "bfloat16"), (T4, "float16"), (A10, "bfloat16")])
def test_what_int8_leaves_as_it_is_takes_two_bytes_a_number(gpu: Gpu | None, used: str) -> None:
    assert beside_int8(gpu) == used


@pytest.mark.parametrize(
    ("estimated", "free", "device", "fits"),
    [
        (4 * GIB, 15 * GIB, "cuda", True),
        (14 * GIB, 15 * GIB, "cuda", False),  # slack and CUDA's own share
        (14 * GIB, 15 * GIB, "cpu", True),
        (16 * GIB, 15 * GIB, "cpu", False),
        (0, 1, "cpu", True),
        (16 * GIB, 0, "cpu", True),
    ],
)
def test_memory_is_compared_before_anything_is_loaded(
    estimated: int, free: int, device: str, fits: bool
) -> None:
    finding = memory_problem(estimated, free, device)
    assert (finding is None) == fits
    assert finding is None or ("15.0 GiB free; it was not loaded" in finding.cause)
    assert finding is None or finding.trouble == "memory"


MEMINFO = "MemTotal: 16000000 kB\nMemFree: 1000 kB\nMemAvailable: 8388608 kB\n"


@pytest.mark.parametrize(
    ("meminfo", "limits", "free"),
    [
        (MEMINFO, [], 8 * GIB),
        (MEMINFO, [("max\n", "anon 5\n")], 8 * GIB),
        (MEMINFO, [(f"{4 * GIB}\n", f"anon {GIB}\nfile {3 * GIB}\n")], 3 * GIB),  # a cache can be dropped
        (MEMINFO, [(str(4 * GIB), f"cache 7\nrss 3\ntotal_rss {3 * GIB}\n")], GIB),
        (MEMINFO, [(str(GIB), f"anon {2 * GIB}\n")], 0),
        (MEMINFO, [("", "")], 8 * GIB),
        ("", [], 0),
    ],
)
def test_a_control_groups_limit_counts_as_the_machines(
    meminfo: str, limits: list[tuple[str, str]], free: int
) -> None:
    assert available_memory(meminfo, limits) == free
