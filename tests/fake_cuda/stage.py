"""`python -m fake_cuda stage WORDS…`: a stage of the check on one GPU, on the fake GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from fake_cuda.device import FakeGpu, install
from fake_cuda.program import use_kernels


class _NoProfile:
    """A profiler that sees nothing: PyTorch's would ask the device about every operation."""

    def __init__(self, activities: Any) -> None:
        assert torch.profiler.ProfilerActivity.CUDA in activities

    def __enter__(self) -> _NoProfile:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""

    def events(self) -> list[Any]:
        """None."""
        return []


def main() -> None:
    """Run the stage in this process."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
    gpu = FakeGpu()
    install(gpu)
    use_kernels(gpu)
    torch.profiler.profile = _NoProfile  # type: ignore[assignment,misc]
    torch.compiler.reset = lambda: None  # nothing is compiled, and its import does not bear the fake
    from gpu_check.command import main as run

    with gpu:
        code = run(sys.argv[2:])
    sys.exit(code)
