"""Run under torchrun by test_sharding.py: sharded updates beside the whole one; rank 0 prints one JSON line.

For each case the largest relative difference of any layer after five steps, and the all-reduces of one step.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor

from lambert.optim import LAMB, LANS, LARS, AdamHyperball, LayerwiseOptimizer, MuonHyperball, parameter_groups
from lambert.training.distributed.process_group import init_process_group

STEPS = 5
SHAPES = [(7, 5), (5, 3), (9,), (1, 4), (6, 6)]


def whole_run(
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], shapes: list[tuple[int, ...]]
) -> list[Tensor]:
    parameters = starts(shapes)
    optimizer = make(parameters)
    for step in range(STEPS):
        for parameter, gradient in zip(parameters, gradients(step, shapes), strict=True):
            parameter.grad = gradient
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


def starts(shapes: list[tuple[int, ...]]) -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=random)) for shape in shapes]


def gradients(step: int, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    random = torch.Generator().manual_seed(step + 1)
    return [torch.randn(shape, generator=random) for shape in shapes]


def difference(ours: list[Tensor], expected: list[Tensor]) -> float:
    whole = [x.full_tensor() if isinstance(x, DTensor) else x for x in ours]
    return max(float((a - b).norm() / b.norm()) for a, b in zip(whole, expected, strict=True))


def counted_steps(optimizer: torch.optim.Optimizer, set_gradients: Callable[[int], None]) -> int:
    """All steps; returns the all-reduces of the last."""
    real = distributed.all_reduce
    count = 0

    def counting(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        return real(*arguments, **options)

    for step in range(STEPS):
        set_gradients(step)
        count = 0
        with mock.patch.object(distributed, "all_reduce", counting):
            optimizer.step()
    return count


def as_dtensors(
    mesh: Any,
    placements: list[Placement],
    shapes: list[tuple[int, ...]],
    make: Callable[..., LayerwiseOptimizer] = LAMB,
    **options: Any,
) -> dict[str, float]:
    expected = whole_run(lambda parameters: make(parameters, lr=0.01, **options), shapes)
    parameters = [nn.Parameter(distribute_tensor(p.detach(), mesh, placements)) for p in starts(shapes)]
    optimizer = make(parameters, lr=0.01, **options)

    def set_gradients(step: int) -> None:
        for parameter, gradient in zip(parameters, gradients(step, shapes), strict=True):
            parameter.grad = distribute_tensor(gradient, mesh, placements)

    reduces = counted_steps(optimizer, set_gradients)
    return {"difference": difference([p.detach() for p in parameters], expected), "all_reduces": reduces}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3), nn.Linear(3, 1))


def by_fully_shard(mesh: Any, **options: Any) -> dict[str, float]:
    plain, sharded = network(), network()
    for layer in sharded:
        fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    one = LAMB(parameter_groups(plain, weight_decay=0.01), lr=0.01, **options)
    other = LAMB(parameter_groups(sharded, weight_decay=0.01), lr=0.01, **options)
    inputs = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))

    def backward(step: int) -> None:
        for net, optimizer in ((plain, one), (sharded, other)):
            optimizer.zero_grad()
            net(inputs * (step + 1)).square().mean().backward()

    def set_gradients(step: int) -> None:
        backward(step)
        one.step()

    reduces = counted_steps(other, set_gradients)
    expected = [p.detach() for p in plain.parameters()]
    return {"difference": difference([p.detach() for p in sharded.parameters()], expected), "all_reduces": reduces}


def by_fsdp1() -> str:
    from torch.distributed.fsdp import FullyShardedDataParallel

    said = []
    for use_orig_params in (False, True):
        net = FullyShardedDataParallel(network(), use_orig_params=use_orig_params, device_id=torch.device("cpu"))
        net(torch.ones(2, 5)).sum().backward()
        try:
            LAMB(net.parameters()).step()
        except RuntimeError as error:
            said.append(str(error))
    return " | ".join(said)


def main() -> None:
    torch.set_num_threads(1)
    init_process_group()
    count = int(os.environ["WORLD_SIZE"])
    line = init_device_mesh("cpu", (count,))
    results: dict[str, Any] = {
        "LARS, rows": as_dtensors(line, [Shard(0)], SHAPES, LARS),
        "LANS, rows": as_dtensors(line, [Shard(0)], SHAPES, LANS),
        "LARS of 2017, rows": as_dtensors(line, [Shard(0)], SHAPES, LARS, trust_coefficient=0.5),
        "Hyperball, rows": as_dtensors(line, [Shard(0)], SHAPES, AdamHyperball),
    }
    for fused in (None, False):
        way = "plain " if fused is False else ""
        results[way + "rows"] = as_dtensors(line, [Shard(0)], SHAPES, fused=fused)
        results[way + "rows, clipped"] = as_dtensors(line, [Shard(0)], SHAPES, fused=fused, max_grad_norm=0.5)
        results[way + "copies"] = as_dtensors(line, [Replicate()], SHAPES, fused=fused)
        results[way + "sliced rows"] = as_dtensors(line, [Shard(0)], [(9, 4)], fused=fused, slices=[(0, (3, 2, 4))])
        results[way + "fully_shard"] = by_fully_shard(line, fused=fused, max_grad_norm=0.1)
        if count == 4:
            grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "shards"))
            both = [(7, 5), (5, 3), (6, 6)]
            for name, placements in {
                "rows by columns": [Shard(0), Shard(1)],
                "rows by copies": [Shard(0), Replicate()],
                "copies by columns": [Replicate(), Shard(1)],
                "rows twice": [Shard(0), Shard(0)],
            }.items():
                results[way + name] = as_dtensors(grid, placements, both, fused=fused, max_grad_norm=0.5)
            results[way + "hybrid fully_shard"] = by_fully_shard(grid, fused=fused)
    if count == 2:
        results["fsdp1"] = by_fsdp1()
        try:
            as_dtensors(line, [Shard(0)], [(6, 6)], MuonHyperball)
        except RuntimeError as error:
            results["Muon's direction"] = str(error)
    if distributed.get_rank() == 0:
        print(json.dumps(results), flush=True)
    distributed.barrier()  # nobody hangs up while another still listens
    distributed.destroy_process_group()
    # A thread of Gloo that frees its last tensor while Python shuts down aborts the process, once in some forty runs.
    os._exit(0)


if __name__ == "__main__":
    main()
