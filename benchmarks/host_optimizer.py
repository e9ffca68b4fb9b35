"""Host time of LAMB's step on a GPU: all but its kernels, which are stand-ins that do nothing. Runs on a CPU.

    python benchmarks/host_optimizer.py --layers 12 24 --rounds 15

Gradients are new tensors in every round, as after `zero_grad(set_to_none=True)`, and the learning rate changes.
Tensors are as large as BERT-Base's (12 layers) and BERT-Large's (24); gradients share one buffer, since nobody reads
them. The table gives the median milliseconds of processor time of one step with the least and the most, and what the
step would upload.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from lambert.model.heads import BertForPreTraining
from lambert.model.presets import model_config
from lambert.optim.kernels import cpu, gpu
from lambert.training.optimizer import make_optimizer, named_groups

MODELS = {12: "base", 24: "large"}


class _Kernel:
    """Does nothing."""

    def __getitem__(self, grid: Any) -> Any:
        return lambda *arguments, **options: None


def take_kernels() -> None:
    """Put stand-ins in place of Triton's kernels, and let them take layers on the CPU."""
    names = ("prepare", "update_moments", "add_up", "apply_update")
    types = SimpleNamespace(float32=None, bfloat16=None, float16=None)
    code: Any = SimpleNamespace(
        tl=types, CHUNK=4_096, NUMBERS=14, VALUES=10, WARPS=8, **{name: _Kernel() for name in names}
    )
    gpu.load = lambda device: (code, "")  # type: ignore[assignment]
    gpu.is_interpreted = lambda: True
    cpu.runs = lambda layer: False


def host_milliseconds(layers: int, rounds: int) -> list[float]:
    """Processor time of each step after the first two."""
    nn.init.trunc_normal_ = lambda tensor, **options: tensor  # values do not matter
    model = BertForPreTraining(model_config(MODELS[layers], vocabulary_size=30_522))
    groups, names = named_groups(model, weight_decay=0.01)
    optimizer = make_optimizer("lamb", groups, names, betas=(0.9, 0.999), epsilon=1e-6)
    largest = max(parameter.numel() for parameter in model.parameters())
    buffers = [torch.empty(largest), torch.empty(largest)]
    seconds = []
    for number in range(rounds + 2):
        for parameter in model.parameters():
            parameter.grad = buffers[number % 2][: parameter.numel()].view_as(parameter)
        for group in optimizer.param_groups:
            group["lr"] = 0.001 * number
        began = time.process_time()
        optimizer.step()
        seconds.append(time.process_time() - began)
    return [1e3 * second for second in seconds[2:]]


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[12, 24], choices=MODELS)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    take_kernels()
    results = {}
    for layers in arguments.layers:
        found = host_milliseconds(layers, arguments.rounds)
        results[str(layers)] = {"median": statistics.median(found), "least": min(found), "most": max(found)}
        print(f"{layers} layers: {statistics.median(found):.2f} ms ({min(found):.2f} to {max(found):.2f})")
    print(json.dumps({"benchmark": "host_optimizer", "machine": platform.machine(), "milliseconds": results}))


if __name__ == "__main__":
    main()
