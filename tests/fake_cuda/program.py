"""`python -m fake_cuda program REPORT COMMANDS`: lambert's commands on the fake GPU, one after another.

COMMANDS is a JSON file: name → `words`, and, if wanted, `fault`, one of `faults.FAULTS`, or `signals`, number of the
launched step → name of the signal that the process then gets. REPORT is a JSON file: name → exit code, the counts of
each step of training, and where its waits and copies are.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from fake_cuda.device import FakeGpu, install

CHUNK = 4_096
COUNTERS = ("launches", "syncs", "uploads", "downloads")


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


@contextmanager
def followed_steps(gpu: FakeGpu, signals: Mapping[str, str]) -> Iterator[list[dict[str, Any]]]:
    """A list that gets, for each step of training that is followed by another, the counts from one to the next."""
    from lambert.finetune import loop
    from lambert.training.step import launcher

    steps: list[dict[str, Any]] = []
    step, before = launcher.launch_step, dict[str, int]()

    def counted(*args: Any, **options: Any) -> Any:
        slow = sum(number for (how, _), number in gpu.uploads.items() if how != "pinned non_blocking")
        now = {**gpu.totals(), "pageable": slow}
        if before:
            steps.append({name: now[name] - before[name] for name in now})
        before.update(now)
        result = step(*args, **options)
        if name := signals.get(str(len(steps) + 1)):
            os.kill(os.getpid(), signal.Signals[name])
        return result

    with mock.patch.object(launcher, "launch_step", counted), mock.patch.object(loop, "launch_step", counted):
        yield steps


def run_command(gpu: FakeGpu, words: list[str], fault: str = "", signals: Mapping[str, str] | None = None) -> Any:
    """Run it, then report."""
    from fake_cuda.faults import FAULTS
    from lambert.cli.main import main as run

    for name in (*COUNTERS, "attention"):
        setattr(gpu, name, Counter())
    crash = ""
    with FAULTS[fault]() if fault else nullcontext(), followed_steps(gpu, signals or {}) as steps:
        try:
            code = run(words)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except Exception as error:
            code, crash, gpu.compiled = 1, f"{type(error).__name__}: {error}", None
    places = {
        name: {" at ".join(key): number for key, number in getattr(gpu, name).most_common()} for name in COUNTERS[1:]
    }
    facts = {"deterministic": torch.are_deterministic_algorithms_enabled(), "code": code, "crash": crash}
    counts = {"launches": dict(gpu.launches.most_common()), "attention": dict(gpu.attention)}
    return {**facts, "steps": steps, **places, **counts}


def main() -> None:
    """Run the commands, and write the report."""
    report, commands = Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text())
    gpu = FakeGpu()
    install(gpu)
    use_kernels(gpu)
    found = {}
    with gpu:
        for name, command in commands.items():
            found[name] = run_command(gpu, **command)
    report.write_text(json.dumps(found, indent=1))
