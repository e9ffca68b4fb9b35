"""Other machines, described by what their own files and tools print."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from lambert.planning import hardware as hardware_module
from lambert.planning.diagnosis import Finding, findings
from lambert.planning.hardware import CudaDevice, GpuTraces, Hardware, TorchFacts, inspect_hardware

GIB = 2**30

# Two sockets of two cores with two threads each: 8 logical, 4 physical.
XEON = "".join(
    f"processor\t: {i}\nmodel name\t: Intel(R) Xeon(R) Platinum 8480+\nphysical id\t: {i % 2}\n"
    f"core id\t\t: {i // 2 % 2}\nflags\t\t: fpu avx2 avx512_bf16 amx_bf16 amx_tile\n\n"
    for i in range(8)
)
MEMORY = "MemTotal:       16384000 kB\nMemFree:         1000000 kB\nMemAvailable:    8192000 kB\n"
DRIVER_535 = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\n"
    "GCC version:  gcc version 11.4.0\n"
)
DRIVER_580_OPEN = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder@U16)\n"
)
CPU_BUILD = TorchFacts(version="2.13.0+cpu", cuda=None, rocm=None, threads=4)
CUDA_BUILD = TorchFacts(version="2.13.0", cuda="13.0", rocm=None, threads=4, nccl="2.27.5")
A100 = CudaDevice("NVIDIA A100-SXM4-80GB", 80 * GIB, (8, 0))
V100 = CudaDevice("Tesla V100-SXM2-16GB", 16 * GIB, (7, 0))


def machine(
    files: dict[str, str] | None = None,
    commands: dict[str, str] | None = None,
    torch_facts: TorchFacts = CPU_BUILD,
    *,
    folder: Path = Path("."),
    cores: tuple[int, int] = (8, 8),
    disk: tuple[int, bool] = (100 * GIB, True),
    python: str = "3.12.1",
    visible_devices: str | None = None,
    is_linux: bool = True,
    load: float | None = 0.2,
    scheduler: tuple[bool, dict[str, str]] = (False, {}),
) -> Hardware:
    """A machine with nothing but these files and commands."""
    files = ({"/proc/cpuinfo": XEON, "/proc/meminfo": MEMORY} if is_linux else {}) | (files or {})
    commands = commands or {}
    replaced = {
        "_read_file": lambda path: files.get(path, "").strip(),
        "_read_paths": lambda pattern: sorted(path for path in files if Path(path).match(pattern)),
        "_read_command": lambda *words: commands.get(" ".join(words[:3]), commands.get(words[0], "")).strip(),
        "_read_cores": lambda: cores,
        "_read_disk": lambda folder: disk,
        "_read_torch": lambda: torch_facts,
        "_read_load": lambda: load,
        "_read_scheduler": lambda: scheduler,
    }
    platform = {"platform": lambda: "Linux-6.1", "python_version": lambda: python, "processor": lambda: "x86_64"}
    shown = {} if visible_devices is None else {"CUDA_VISIBLE_DEVICES": visible_devices}
    with (
        mock.patch.multiple(hardware_module, **replaced),
        mock.patch.multiple(hardware_module.platform, **platform),
        mock.patch.dict(os.environ, shown),
    ):
        if visible_devices is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        return inspect_hardware(folder)


def worst(hardware: Hardware) -> list[Finding]:
    return [finding for finding in findings(hardware) if finding.level != "ok"]


def only(hardware: Hardware) -> Finding:
    found = worst(hardware)
    assert len(found) == 1, found
    return found[0]


# Facts


def test_processor_and_memory_of_a_linux_machine() -> None:
    hardware = machine()
    assert hardware.processor == "Intel(R) Xeon(R) Platinum 8480+"
    assert (hardware.physical_cores, hardware.logical_cores, hardware.usable_cores) == (4, 8, 8)
    assert hardware.processor_bfloat16 == "amx_bf16"
    assert hardware.memory_bytes == 16_384_000 * 1024
    assert hardware.memory_available_bytes == 8_192_000 * 1024
    assert worst(hardware) == []


def test_a_container_grants_less_than_the_machine_has() -> None:
    hardware = machine(
        files={
            "/sys/fs/cgroup/cpu.max": "150000 100000\n",
            "/sys/fs/cgroup/memory.max": f"{6 * GIB}\n",
            "/sys/fs/cgroup/memory.current": f"{2 * GIB}\n",
        }
    )
    assert hardware.usable_cores == 2
    assert hardware.memory_bytes == 6 * GIB
    assert hardware.memory_available_bytes == 4 * GIB


def test_a_container_without_limits_changes_nothing() -> None:
    files = {"/sys/fs/cgroup/cpu.max": "max 100000\n", "/sys/fs/cgroup/memory.max": "max\n"}
    assert machine(files=files) == machine()


def test_a_batch_system_that_binds_to_three_cores() -> None:
    hardware = machine(cores=(8, 3))
    assert hardware.usable_cores == 3
    finding = only(hardware)
    assert finding.level == "warning"
    assert finding.remedy.endswith("OMP_NUM_THREADS=3")


def test_a_mac_tells_through_sysctl() -> None:
    told = {
        "sysctl -n machdep.cpu.brand_string": "Apple M2 Pro\n",
        "sysctl -n hw.physicalcpu": "10\n",
        "sysctl -n hw.memsize": f"{16 * GIB}\n",
    }
    hardware = machine(commands=told, is_linux=False)
    assert (hardware.processor, hardware.physical_cores, hardware.memory_bytes) == (
        "Apple M2 Pro",
        10,
        16 * GIB,
    )
    assert hardware.memory_available_bytes is None


def test_what_the_system_does_not_tell_is_none() -> None:
    hardware = machine(is_linux=False)
    assert hardware.processor == "x86_64"
    assert hardware.physical_cores is None
    assert hardware.memory_bytes is None
    assert worst(hardware) == []


def test_the_nearest_existing_folder_is_looked_at(tmp_path: Path) -> None:
    hardware = machine(folder=tmp_path / "runs" / "first")
    assert hardware.disk == tmp_path


@pytest.mark.parametrize(("text", "version"), [(DRIVER_535, "535.129.03"), (DRIVER_580_OPEN, "580.65.06")])
def test_the_driver_names_its_version(text: str, version: str) -> None:
    hardware = machine(files={"/proc/driver/nvidia/version": text})
    assert hardware.traces.nvidia_driver == version


def test_only_a_display_on_the_bus_is_a_gpu() -> None:
    bus = "/sys/bus/pci/devices/0000:01:00"
    files = {
        f"{bus}.0/vendor": "0x10de\n",
        f"{bus}.0/class": "0x030000\n",
        f"{bus}.1/vendor": "0x10de\n",  # the sound device of the same card
        f"{bus}.1/class": "0x040300\n",
        f"{bus}.2/vendor": "0x8086\n",
        f"{bus}.2/class": "0x030000\n",
    }
    assert machine(files=files).traces.nvidia == (f"{bus}.0",)


def test_nvidia_smi_that_fails_is_no_trace() -> None:
    assert machine(commands={}).traces == GpuTraces()
    told = machine(commands={"nvidia-smi": "NVIDIA A100-SXM4-80GB, 580.65.06\n" * 2}).traces
    assert told.nvidia_names == ("NVIDIA A100-SXM4-80GB",) * 2
    assert told.nvidia_driver == "580.65.06"


# bfloat16


@pytest.mark.parametrize(
    ("facts", "flags", "gains"),
    [
        (CPU_BUILD, "avx2 avx512f", False),
        (CPU_BUILD, "avx2 avx512_bf16", True),
        (CPU_BUILD, "avx2 amx_bf16", True),
        (dataclasses.replace(CUDA_BUILD, devices=(A100,)), "avx2", True),
        (dataclasses.replace(CUDA_BUILD, devices=(V100,)), "amx_bf16", False),
        (dataclasses.replace(CUDA_BUILD, devices=(A100, V100)), "avx2", False),
    ],
)
def test_where_bfloat16_gains(facts: TorchFacts, flags: str, gains: bool) -> None:
    hardware = machine(files={"/proc/cpuinfo": f"flags\t\t: {flags}\n"}, torch_facts=facts)
    assert hardware.bfloat16_gains is gains
    text = " ".join(finding.text for finding in findings(hardware))
    assert ("bfloat16 is fast here" in text) is gains


# A GPU that PyTorch cannot use

GPU_FILES = {"/dev/nvidia0": ""}


def test_a_cpu_build_beside_a_gpu() -> None:
    finding = only(machine(files=GPU_FILES | {"/proc/driver/nvidia/version": DRIVER_580_OPEN}))
    assert finding.level == "problem"
    assert "is a CPU build: training would run on the CPU" in finding.text
    assert finding.remedy.endswith("--index-url https://download.pytorch.org/whl/cu130")


def test_a_cpu_build_beside_a_gpu_with_an_older_driver() -> None:
    finding = only(machine(files=GPU_FILES | {"/proc/driver/nvidia/version": DRIVER_535}))
    assert finding.remedy.endswith("--index-url https://download.pytorch.org/whl/cu126")


def test_a_cpu_build_beside_a_gpu_whose_driver_is_not_told() -> None:
    finding = only(machine(files=GPU_FILES))
    assert "of unknown version" in finding.text
    assert finding.remedy.endswith("/cu126")


def test_a_driver_too_old_for_the_build() -> None:
    finding = only(machine(commands={"nvidia-smi": "Tesla T4, 535.129.03\n"}, torch_facts=CUDA_BUILD, files=GPU_FILES))
    assert finding.level == "problem"
    assert "the NVIDIA driver 535.129.03 is too old" in finding.text
    assert "CUDA 13.0 needs 580 or newer" in finding.text
    assert "Tesla T4" in finding.text
    assert finding.remedy.startswith("Update the driver to 580 or newer. Or: pip install")
    assert finding.remedy.endswith("/cu126")


def test_a_driver_too_old_for_any_build() -> None:
    facts = dataclasses.replace(CUDA_BUILD, cuda="12.6")
    finding = only(machine(commands={"nvidia-smi": "Tesla K80, 470.82\n"}, torch_facts=facts))
    assert "CUDA 12.6 needs 525 or newer" in finding.text
    assert "no PyTorch of today runs on 470" in finding.remedy


def test_a_new_driver_that_will_not_open() -> None:
    facts = dataclasses.replace(CUDA_BUILD, complaint="CUDA initialization: no device")
    finding = only(machine(commands={"nvidia-smi": "NVIDIA H100, 580.65.06\n"}, torch_facts=facts))
    assert finding.level == "problem"
    assert "CUDA initialization: no device" in finding.text


def test_a_card_without_a_driver() -> None:
    bus = "/sys/bus/pci/devices/0000:01:00.0"
    finding = only(machine(files={f"{bus}/vendor": "0x10de\n", f"{bus}/class": "0x030200\n"}))
    assert finding.level == "problem"
    assert "no NVIDIA driver is loaded" in finding.text


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_hidden_on_purpose_is_only_a_warning(hidden: str) -> None:
    finding = only(
        machine(
            commands={"nvidia-smi": "NVIDIA H100, 580.65.06\n"},
            torch_facts=CUDA_BUILD,
            visible_devices=hidden,
        )
    )
    assert finding.level == "warning"
    assert finding.remedy.startswith("Unset CUDA_VISIBLE_DEVICES")


def test_an_amd_gpu_without_rocm() -> None:
    finding = only(machine(files={"/dev/kfd": ""}))
    assert finding.level == "problem"
    assert "ROCm" in finding.remedy


@pytest.mark.parametrize(
    ("capability", "architectures", "usable"),
    [
        ((8, 6), ("sm_80", "sm_90"), True),  # a minor version upwards
        ((8, 0), ("sm_86",), False),
        ((7, 0), ("sm_75", "sm_80"), False),  # a V100 after CUDA 13
        ((12, 0), ("sm_90", "compute_90"), True),  # compiled on the spot
        ((12, 0), ("sm_50", "sm_90"), False),
        ((9, 0), ("sm_90a",), True),
        ((12, 0), ("sm_120",), True),
        ((7, 0), (), True),
    ],
)
def test_a_gpu_that_the_build_has_no_kernels_for(
    capability: tuple[int, int], architectures: tuple[str, ...], usable: bool
) -> None:
    device = CudaDevice("a GPU", 16 * GIB, capability)
    facts = dataclasses.replace(CUDA_BUILD, devices=(device,), architectures=architectures)
    assert (worst(machine(torch_facts=facts)) == []) is usable


# Software, memory, disk


@pytest.mark.parametrize(
    ("described", "level", "text"),
    [
        ({"python": "3.10.13"}, "problem", "Python 3.10.13"),
        ({"torch_facts": dataclasses.replace(CPU_BUILD, version="2.9.1")}, "problem", "older than 2.10"),
        ({"files": {"/proc/meminfo": "MemTotal: 2000000 kB\n"}}, "warning", "memory"),
        ({"disk": (5 * GIB, True)}, "warning", "disk: 5.0 GiB"),
        ({"disk": (GIB // 2, True)}, "problem", "disk: 0.5 GiB"),
        ({"disk": (100 * GIB, False)}, "problem", "cannot be written"),
        ({"load": 5.5}, "warning", "load: 5.5 busy processes over the last minute, for 8 logical cores"),
        ({"torch_facts": dataclasses.replace(CUDA_BUILD, devices=(A100, A100), nccl=None)}, "problem", "no NCCL"),
    ],
)
def test_what_stands_in_the_way(described: dict[str, Any], level: str, text: str) -> None:
    finding = only(machine(**described))
    assert finding.level == level
    assert text in finding.text
    assert finding.remedy


def test_a_good_machine_with_a_gpu() -> None:
    facts = dataclasses.replace(CUDA_BUILD, devices=(A100, A100), architectures=("sm_80",))
    hardware = machine(torch_facts=facts)
    assert worst(hardware) == []
    assert hardware.device == "cuda"
    assert hardware.host()["device"] == "2 x NVIDIA A100-SXM4-80GB"


def test_what_connects_several_machines_is_told() -> None:
    def told(**described: Any) -> str:
        return "\n".join(finding.text for finding in findings(machine(**described)))

    facts = dataclasses.replace(CUDA_BUILD, devices=(A100, A100))
    assert "NCCL 2.27.5" in told(torch_facts=facts)
    assert "use Gloo" in told() and "no SLURM" in told()
    assert "srun is on PATH" in told(scheduler=(True, {}))
    assert "inside a SLURM job: SLURM_JOB_ID=7" in told(scheduler=(True, {"SLURM_JOB_ID": "7"}))
    assert "load" not in told(load=None)


def test_slurms_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert inspect_hardware().slurm["SLURM_NTASKS"] == "4"


# This machine


def test_this_machine(tmp_path: Path) -> None:
    hardware = inspect_hardware(tmp_path)
    assert hardware.torch.version == torch.__version__
    assert hardware.torch.threads == torch.get_num_threads() == 1  # conftest.py sees to it
    assert 1 <= hardware.usable_cores <= hardware.logical_cores
    assert hardware.disk_free_bytes > 0
    assert hardware.disk_writable
    host = hardware.host()
    assert {"processor", "cores", "threads", "memory_bytes", "device"} <= set(host)
    assert json.loads(json.dumps(host)) == host
