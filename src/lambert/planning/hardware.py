"""The facts of this machine: processor, memory, disk, PyTorch build, GPUs. diagnosis.py draws conclusions.

Everything is read through `Probes` and `TorchFacts`, so that a test can describe a machine it does not have.
A fact that this system does not tell is None, never a guess.
"""

from __future__ import annotations

import glob
import os
import platform
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
NVIDIA_PCI_VENDOR = "0x10de"
BFLOAT16_PROCESSOR_FLAGS = ("amx_bf16", "avx512_bf16")
BFLOAT16_CUDA_CAPABILITY = (8, 0)
COMMAND_SECONDS = 10


@dataclass(frozen=True)
class CudaDevice:
    """One GPU that PyTorch can use (through CUDA or ROCm)."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]
    """Compute capability, for example (8, 0) for an A100."""


@dataclass(frozen=True)
class TorchFacts:
    """What PyTorch says of itself."""

    version: str
    """As installed, with the build behind a plus sign where the wheel names one: 2.13.0+cpu."""
    cuda: str | None
    """The CUDA version it was built for, None for other builds."""
    rocm: str | None
    """The ROCm version it was built for, None for other builds."""
    threads: int
    devices: tuple[CudaDevice, ...] = ()
    architectures: tuple[str, ...] = ()
    """GPU architectures with compiled kernels: sm_80, ..., compute_90 (all that are newer), or gfx90a, ..."""
    complaint: str = ""
    """What PyTorch warned of while it looked for GPUs; empty when it said nothing."""

    @property
    def build(self) -> str:
        """`CPU`, `CUDA 13.0` or `ROCm 7.0`."""
        if self.rocm:
            return f"ROCm {self.rocm}"
        return f"CUDA {self.cuda}" if self.cuda else "CPU"


@dataclass(frozen=True)
class GpuTraces:
    """Signs of a GPU that do not depend on PyTorch."""

    nvidia: tuple[str, ...] = ()
    """Where an NVIDIA GPU showed itself: device files, the PCI bus, nvidia-smi. Empty when nowhere."""
    nvidia_names: tuple[str, ...] = ()
    nvidia_driver: str | None = None
    """Version of the loaded kernel driver, for example 535.129.03."""
    amd: bool = False
    """True when the AMD compute device file is there."""


@dataclass(frozen=True)
class Hardware:
    """The machine of a run. Sizes in bytes."""

    processor: str
    physical_cores: int | None
    logical_cores: int
    usable_cores: int
    """Logical cores that this process may use: fewer in a container or under a batch system."""
    processor_bfloat16: str | None
    """The processor flag that makes bfloat16 products fast, None when there is none."""
    memory_bytes: int | None
    memory_available_bytes: int | None
    disk: Path
    disk_free_bytes: int
    disk_writable: bool
    system: str
    python: str
    torch: TorchFacts
    traces: GpuTraces
    visible_devices: str | None
    """The environment variable CUDA_VISIBLE_DEVICES; None when it is not set."""

    @property
    def device(self) -> str:
        """`cuda` when PyTorch can use a GPU, else `cpu`: the type of device a run would use."""
        return "cuda" if self.torch.devices else "cpu"

    @property
    def bfloat16_gains(self) -> bool:
        """Whether bfloat16 is faster than float32 on the device that a run would use."""
        if not self.torch.devices:
            return self.processor_bfloat16 is not None
        if self.torch.rocm:
            return True
        return all(device.capability >= BFLOAT16_CUDA_CAPABILITY for device in self.torch.devices)

    def host(self) -> dict[str, str | int | None]:
        """The `host` of the journal's `run` event."""
        gpus = self.torch.devices
        return {
            "processor": self.processor,
            "cores": self.usable_cores,
            "threads": self.torch.threads,
            "memory_bytes": self.memory_bytes,
            "device": f"{len(gpus)} x {gpus[0].name}" if gpus else "cpu",
            "system": self.system,
            "torch_build": self.torch.build,
        }


@dataclass(frozen=True)
class Probes:
    """The places the facts are read from; replaced as a whole by tests."""

    read: Callable[[str], str | None]
    """Path of a file -> its text, None when it cannot be read."""
    match: Callable[[str], list[str]]
    """Pattern -> the existing paths it matches, sorted."""
    run: Callable[[Sequence[str]], str | None]
    """Command -> its output, None when it is missing, fails or hangs."""
    environment: Callable[[str], str | None]
    cores: Callable[[], tuple[int, int]]
    """-> logical cores of the machine, and of them those that this process may be scheduled on."""
    disk: Callable[[Path], tuple[int, bool]]
    """Folder -> free bytes, and whether this user may write there."""
    torch: Callable[[], TorchFacts]
    system: str = field(default_factory=platform.platform)
    python: str = field(default_factory=platform.python_version)
    machine: str = field(default_factory=lambda: platform.processor() or platform.machine() or "unknown")


