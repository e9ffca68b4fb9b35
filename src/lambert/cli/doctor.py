"""`lambert doctor`: what this machine can do, what would make it slow, and how to fix it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.console import Console
from rich.markup import escape

from lambert import __version__
from lambert.cli.subcommand import Subcommand

if TYPE_CHECKING:
    from lambert.planning.diagnosis import Finding

MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "problem": "[bold red]PROBLEM[/]"}
MARK_WIDTH = 9


@dataclass(frozen=True)
class Doctor(Subcommand):
    """Look at this machine: Python, PyTorch build, processor, threads, GPUs, memory, disk, load, NCCL, SLURM.

    Says loudly when a GPU is there that PyTorch cannot use. Exit code 1 when a problem was found, else 0.
    """

    only_prints: ClassVar[bool] = True

    folder: Path = Path(".")
    """Folder that corpora and runs will be written to; its disk is looked at. It need not exist yet."""

    def run(self) -> dict[str, Any]:
        """Print the diagnosis and return `healthy`, `exit_code`, `findings`, `hardware` (sizes in bytes)."""
        from lambert.planning.diagnosis import findings
        from lambert.planning.hardware import inspect_hardware

        hardware = inspect_hardware(self.folder)
        found = [*findings(hardware), *_kernels(), *_gpu_kernels(len(hardware.torch.devices))]
        _print(found)
        problems = sum(finding.level == "problem" for finding in found)
        return {
            "healthy": problems == 0,
            "exit_code": 1 if problems else 0,
            "findings": [asdict(finding) for finding in found],
            "hardware": hardware.to_dict(),
        }


def _kernels() -> list[Finding]:
    from lambert.optim.kernels.cpu import INSTALL, load
    from lambert.planning.diagnosis import Finding

    why = load()[1]
    if why:
        return [Finding("warning", f"LAMB on the CPU uses plain tensor operations: {why}", INSTALL)]
    return [Finding("ok", "LAMB on the CPU uses its compiled kernel (numba)"), _kernel_cache()]


def _gpu_kernels(count: int) -> list[Finding]:
    """Whether LAMB's Triton kernels run on each of `count` GPUs, found by launching one; one line for all alike."""
    import torch

    from lambert.optim.kernels.gpu import REMEDY, load
    from lambert.planning.diagnosis import Finding

    reasons = dict.fromkeys(load(torch.device("cuda", index))[1] for index in range(count))
    used = Finding("ok", "LAMB on the GPU uses its Triton kernels (untested on GPU)")
    slow = "LAMB on the GPU uses plain tensor operations, which are slower"
    return [Finding("warning", f"{slow}: {why}", f"Install {REMEDY}") if why else used for why in reasons]


def _kernel_cache() -> Finding:
    from lambert import kernel_cache
    from lambert.planning.diagnosis import Finding

    folder = kernel_cache.location()
    if folder is None:
        return Finding("ok", f"compiled kernels are not kept on disk: {kernel_cache.VARIABLE} is off")
    try:
        with kernel_cache.open_folder():
            return Finding("ok", f"compiled kernels are kept in {folder}")
    except OSError as error:
        remedy = f"chmod 700 {folder} if it is yours, or set {kernel_cache.VARIABLE} to a folder of your own"
        return Finding("warning", f"every process compiles its kernels, for some seconds: {error}", remedy)


def _print(found: list[Finding]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"lambert {__version__}")
    for finding in found:
        mark = MARKS[finding.level] + " " * (MARK_WIDTH - len(finding.level))
        console.print(f"{mark}{escape(finding.text)}")
        if finding.remedy:
            console.print(f"{' ' * MARK_WIDTH}-> {escape(finding.remedy)}")
    problems = sum(finding.level == "problem" for finding in found)
    if problems:
        console.print(f"{problems} problem{'s' * (problems != 1)} found.")
    else:
        console.print("Nothing stands in the way of a run.")
