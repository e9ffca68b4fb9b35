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

Kernel = Literal["cpu", "gpu", "none"]
Chosen = tuple[list[Layer], list[Tensor]]


def step_layers(
    layers: Sequence[Layer],
    kernels: Sequence[Kernel],
    rule: UpdateRule,
    tables: gpu.Tables,
    found_inf: Tensor | None = None,
) -> list[Tensor]:
    """Change weights and moments of every layer.

    Args:
        kernels: of each layer, by `kernel_of`.
        tables: of this optimizer.
        found_inf: where it is not 0, nothing changes; only if every layer `is_counted`.

    Returns:
        For each layer ‖x‖² before the step and every ‖u‖², a tensor [1 + directions] on its device; zeros where it is
        not adapted, or after a step in which nothing changed.
    """
    on_gpu = [i for i, kernel in enumerate(kernels) if kernel == "gpu"]
    elsewhere = [i for i, kernel in enumerate(kernels) if kernel != "gpu"]
    assert found_inf is None or all(map(is_counted, layers, kernels))
    by_table = tables.of([layers[i] for i in on_gpu], found_inf)
    row_of = dict(zip(elsewhere, _rows([layers[i].x.device for i in elsewhere], 1 + rule.direction_count), strict=True))
    row_of |= {on_gpu[place]: row for table, own in by_table for place, row in zip(own, table.rows, strict=True)}
    rows = [row_of[i] for i in range(len(layers))]
    is_sharded = [bool(layer.sharded_over) and layer.hyper.adapt for layer in layers]

    def chosen(kernel: Kernel, sharded: bool) -> Chosen:
        indices = [i for i in elsewhere if kernels[i] == kernel and is_sharded[i] is sharded]
        return [layers[i] for i in indices], [rows[i] for i in indices]

    cpu.fused_step(*chosen("cpu", False))
    plain.fused_step(*chosen("none", False), rule, found_inf)
    by_cpu, by_plain = chosen("cpu", True), chosen("none", True)
    for table, _ in by_table:
        table.update_moments()
    cpu.update_moments(*by_cpu)
    for layer, row in zip(*by_plain, strict=True):
        plain.update_moments(layer, row, rule)
    # One all-reduce of all norms lies between the moments and the updates of sharded layers.
    if sharded := [i for i, is_one in enumerate(is_sharded) if is_one]:
        own_rows = [rows[i] for i in sharded]
        completed = norms.all_reduce_partial_norms(torch.stack(own_rows), [layers[i].sharded_over for i in sharded])
        torch._foreach_copy_(own_rows, list(completed))
    for table, _ in by_table:
        table.apply_update()
    cpu.apply_update(*by_cpu)
    for layer, row in zip(*by_plain, strict=True):
        plain.apply_update(layer, row, rule)
    if rule.keeps_norm:
        plain.restore_norms(*by_plain)
    return rows


def kernel_of(layer: Layer, wanted: bool | None, rule: UpdateRule) -> Kernel:
    """The kernel that takes the layer.

    Args:
        wanted: `LAMB(fused=…)`.

    Raises:
        RuntimeError: `fused=True` where no kernel can run.
    """
    if wanted is not False and rule.has_kernel:
        if cpu.runs(layer):
            return "cpu"
        if gpu.runs(layer):
            return "gpu"
    if wanted:
        if layer.x.device.type == "cpu" and (why := cpu.load()[1]):
            raise RuntimeError(f"LAMB(fused=True): {why}. Or leave fused out: LAMB then uses plain tensor operations")
        if layer.x.device.type == "cuda" and (why := gpu.load(layer.x.device)[1]):
            raise RuntimeError(
                f"LAMB(fused=True): {why}. Install {gpu.REMEDY}. Or leave fused out: LAMB then uses plain tensor "
                "operations"
            )
        raise RuntimeError(
            f"LAMB(fused=True): the kernel needs dense float32 parameters, and numba on a CPU or Triton on a GPU; got "
            f"{layer.x.dtype} on {layer.x.device} with a gradient in {layer.g.dtype}. Leave fused out to use it where "
            "it can run"
        )
    return "none"


def is_counted(layer: Layer, kernel: Kernel) -> bool:
    """Whether the layer's device counts its steps, so that it can skip them without the host knowing."""
    return kernel == "gpu" or (kernel == "none" and plain.is_counted(layer))


def _rows(devices: Sequence[torch.device], width: int) -> list[Tensor]:
    """A row [width] of zeros for each layer, on its device; one allocation per device."""
    left = {
        device: iter(torch.zeros(devices.count(device), width, dtype=norms.accumulator(device), device=device))
        for device in dict.fromkeys(devices)
    }
    return [next(left[device]) for device in devices]


def global_norms(gradients: Mapping[float, Sequence[tuple[Tensor, Tensor]]]) -> dict[float, float | Tensor]:
    """L2 norm of each set of gradients as one vector, over all ranks that hold shards of it; a 0-dimensional tensor
    where reading it would wait for a GPU.

    Args:
        gradients: any key → (parameter, gradient) pairs.
    """
    return {key: _global_norm(pairs) for key, pairs in gradients.items()}


def _global_norm(pairs: Sequence[tuple[Tensor, Tensor]]) -> float | Tensor:
    if not pairs:
        return 0.0
    sharded = [norms.sharded_over(parameter) for parameter, _ in pairs]
    locals_ = [norms.local_part(norms.like_parameter(gradient, parameter)) for parameter, gradient in pairs]
    squares = torch.stack([square.to(locals_[0].device) for square in gradient_squares(locals_)])
    total = norms.all_reduce_partial_norms(squares[:, None], sharded).sum()
    return total.sqrt() if gpu.waits(total) else math.sqrt(total.item())


def layer_norms(tensors: Sequence[Tensor], layers: Sequence[Layer]) -> Tensor:
    """L2 norm of each layer's tensor [layers], over all ranks that hold shards of it; on the first layer's device."""
    device = tensors[0].device
    squares = torch.stack([square.to(device) for square in gradient_squares(tensors)])
    return norms.all_reduce_partial_norms(squares[:, None], [layer.sharded_over for layer in layers])[:, 0].sqrt()


def gradient_squares(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Σg² of each gradient, 0-dimensional, on its device; a few launches for all gradients on a GPU."""
    by_kind: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, g in enumerate(gradients):
        by_kind.setdefault((g.device, g.dtype), []).append(index)
    squares: dict[int, Tensor] = {}
    for (device, _), indices in by_kind.items():
        own = [gradients[index] for index in indices]
        found = _squares_together(own) if device.type == "cuda" else cpu.gradient_squares(own)
        squares.update(zip(indices, found, strict=True))
    return [squares[index] for index in range(len(gradients))]


def _squares_together(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Σg² of gradients of one type on one device, in a few launches."""
    real = [torch.view_as_real(g) if g.is_complex() else g for g in gradients]
    wide = torch.float64 if real[0].dtype == torch.float64 else torch.float32
    found = torch.stack(torch._foreach_norm(real, 2, dtype=wide))
    return list(found.to(norms.accumulator(found.device)).square())
