"""`python -m fake_cuda ranks REPORT`: steps as rank 0 of several ranks, whose collectives move nothing, counted.

Each step also reduces what the training loop does after it: the counts of tokens, and the control flags.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import distributed
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fake_cuda.device import GPU, FakeGpu, install
from fake_cuda.program import use_kernels
from fake_cuda.steps import Steps
from lambert.training.distributed.process_group import ProcessGroup

MICRO_BATCHES = 2
WAYS: dict[str, dict[str, Any]] = {
    "buckets": {},
    "bfloat16 reduction": {"reduce_dtype": "bfloat16"},
    "tree": {"deterministic": True},
}


class Collectives(TorchDispatchMode):
    """Counts collectives by device, and those that are waited for at once."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            assert len({tensor.device.type for tensor in tensors}) == 1, func
            self.seen[tensors[0].device.type] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def ranks(count: int) -> Iterator[ProcessGroup]:
    """Rank 0 of a group in which nobody else is."""
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=count)
    try:
        yield ProcessGroup(0, count, GPU)
    finally:
        distributed.destroy_process_group()


def step(steps: Steps, processes: ProcessGroup) -> None:
    """One step, with what the loop reduces after it."""
    steps.run(MICRO_BATCHES)
    processes.all_reduce_ints([1_000, 150])
    processes.all_reduce_max([0, 0, 0, 0])


def counts(gpu: FakeGpu, count: int, precision: str, **options: Any) -> dict[str, Any]:
    """What the second step asks of the device and of the group."""
    collectives = Collectives()
    blocking: Counter[str] = Counter()
    all_reduce = distributed.all_reduce

    def counted(tensor: torch.Tensor, *args: Any, **named: Any) -> Any:
        if not named.get("async_op"):
            blocking[tensor.device.type] += 1
        return all_reduce(tensor, *args, **named)

    with ranks(count) as processes:
        steps = Steps(gpu, precision=precision, processes=processes, **options)
        step(steps, processes)
        for counter in (gpu.launches, gpu.syncs, gpu.uploads, gpu.downloads):
            counter.clear()
        with mock.patch.object(distributed, "all_reduce", counted), collectives:
            step(steps, processes)
    totals = gpu.totals()
    return {
        **{name: totals[name] for name in ("syncs", "uploads")},
        **{f"collectives on {device}": collectives.seen[device] for device in ("cpu", "cuda")},
        **{f"blocking on {device}": blocking[device] for device in ("cpu", "cuda")},
        "where": {" at ".join(key): n for key, n in (gpu.syncs + gpu.uploads).items()},
    }


def control_sums_on_the_gpu() -> Any:
    """Integers uploaded, reduced there, and read one by one."""

    def reduced(self: ProcessGroup, values: Sequence[int], operation: Any) -> list[int]:
        tensor = torch.tensor(values, device=self.device)
        distributed.all_reduce(tensor, operation)
        return [int(value) for value in tensor]

    return mock.patch.object(ProcessGroup, "_reduced", reduced)


def gradients_on_the_cpu() -> Any:
    """Buckets reduced in host memory."""
    real = ProcessGroup.all_reduce_async

    def through_the_host(self: ProcessGroup, tensor: torch.Tensor) -> Callable[[], None]:
        host = tensor.cpu()
        wait = real(self, host)

        def copy() -> None:
            wait()
            tensor.copy_(host)

        return copy

    return mock.patch.object(ProcessGroup, "all_reduce_async", through_the_host)


FAULTS = {"control sums on the GPU": control_sums_on_the_gpu, "gradients on the CPU": gradients_on_the_cpu}


def main() -> None:
    """Count each way to reduce, plant the faults, and write the report."""
    gpu = FakeGpu()
    install(gpu)
    use_kernels(gpu)
    with gpu:
        cases = (
            (4, "buckets", "bfloat16-autocast"),
            (4, "buckets", "bfloat16-master"),
            (4, "bfloat16 reduction", "bfloat16-autocast"),
            (4, "bfloat16 reduction", "bfloat16-master"),
            (4, "tree", "bfloat16-autocast"),
            (4, "tree", "bfloat16-master"),
            (8, "buckets", "bfloat16-master"),
            (1_024, "buckets", "bfloat16-master"),
            (1_024, "tree", "bfloat16-master"),
        )
        counted = {
            f"{count} ranks, {way}, {precision}": counts(gpu, count, precision, **WAYS[way])
            for count, way, precision in cases
        }
        sound = counted["4 ranks, buckets, bfloat16-autocast"]
        faults = {}
        for name, patch in FAULTS.items():
            with patch():
                found = counts(gpu, 4, "bfloat16-autocast")
            faults[name] = [key for key in sound if key != "where" and found[key] > sound[key]]
    Path(sys.argv[2]).write_text(json.dumps({"counts": counted, "faults": faults}, indent=1))