def inspect_hardware(folder: Path = Path("."), probes: Probes | None = None) -> Hardware:
    """The facts of this machine; `folder`, or its nearest existing parent, is where files will be written.

    Takes a second or two: it looks for GPUs, which starts their driver.
    """
    probes = probes or real_probes()
    logical, schedulable = probes.cores()
    processor_text = probes.read("/proc/cpuinfo") or ""
    flags = set(re.findall(r"\S+", " ".join(re.findall(r"^flags\s*:(.*)$", processor_text, re.MULTILINE)[:1])))
    total, available = _memory_bytes(probes)
    disk = _nearest_existing(folder)
    free_bytes, writable = probes.disk(disk)
    return Hardware(
        processor=_processor_name(processor_text, probes),
        physical_cores=_physical_cores(processor_text, probes),
        logical_cores=logical,
        usable_cores=max(1, min(schedulable, _core_quota(probes) or schedulable)),
        processor_bfloat16=next((flag for flag in BFLOAT16_PROCESSOR_FLAGS if flag in flags), None),
        memory_bytes=total,
        memory_available_bytes=available,
        disk=disk,
        disk_free_bytes=free_bytes,
        disk_writable=writable,
        system=probes.system,
        python=probes.python,
        torch=probes.torch(),
        traces=_gpu_traces(probes),
        visible_devices=probes.environment("CUDA_VISIBLE_DEVICES"),
    )


def _processor_name(processor_text: str, probes: Probes) -> str:
    named = re.search(r"^model name\s*:\s*(.+)$", processor_text, re.MULTILINE)
    if named:
        return named[1].strip()
    return (probes.run(("sysctl", "-n", "machdep.cpu.brand_string")) or "").strip() or probes.machine


def _physical_cores(processor_text: str, probes: Probes) -> int | None:
    pairs = set()
    for block in processor_text.split("\n\n"):
        values = dict(re.findall(r"^(physical id|core id)\s*:\s*(\d+)$", block, re.MULTILINE))
        if len(values) == 2:
            pairs.add((values["physical id"], values["core id"]))
    if pairs:
        return len(pairs)
    told = (probes.run(("sysctl", "-n", "hw.physicalcpu")) or "").strip()
    return int(told) if told.isdigit() else None


def _core_quota(probes: Probes) -> int | None:
    """Cores' worth of time that a container grants (Linux control groups, version 2), rounded up."""
    quota, _, period = (probes.read("/sys/fs/cgroup/cpu.max") or "").strip().partition(" ")
    if not (quota.isdigit() and period.isdigit()):
        return None
    return -(-int(quota) // int(period))


def _memory_bytes(probes: Probes) -> tuple[int | None, int | None]:
    """Total and available, each no more than a container grants."""
    lines = dict(re.findall(r"^(\w+):\s+(\d+) kB$", probes.read("/proc/meminfo") or "", re.MULTILINE))
    total = int(lines["MemTotal"]) * 1024 if "MemTotal" in lines else None
    available = int(lines["MemAvailable"]) * 1024 if "MemAvailable" in lines else None
    if total is None:
        told = (probes.run(("sysctl", "-n", "hw.memsize")) or "").strip()
        total = int(told) if told.isdigit() else None
    limit = (probes.read("/sys/fs/cgroup/memory.max") or "").strip()
    used = (probes.read("/sys/fs/cgroup/memory.current") or "").strip()
    if limit.isdigit() and (total is None or int(limit) < total):
        total = int(limit)
        left = max(0, total - int(used)) if used.isdigit() else total
        available = left if available is None else min(left, available)
    return total, available


def _gpu_traces(probes: Probes) -> GpuTraces:
    places = probes.match("/dev/nvidia[0-9]*")
    for vendor in probes.match("/sys/bus/pci/devices/*/vendor"):
        kind = (probes.read(f"{vendor.removesuffix('vendor')}class") or "").strip()
        if (probes.read(vendor) or "").strip() == NVIDIA_PCI_VENDOR and kind.startswith("0x03"):  # a display
            places.append(vendor.removesuffix("/vendor"))
    driver = re.search(r"\s(\d{3}\.\d+(?:\.\d+)?)\s", probes.read("/proc/driver/nvidia/version") or "")
    names, version = [], driver[1] if driver else None
    for line in (probes.run(NVIDIA_SMI) or "").splitlines():
        name, comma, told = line.rpartition(", ")
        if comma:
            names.append(name.strip())
            version = told.strip()
    if names:
        places.append("nvidia-smi")
    return GpuTraces(tuple(places), tuple(names), version, amd=bool(probes.match("/dev/kfd")))


def _nearest_existing(folder: Path) -> Path:
    folder = folder.absolute()
    return next((place for place in (folder, *folder.parents) if place.exists()), folder)


# The real machine


def real_probes() -> Probes:
    """Probes that read this machine."""
    return Probes(
        read=_read_file,
        match=lambda pattern: sorted(glob.glob(pattern)),
        run=_run_command,
        environment=os.environ.get,
        cores=_count_cores,
        disk=lambda folder: (shutil.disk_usage(folder).free, os.access(folder, os.W_OK)),
        torch=read_torch,
    )


def _read_file(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _run_command(command: Sequence[str]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _count_cores() -> tuple[int, int]:
    logical = os.cpu_count() or 1
    try:
        return logical, len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return logical, logical


def read_torch() -> TorchFacts:
    """What PyTorch says of itself; a driver too old speaks only through a warning, which is kept."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())] if usable else []
    return TorchFacts(
        version=torch.__version__,
        cuda=torch.version.cuda,
        rocm=torch.version.hip,
        threads=torch.get_num_threads(),
        devices=tuple(CudaDevice(d.name, d.total_memory, (d.major, d.minor)) for d in devices),
        architectures=tuple(torch.cuda.get_arch_list()) if usable else (),
        complaint=" ".join(str(warning.message).split("\n")[0] for warning in heard),
    )
