"""`python -m fake_cuda program REPORT COMMANDS`: lambert's commands on the fake GPU, one after another.

COMMANDS is a JSON file: name → `words`, and, if wanted, `fault`, one of `faults.FAULTS`, or `signals`, number of the
launched step → name of the signal that the process then gets. REPORT is a JSON file: name → exit code, the counts of
each step of training, and where its waits and copies are.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


class Followed:
    """What was seen of the steps of training."""

    def __init__(self) -> None:
        self.steps: list[dict[str, int]] = []
        """Counts from one step to the next: none for the last."""
        self.launched: list[dict[str, Any]] = []
        """Of each step a digest of its batches, the seeds that the device got, and the learning rate."""
        self.makers: Counter[str] = Counter()
        """How many batches each thread makes, by its name."""


def _digest(batches: Iterable[Any]) -> str:
    tensors = (value for batch in batches for value in vars(batch).values() if isinstance(value, torch.Tensor))
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()


@contextmanager
def followed_steps(gpu: FakeGpu, signals: Mapping[str, str]) -> Iterator[Followed]:
    """Follow the steps of a command, and signal its process when it has launched some of them."""
    from lambert.data.dataloader import SampleStream
    from lambert.finetune import loop
    from lambert.training.step import launcher

    batches = SampleStream.batches
    followed, step, before = Followed(), launcher.launch_step, dict[str, int]()

    def counted(*args: Any, **options: Any) -> Any:
        slow = sum(number for (how, _), number in gpu.uploads.items() if how != "pinned non_blocking")
        now = {**gpu.totals(), "pageable": slow}
        if before:
            followed.steps.append({name: now[name] - before[name] for name in now})
        before.update(now)
        gpu.seeds.clear()
        result = step(*args, **options)
        facts = {"batches": _digest(args[2]), "seeds": [*gpu.seeds], "rate": options["learning_rate"]}
        followed.launched.append(facts)
        if name := signals.get(str(len(followed.launched))):
            os.kill(os.getpid(), signal.Signals[name])
        return result

    def made(self: SampleStream, first: int, counts: Sequence[int]) -> Any:
        followed.makers[threading.current_thread().name] += len(counts)
        return batches(self, first, counts)

    with (
        mock.patch.object(launcher, "launch_step", counted),
        mock.patch.object(loop, "launch_step", counted),
        mock.patch.object(SampleStream, "batches", made),
    ):
        yield followed


def run_command(gpu: FakeGpu, words: list[str], fault: str = "", signals: Mapping[str, str] | None = None) -> Any:
    """Run it, then report."""
    from fake_cuda.faults import FAULTS
    from lambert.cli.main import main as run

    for name in (*COUNTERS, "attention"):
        setattr(gpu, name, Counter())
    crash = ""
    with FAULTS[fault]() if fault else nullcontext(), followed_steps(gpu, signals or {}) as followed:
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
    return {**facts, **vars(followed), **places, **counts}


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
