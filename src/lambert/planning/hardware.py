"""The hardware and software of this machine: processor, memory, disk, PyTorch build, GPUs. See also diagnosis.py.

A fact that the system does not report is None, never a guess. Tests replace the `_read_…` functions to describe another
machine.
"""

from __future__ import annotations

import glob
import os
import platform
import re
import shutil
import subprocess
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lambert.planning.network import public_addresses

NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
NVIDIA_PCI_VENDOR = "0x10de"
BFLOAT16_PROCESSOR_FLAGS = ("amx_bf16", "avx512_bf16")
BFLOAT16_CUDA_CAPABILITY = (8, 0)
COMMAND_SECONDS = 10
SLURM = ("SLURM_JOB_ID", "SLURM_JOB_NUM_NODES", "SLURM_NTASKS", "SLURM_CPUS_PER_TASK", "SLURM_GPUS_ON_NODE")


@dataclass(frozen=True)
class CudaDevice:
    """One GPU that PyTorch can use (through CUDA or ROCm)."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]
    """Compute capability, for example (8, 0) for an A100."""


@dataclass(frozen=True)
class TorchFacts:
    """PyTorch's version, build and devices."""

    version: str
    """As installed; some wheels name the build after a plus sign: 2.13.0+cpu."""
    cuda: str | None
    """The CUDA version it was built for, None for other builds."""
    rocm: str | None
    """The ROCm version it was built for, None for other builds."""
    threads: int
    devices: tuple[CudaDevice, ...] = ()
    architectures: tuple[str, ...] = ()
    """GPU architectures with compiled kernels: sm_80, ..., compute_90 (and all newer), or gfx90a, ..."""
    complaint: str = ""
    """PyTorch's warnings while it looked for GPUs."""
    nccl: str | None = None
    """Version of NCCL, which connects GPUs; None in builds without it."""

    @property
    def build(self) -> str:
        """`CPU`, `CUDA 13.0` or `ROCm 7.0`."""
        if self.rocm:
            return f"ROCm {self.rocm}"
        return f"CUDA {self.cuda}" if self.cuda else "CPU"


@dataclass(frozen=True)
class GpuTraces:
    """Evidence of a GPU that does not depend on PyTorch."""

    nvidia: tuple[str, ...] = ()
    """Where an NVIDIA GPU was found: device files, the PCI bus, nvidia-smi."""
    nvidia_names: tuple[str, ...] = ()
    nvidia_driver: str | None = None
    """Version of the loaded kernel driver, for example 535.129.03."""
    amd: bool = False
    """Whether the AMD compute device file exists."""


@dataclass(frozen=True)
class Hardware:
    """The machine of a run. Sizes in bytes."""

    processor: str
    physical_cores: int | None
    logical_cores: int
    usable_cores: int
    """Logical cores that this process may use: fewer in a container or under a batch system."""
    processor_bfloat16: str | None
    """The processor flag of fast bfloat16 matmuls; None without one."""
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
    """The environment variable CUDA_VISIBLE_DEVICES; None if unset."""
    load: float | None
    """Processes that ran or waited for a core over the last minute, on average."""
    has_srun: bool
    """Whether SLURM's `srun` is on PATH."""
    slurm: Mapping[str, str]
    """SLURM's variables of the job that this process is in; empty outside one."""
    public_addresses: tuple[str, ...] = ()
    """Addresses of this machine, and of MASTER_ADDR, that are not private."""

    @property
    def device(self) -> str:
        """The type of device a run would use: `cuda` if PyTorch can use a GPU, else `cpu`."""
        return "cuda" if self.torch.devices else "cpu"

    @property
    def bfloat16_gains(self) -> bool:
        """Whether bfloat16 is faster than float32 on the device that a run would use."""
        if not self.torch.devices:
            return self.processor_bfloat16 is not None
        if self.torch.rocm:
            return True
        return all(device.capability >= BFLOAT16_CUDA_CAPABILITY for device in self.torch.devices)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self) | {"bfloat16_gains": self.bfloat16_gains, "device": self.device, "disk": str(self.disk)}
        values["torch"]["build"] = self.torch.build
        return values

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


def _read_file(path: str) -> str:
    """Its text without surrounding space; empty where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _read_paths(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern))


def _read_command(*command: str) -> str:
    """Its output without surrounding space; empty where it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _read_cores() -> tuple[int, int]:
    """Logical cores of the machine, and those that this process may be scheduled on."""
    logical = os.cpu_count() or 1
    try:
        return logical, len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return logical, logical


def _read_disk(folder: Path) -> tuple[int, bool]:
    """Free bytes, and whether this user may write there."""
    return shutil.disk_usage(folder).free, os.access(folder, os.W_OK)


def _read_load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # not on Windows
        return None


def _read_scheduler() -> tuple[bool, dict[str, str]]:
    """Whether `srun` is there, and SLURM's variables."""
    return shutil.which("srun") is not None, {name: os.environ[name] for name in SLURM if name in os.environ}


