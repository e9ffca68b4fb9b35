"""`python -m fake_cuda stage WORDS…`: a stage of the check on one GPU, on the fake GPU."""

from __future__ import annotations

import sys
from pathlib import Path

from fake_cuda.device import FakeGpu, install
from fake_cuda.program import use_kernels


def main() -> None:
    """Run the stage in this process."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
    gpu = FakeGpu()
    install(gpu)
    use_kernels(gpu)
    from gpu_check.command import main as run

    with gpu:
        code = run(sys.argv[2:])
    sys.exit(code)
