"""One step over many layers: the kernel of each layer, and the all-reduce of partial norms of sharded layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from lambert.optim import norms
from lambert.optim.equations import UpdateRule
from lambert.optim.kernels import cpu, gpu, plain
from lambert.optim.layers import Layer


def step_layers(layers: Sequence[Layer], fused: Sequence[bool | None], rule: UpdateRule) -> list[Tensor]:
    """Change weights and moments of every layer.

    Args:
        fused: `LAMB(fused=…)` of each layer.

    Returns:
        For each layer ‖x‖² before the step and every ‖u‖², a tensor [1 + directions] on its device; zeros where it is
        not adapted.

    Raises:
        RuntimeError: `fused=True` where the kernel cannot run.
    """
    rows = _rows([layer.x.device for layer in layers], 1 + rule.direction_count)
    kernels = [_kernel(layer, wanted, rule) for layer, wanted in zip(layers, fused, strict=True)]
    unsharded = [not (layer.sharded_over and layer.hyper.adapt) for layer in layers]

    def chosen(kernel: Kernel, is_unsharded: bool) -> Chosen:
        indices = [i for i in range(len(layers)) if kernels[i] == kernel and unsharded[i] is is_unsharded]
        return [layers[i] for i in indices], [rows[i] for i in indices]

    cpu.fused_step(*chosen("cpu", True))
    gpu.fused_step(*chosen("gpu", True))
    plain.fused_step(*chosen("none", True), rule)
    if not all(unsharded):
        _step_sharded(chosen("cpu", False), chosen("gpu", False), chosen("none", False), rule)
    return rows


Kernel = Literal["cpu", "gpu", "none"]
Chosen = tuple[list[Layer], list[Tensor]]


def _kernel(layer: Layer, wanted: bool | None, rule: UpdateRule) -> Kernel:
    if wanted is not False and rule.has_kernel:
        if cpu.runs(layer):
            return "cpu"
        if gpu.runs(layer):
            return "gpu"
    if wanted:
        if layer.x.device.type == "cpu" and (why := cpu.load()[1]):
            raise RuntimeError(f"LAMB(fused=True): {why}. Or leave fused out: LAMB then uses plain tensor operations")
        raise RuntimeError(
            f"LAMB(fused=True): the kernel needs dense float32 parameters, and numba on a CPU or Triton on a GPU; got "
            f"{layer.x.dtype} on {layer.x.device} with a gradient in {layer.g.dtype}. Leave fused out to use it where "
            "it can run"
        )
    return "none"


def _step_sharded(by_cpu: Chosen, by_gpu: Chosen, by_plain: Chosen, rule: UpdateRule) -> None:
    """The moments of all layers, one all-reduce of the norms, then all updates."""
    cpu.update_moments(*by_cpu)
    gpu.update_moments(*by_gpu)
    for layer, row in zip(*by_plain, strict=True):
        plain.update_moments(layer, row, rule)
    layers, rows = by_cpu[0] + by_gpu[0] + by_plain[0], by_cpu[1] + by_gpu[1] + by_plain[1]
    completed = norms.all_reduce_partial_norms(torch.stack(rows), [layer.sharded_over for layer in layers])
    torch._foreach_copy_(rows, list(completed))
    cpu.apply_update(*by_cpu)
    gpu.apply_update(*by_gpu)
    for layer, row in zip(*by_plain, strict=True):
        plain.apply_update(layer, row, rule)


def _rows(devices: Sequence[torch.device], width: int) -> list[Tensor]:
    """A row [width] of zeros for each layer, on its device; one allocation per device."""
    left = {
        device: iter(torch.zeros(devices.count(device), width, dtype=norms.accumulator(device), device=device))
        for device in dict.fromkeys(devices)
    }
    return [next(left[device]) for device in devices]


def global_norms(gradients: Mapping[float, Sequence[tuple[Tensor, Tensor]]]) -> dict[float, float]:
    """L2 norm of each set of gradients as one vector, over all ranks that hold shards of it.

    Args:
        gradients: any key → (parameter, gradient) pairs.
    """
    return {key: _global_norm(pairs) for key, pairs in gradients.items()}


def _global_norm(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    if not pairs:
        return 0.0
    sharded = [norms.sharded_over(parameter) for parameter, _ in pairs]
    locals_ = [norms.local_part(norms.like_parameter(gradient, parameter)) for parameter, gradient in pairs]
    squares = torch.stack([square.to(locals_[0].device) for square in cpu.gradient_squares(locals_)])
    return math.sqrt(norms.all_reduce_partial_norms(squares[:, None], sharded).sum().item())


def layer_norms(layers: Sequence[Layer]) -> list[float]:
    """L2 norm of each layer's gradient, over all ranks that hold shards of it."""
    if not layers:
        return []
    squares = torch.stack([square.cpu() for square in cpu.gradient_squares([layer.g for layer in layers])])
    completed = norms.all_reduce_partial_norms(squares[:, None], [layer.sharded_over for layer in layers])
    norms_: list[float] = completed[:, 0].sqrt().tolist()
    return norms_
