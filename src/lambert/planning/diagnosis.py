"""Diagnosis of a machine: what works, what is slow, what to fix and how.

The most expensive fault is silent: a machine with a GPU on which PyTorch trains on the CPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lambert.planning.hardware import Hardware

Level = Literal["ok", "warning", "problem"]

PYTHON_LOWEST = (3, 11)
TORCH_LOWEST = (2, 10)
# The oldest driver branch (Linux) for each CUDA generation, by NVIDIA's rule that every minor version of a
# generation runs on the first driver of it.
DRIVER_LOWEST = {13: 580, 12: 525}
# Another program on half of the cores already slows the run.
LOAD_PER_CORE = 0.5
WHEELS = "https://download.pytorch.org/whl"
WHEELS_FOR_CUDA = {13: "cu130", 12: "cu126"}
SLOW = "training would run on the CPU"
GIB = 2**30
# A base model with LAMB holds 16 bytes for each of its 110 million parameters, and activations besides.
MEMORY_ENOUGH_BYTES = 4 * GIB
# One checkpoint of a base model is 1.3 GiB and a run keeps several; below 1 GiB even the demo is in danger.
DISK_ENOUGH_BYTES = 10 * GIB
DISK_LOWEST_BYTES = 1 * GIB


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis."""

    level: Level
    text: str
    remedy: str = ""
    """What to do, an imperative sentence; empty when there is nothing to do."""


def findings(hardware: Hardware) -> list[Finding]:
    """The diagnosis of a machine, in reading order; without a `problem` in it, a run can start."""
    return [
        *_software(hardware),
        *_processor(hardware),
        *_gpus(hardware),
        *_bfloat16(hardware),
        *_memory_and_disk(hardware),
        *load_findings(hardware),
        *_cluster(hardware),
    ]


def _numbers(version: str) -> tuple[int, int]:
    """First two numbers of a version: 2.13.0+cpu -> (2, 13)."""
    found = [int(number) for number in re.findall(r"\d+", version)[:2]]
    return (found[0] if found else 0, found[1] if len(found) > 1 else 0)


def _software(hardware: Hardware) -> Iterator[Finding]:
    if _numbers(hardware.python) < PYTHON_LOWEST:
        yield Finding("problem", f"Python {hardware.python}", "Use Python 3.11 or newer")
    else:
        yield Finding("ok", f"Python {hardware.python} on {hardware.system}")
    version = f"PyTorch {hardware.torch.version}, built for {hardware.torch.build}"
    if _numbers(hardware.torch.version) < TORCH_LOWEST:
        yield Finding("problem", f"{version}: older than 2.10", "pip install --upgrade torch")
    else:
        yield Finding("ok", version)


def _processor(hardware: Hardware) -> Iterator[Finding]:
    cores = f"{hardware.logical_cores} logical cores"
    if hardware.physical_cores is not None:
        cores += f" on {hardware.physical_cores} physical"
    if hardware.usable_cores < hardware.logical_cores:
        cores += f", {hardware.usable_cores} of them for this process"
    yield Finding("ok", f"{hardware.processor}: {cores}")
    threads = hardware.torch.threads
    if threads > hardware.usable_cores:
        yield Finding(
            "warning",
            f"PyTorch would run {threads} threads on {hardware.usable_cores} usable cores, which is slower",
            f"Set the environment variable OMP_NUM_THREADS={hardware.usable_cores}",
        )
    else:
        yield Finding("ok", f"PyTorch uses {threads} thread{'s' * (threads != 1)}")


# GPUs


def _gpus(hardware: Hardware) -> Iterator[Finding]:
    traces = hardware.traces
    if hardware.torch.devices:
        yield from _usable_gpus(hardware)
    elif traces.nvidia:
        yield _unusable_nvidia(hardware)
    elif traces.amd:
        build = hardware.torch.build
        yield Finding(
            "problem",
            f"an AMD GPU is in this machine, but this PyTorch (built for {build}) cannot use it: {SLOW}",
            "Check that this user may open /dev/kfd (groups render and video) and that its driver is loaded"
            if hardware.torch.rocm
            else "Install PyTorch's ROCm build, as the selector on pytorch.org shows",
        )
    else:
        yield Finding("ok", "no GPU found: training runs on the CPU")


