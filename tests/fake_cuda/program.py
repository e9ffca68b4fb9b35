"""`python -m fake_cuda program REPORT WORDS…`: a lambert command on the fake GPU.

REPORT is a JSON file: the exit code, the counts of each step of training, and where its syncs and uploads are.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from fake_cuda.device import FakeGpu, install

CHUNK = 4_096


class _Kernel:
    """A Triton kernel that checks where its arguments are and counts its launch."""

    def __init__(self, gpu: FakeGpu, name: str) -> None:
        self.gpu, self.name = gpu, name

    def __getitem__(self, grid: Any) -> Any:
        def launch(*args: Any, **options: Any) -> None:
            for argument in args:
                assert not isinstance(argument, torch.Tensor) or argument.device.type == "cuda", self.name
            self.gpu.launch(f"triton {self.name}")

        return launch


def use_kernels(gpu: FakeGpu) -> None:
    """Put counting kernels in place of Triton's."""
    from lambert.optim.kernels import gpu as kernels

    names = ("prepare", "update_moments", "add_up", "apply_update")
    code = SimpleNamespace(
        tl=SimpleNamespace(float32="float32", bfloat16="bfloat16", float16="float16"),
        CHUNK=CHUNK,
        NUMBERS=14,
        VALUES=10,
        WARPS=8,
        **{name: _Kernel(gpu, name) for name in names},
    )
    kernels.load = lambda device: (code, "")  # type: ignore[assignment]


def count_steps(gpu: FakeGpu) -> list[dict[str, Any]]:
    """Counts from one step of training to the next, filled while the program runs."""
    from lambert.training.step import launcher

    steps: list[dict[str, Any]] = []
    step = launcher.launch_step
    before: dict[str, Any] = {}

    def counted(*args: Any, **options: Any) -> Any:
        if before:
            now = gpu.totals()
            steps.append({name: now[name] - before[name] for name in now})
        for counter in (gpu.launches, gpu.syncs, gpu.uploads, gpu.downloads, gpu.attention):
            counter.clear()
        result = step(*args, **options)
        before.clear()
        before.update(dict.fromkeys(gpu.totals(), 0))
        return result

    launcher.launch_step = counted  # type: ignore[assignment]
    return steps


def count_makers() -> Counter[str]:
    """How many batches each thread makes, by its name, filled while the program runs."""
    from lambert.data.dataloader import SampleStream

    made: Counter[str] = Counter()
    batches = SampleStream.batches

    def counted(self: SampleStream, first: int, counts: Sequence[int]) -> Any:
        made[threading.current_thread().name] += len(counts)
        return batches(self, first, counts)

    SampleStream.batches = counted  # type: ignore[method-assign]
    return made


def main() -> None:
    """Run the command, then write the report."""
    report, words = Path(sys.argv[2]), sys.argv[3:]
    gpu = FakeGpu()
    install(gpu)
    use_kernels(gpu)
    from lambert.cli.main import main as run

    steps, makers = count_steps(gpu), count_makers()
    with gpu:
        try:
            code = run(words)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    named = {
        name: {" at ".join(key): number for key, number in getattr(gpu, name).most_common()}
        for name in ("syncs", "uploads", "downloads")
    }
    facts = {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "code": code,
        "steps": steps,
        "batches": dict(makers),
        **named,
        "launches": dict(gpu.launches.most_common()),
    }
    report.write_text(json.dumps({**facts, "attention": dict(gpu.attention)}, indent=1))
    sys.exit(code)