def _read_torch() -> TorchFacts:
    """PyTorch's build and devices. An outdated driver shows up only in a warning, which is kept."""
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
        nccl=_nccl_version(),
    )


def _nccl_version() -> str | None:
    try:
        return ".".join(map(str, torch.cuda.nccl.version()))
    except (AttributeError, RuntimeError):  # builds without CUDA
        return None


def inspect_hardware(folder: Path = Path(".")) -> Hardware:
    """This machine, as seen by this process. Takes a second or two, because looking for GPUs starts their driver.

    Args:
        folder: where files will be written; its nearest existing parent counts where it does not exist yet.
    """
    logical, schedulable = _read_cores()
    processor_text = _read_file("/proc/cpuinfo")
    flags = re.search(r"^flags\s*:(.*)$", processor_text, re.MULTILINE)
    known_flags = set(flags[1].split()) if flags else set()
    total, available = _memory_bytes()
    folder = folder.absolute()
    disk = next((parent for parent in (folder, *folder.parents) if parent.exists()), folder)
    free_bytes, writable = _read_disk(disk)
    has_srun, slurm = _read_scheduler()
    return Hardware(
        processor=_processor_name(processor_text),
        physical_cores=_physical_cores(processor_text),
        logical_cores=logical,
        usable_cores=max(1, min(schedulable, _core_quota() or schedulable)),
        processor_bfloat16=next((flag for flag in BFLOAT16_PROCESSOR_FLAGS if flag in known_flags), None),
        memory_bytes=total,
        memory_available_bytes=available,
        disk=disk,
        disk_free_bytes=free_bytes,
        disk_writable=writable,
        system=platform.platform(),
        python=platform.python_version(),
        torch=_read_torch(),
        traces=_gpu_traces(),
        visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        load=_read_load(),
        has_srun=has_srun,
        slurm=slurm,
        public_addresses=public_addresses(),
    )


def _processor_name(processor_text: str) -> str:
    named = re.search(r"^model name\s*:\s*(.+)$", processor_text, re.MULTILINE)
    if named:
        return named[1].strip()
    brand = _read_command("sysctl", "-n", "machdep.cpu.brand_string")  # macOS
    return brand or platform.processor() or platform.machine() or "unknown"


def _physical_cores(processor_text: str) -> int | None:
    pairs = set()
    for block in processor_text.split("\n\n"):
        values = dict(re.findall(r"^(physical id|core id)\s*:\s*(\d+)$", block, re.MULTILINE))
        if len(values) == 2:
            pairs.add((values["physical id"], values["core id"]))
    return len(pairs) or _sysctl_int("hw.physicalcpu")


def _sysctl_int(name: str) -> int | None:
    output = _read_command("sysctl", "-n", name)
    return int(output) if output.isdigit() else None


def _core_quota() -> int | None:
    """CPU quota of a container (Linux control groups, version 2) in cores, rounded up."""
    quota, _, period = _read_file("/sys/fs/cgroup/cpu.max").partition(" ")
    if not (quota.isdigit() and period.isdigit()):
        return None
    return -(-int(quota) // int(period))


def _memory_bytes() -> tuple[int | None, int | None]:
    """Total and available, each at most what a container may use."""
    lines = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _read_file("/proc/meminfo"), re.MULTILINE))
    total = int(lines["MemTotal"]) * 1024 if "MemTotal" in lines else _sysctl_int("hw.memsize")
    available = int(lines["MemAvailable"]) * 1024 if "MemAvailable" in lines else None
    limit, used = _read_file("/sys/fs/cgroup/memory.max"), _read_file("/sys/fs/cgroup/memory.current")
    if limit.isdigit() and (total is None or int(limit) < total):
        total = int(limit)
        left = max(0, total - int(used)) if used.isdigit() else total
        available = left if available is None else min(left, available)
    return total, available


def _gpu_traces() -> GpuTraces:
    paths = _read_paths("/dev/nvidia[0-9]*")
    for vendor in _read_paths("/sys/bus/pci/devices/*/vendor"):
        device = vendor.removesuffix("/vendor")
        if _read_file(vendor) == NVIDIA_PCI_VENDOR and _read_file(f"{device}/class").startswith("0x03"):  # a display
            paths.append(device)
    driver = re.search(r"\s(\d{3}\.\d+(?:\.\d+)?)\s", _read_file("/proc/driver/nvidia/version"))
    names, version = [], driver[1] if driver else None
    for line in _read_command(*NVIDIA_SMI).splitlines():
        name, comma, driver_version = line.rpartition(", ")
        if comma:
            names.append(name.strip())
            version = driver_version.strip()
    if names:
        paths.append("nvidia-smi")
    return GpuTraces(tuple(paths), tuple(names), version, amd=bool(_read_paths("/dev/kfd")))