def _usable_gpus(hardware: Hardware) -> Iterator[Finding]:
    for device in hardware.torch.devices:
        major, minor = device.capability
        text = f"{device.name}: {device.memory_bytes / GIB:.0f} GiB"
        if hardware.torch.rocm:
            yield Finding("ok", text)
        elif _has_kernels(device.capability, hardware.torch.architectures):
            yield Finding("ok", f"{text}, compute capability {major}.{minor}")
        else:
            yield Finding(
                "problem",
                f"{text}: this PyTorch has no kernels for compute capability {major}.{minor}",
                f"Install a build that has: {_install(12 if major < 10 else 13)}, "
                "or hide the GPU with CUDA_VISIBLE_DEVICES=",
            )


def _has_kernels(capability: tuple[int, int], architectures: tuple[str, ...]) -> bool:
    """sm_80 runs on 8.0 and every later 8.x; compute_90 is compiled on demand for 9.0 and all newer."""
    if not architectures:
        return True  # unknown: no reason to doubt
    for architecture in architectures:
        kind, _, digits = architecture.partition("_")
        number = int(re.sub(r"\D", "", digits) or 0)
        built = (number // 10, number % 10)
        if kind == "sm" and built[0] == capability[0] and built[1] <= capability[1]:
            return True
        if kind == "compute" and built <= capability:
            return True
    return False


def _unusable_nvidia(hardware: Hardware) -> Finding:
    """Why PyTorch does not see the machine's NVIDIA GPU, likeliest cause first."""
    torch, traces, driver = hardware.torch, hardware.traces, hardware.traces.nvidia_driver
    gpu = f"an NVIDIA GPU ({traces.nvidia_names[0] if traces.nvidia_names else traces.nvidia[0]})"
    branch = _numbers(driver)[0] if driver else None
    needed = DRIVER_LOWEST.get(_numbers(torch.cuda)[0]) if torch.cuda else None
    if hardware.visible_devices is not None and hardware.visible_devices.strip() in ("", "-1"):
        return Finding(
            "warning",
            f"{gpu} is hidden by CUDA_VISIBLE_DEVICES={hardware.visible_devices}: {SLOW}",
            "Unset CUDA_VISIBLE_DEVICES to use it",
        )
    if driver is None and not any(path.startswith("/dev/") for path in traces.nvidia):
        return Finding(
            "problem",
            f"{gpu} is in this machine but no NVIDIA driver is loaded: {SLOW}",
            f"Install NVIDIA's driver {DRIVER_LOWEST[13]} or newer. In a container: start it with its GPUs",
        )
    if torch.cuda is None:
        return Finding(
            "problem",
            f"{gpu} is in this machine, its driver is {driver or 'of unknown version'}, but this PyTorch "
            f"({torch.version}) is a {torch.build} build: {SLOW}",
            _install_for_driver(branch),
        )
    if needed is not None and branch is not None and branch < needed:
        return Finding(
            "problem",
            f"the NVIDIA driver {driver} is too old for this PyTorch: CUDA {torch.cuda} needs {needed} or "
            f"newer. It cannot use {gpu}: {SLOW}",
            f"Update the driver to {needed} or newer. Or: {_install_for_driver(branch)}",
        )
    return Finding(
        "problem",
        f"PyTorch cannot open {gpu}: {SLOW}" + (f". It says: {torch.complaint}" if torch.complaint else ""),
        "Check that nvidia-smi lists the GPU and that this user may read /dev/nvidia*. "
        "In a container: start it with its GPUs",
    )


def _install_for_driver(branch: int | None) -> str:
    """The command that installs the newest PyTorch build that runs on this driver branch."""
    if branch is None:
        branch = min(DRIVER_LOWEST.values())
    for generation, lowest in DRIVER_LOWEST.items():
        if branch >= lowest:
            return _install(generation)
    newest = max(DRIVER_LOWEST.values())
    return f"Update the driver to {newest} or newer; no PyTorch of today runs on {branch}"


def _install(generation: int) -> str:
    return f"pip install --force-reinstall torch --index-url {WHEELS}/{WHEELS_FOR_CUDA[generation]}"


# Numbers, memory, disk


def _bfloat16(hardware: Hardware) -> Iterator[Finding]:
    if hardware.bfloat16_gains:
        why = f" ({hardware.processor_bfloat16})" if hardware.device == "cpu" else ""
        yield Finding("ok", f"bfloat16 is fast here{why}: --precision auto uses it")
    else:
        yield Finding("ok", "bfloat16 gains nothing here: --precision auto stays with float32")


def _memory_and_disk(hardware: Hardware) -> Iterator[Finding]:
    total, available = hardware.memory_bytes, hardware.memory_available_bytes
    if total is None:
        yield Finding("ok", "memory: this system does not report it")
    else:
        left = total if available is None else available
        text = f"memory: {total / GIB:.1f} GiB" + (f", {available / GIB:.1f} free" if available is not None else "")
        if left < MEMORY_ENOUGH_BYTES:
            yield Finding("warning", text, "Train a small model (tiny, mini, small) or close other programs")
        else:
            yield Finding("ok", text)
    text = f"disk: {hardware.disk_free_bytes / GIB:.1f} GiB free at {hardware.disk}"
    if not hardware.disk_writable:
        yield Finding("problem", f"{hardware.disk} cannot be written to", "Choose another folder with --folder")
    elif hardware.disk_free_bytes < DISK_LOWEST_BYTES:
        yield Finding("problem", text, "Free some space, or look at another folder with --folder")
    elif hardware.disk_free_bytes < DISK_ENOUGH_BYTES:
        yield Finding("warning", text, "Free some space before a long run: checkpoints of large models need it")
    else:
        yield Finding("ok", text)


def load_findings(hardware: Hardware) -> Iterator[Finding]:
    """Whether other work keeps the processor busy; nothing where the system does not tell."""
    if hardware.load is None:
        return
    text = f"load: {hardware.load:.1f} busy processes over the last minute, for {hardware.logical_cores} logical cores"
    if hardware.load > LOAD_PER_CORE * hardware.logical_cores:
        yield Finding("warning", text, "Stop other programs, or give the run fewer --threads")
    else:
        yield Finding("ok", text)


def _cluster(hardware: Hardware) -> Iterator[Finding]:
    """What several GPUs or machines need."""
    gpus = len(hardware.torch.devices)
    if hardware.torch.nccl is not None:
        yield Finding("ok", f"NCCL {hardware.torch.nccl} connects GPUs (untested on GPU)")
    elif gpus > 1 and not hardware.torch.rocm:
        yield Finding(
            "problem", f"this PyTorch has no NCCL, which connects {gpus} GPUs", "Install a CUDA build for Linux"
        )
    else:
        yield Finding("ok", "no NCCL in this PyTorch: several processes on CPUs use Gloo")
    if hardware.slurm:
        job = ", ".join(f"{name}={value}" for name, value in hardware.slurm.items())
        yield Finding("ok", f"inside a SLURM job: {job}; docs/launch/slurm.sh starts torchrun once on each node")
    elif hardware.has_srun:
        yield Finding("ok", "SLURM: srun is on PATH, and this is no job; start one with sbatch docs/launch/slurm.sh")
    else:
        yield Finding("ok", "no SLURM: srun is not on PATH")
    if hardware.public_addresses:
        yield Finding(
            "warning",
            f"{', '.join(hardware.public_addresses)} is a public address: torchrun's store listens on every address "
            "without a password, and whoever reaches it can run programs as you",
            "Let a firewall keep others from all ports of the run, or start it with `lambert pretrain --processes N`, "
            "which listens on 127.0.0.1 alone",
        )
