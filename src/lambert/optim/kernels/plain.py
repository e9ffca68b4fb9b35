"""Plain tensor operations: any device, any dtype, any strides; on a CPU in blocks that stay in its cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lambert.optim.equations import LayerHyperparameters, UpdateRule, trust_ratio
from lambert.optim.layers import Layer
from lambert.optim.norms import accumulator

BLOCK = 32_768
"""Elements of a block on a CPU for each thread: with its four inputs and two temporaries 0.8 MB."""

ADAMW_BLOCK = 524_288
"""Elements of a block where PyTorch's AdamW computes the direction: fewer and larger operations."""


def gradient_square(g: Tensor) -> Tensor:
    """Sum of squares of one gradient of any shape, 0-dimensional."""
    real = torch.view_as_real(g) if g.is_complex() else g
    norm: Tensor = torch.linalg.vector_norm(real, dtype=_working_dtype(real))
    return norm.to(accumulator(g.device)).square()


Kept = list[tuple[Tensor, ...]]
"""The directions of each block."""


def update_moments(layer: Layer, squares: Tensor, rule: UpdateRule, kept: Kept | None = None) -> None:
    """Moments of the layer; ‖x‖² and every ‖u‖² of the local shard are added to `squares` [1 + directions].

    Args:
        kept: receives the directions, so that `apply_update` need not compute them again.
    """
    by_adamw = _by_adamw(layer, rule)
    for x, g, moments in _blocks(layer, ADAMW_BLOCK if by_adamw else BLOCK * torch.get_num_threads()):
        wide, gradient = _working(x), _scaled(g, layer.hyper)
        directions: tuple[Tensor, ...]
        if by_adamw:
            directions = _lamb_by_adamw(wide, gradient, moments, layer.hyper)
        else:
            rule.update_moments(wide, gradient, moments, layer.hyper)
            directions = rule.directions(wide, gradient, moments, layer.hyper)
        if layer.hyper.adapt:
            norms = torch.stack([torch.linalg.vector_norm(tensor) for tensor in (wide, *directions)])
            squares += norms.to(squares.dtype).square()
        if kept is not None:
            kept.append(directions)


def apply_update(layer: Layer, squares: Tensor, rule: UpdateRule, kept: Kept | None = None) -> None:
    """x ← x − η · Σ weight · ratio · u."""
    rate = layer.hyper.learning_rate
    steps: list[Tensor | float] = [weight * rate for weight in rule.weights(layer.hyper)]
    if layer.hyper.adapt:
        norms = squares.sqrt()
        ratios = trust_ratio(norms[:1], norms[1:], layer.hyper.norm_bounds)
        steps = [step * ratio.to(_working_dtype(layer.x)) for step, ratio in zip(steps, ratios, strict=True)]
    length = ADAMW_BLOCK if _by_adamw(layer, rule) else BLOCK * torch.get_num_threads()
    for block, (x, g, moments) in enumerate(_blocks(layer, length)):
        new = _working(x)
        directions = kept[block] if kept else rule.directions(new, _scaled(g, layer.hyper), moments, layer.hyper)
        for step, u in zip(steps, directions, strict=True):
            new = new.sub_(u.mul_(step))
        if new is not x:
            x.copy_(new)


def fused_step(layers: Sequence[Layer], rows: Sequence[Tensor], rule: UpdateRule) -> None:
    """Unsharded layers, one after another; directions are kept where that takes at most one byte per parameter."""
    budget = sum(layer.x.numel() for layer in layers) // (4 * rule.direction_count)
    for layer, row in zip(layers, rows, strict=True):
        kept: Kept | None = [] if layer.x.numel() <= budget else None
        update_moments(layer, row, rule, kept)
        apply_update(layer, row, rule, kept)


def _by_adamw(layer: Layer, rule: UpdateRule) -> bool:
    """Whether PyTorch's own fused AdamW can compute the layer's moments and direction."""
    return (
        rule.has_kernel
        and all(tensor.dtype == torch.float32 for tensor in (layer.x, *layer.moments))
        and _flat_on_cpu(layer) is not None
    )


def _lamb_by_adamw(x: Tensor, g: Tensor, moments: tuple[Tensor, ...], hyper: LayerHyperparameters) -> tuple[Tensor]:
    """What the rule's two functions compute, by a loop that PyTorch has compiled: AdamW with a learning rate of −1 and
    no decay adds its direction to a tensor that holds λx.
    """
    u = x * hyper.weight_decay
    torch._fused_adamw_(
        [u],
        [g],
        [moments[0]],
        [moments[1]],
        [],
        [torch.tensor(hyper.correction_step, dtype=torch.float32)],
        lr=-1.0,
        beta1=hyper.beta1,
        beta2=hyper.beta2,
        weight_decay=0.0,
        eps=hyper.epsilon,
        amsgrad=False,
        maximize=False,
    )
    return (u,)


def _scaled(g: Tensor, hyper: LayerHyperparameters) -> Tensor:
    wide = _working(g)
    return wide if hyper.gradient_factor == 1 else wide * hyper.gradient_factor


def _working_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _working(tensor: Tensor) -> Tensor:
    return tensor.to(_working_dtype(tensor))


def _flat_on_cpu(layer: Layer) -> list[Tensor] | None:
    return layer.flat if all(tensor.device.type == "cpu" for tensor in layer.tensors) else None


def _blocks(layer: Layer, length: int) -> Iterator[tuple[Tensor, Tensor, tuple[Tensor, ...]]]:
    views = _flat_on_cpu(layer)
    if views is None:
        yield layer.x, layer.g, layer.moments
        return
    for start in range(0, views[0].numel(), length):
        x, g, *moments = (view[start : start + length] for view in views)
        yield x, g, tuple(moments)
