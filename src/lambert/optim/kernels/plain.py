"""Plain tensor operations: any device, any dtype, any strides; on a CPU in blocks that stay in its cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lambert.optim.equations import Rule, trust_ratio
from lambert.optim.layers import Layer
from lambert.optim.norms import accumulator

BLOCK = 65_536
"""Elements of a block on a CPU: with its four inputs and two temporaries about 1.5 MB."""


def gradient_square(g: Tensor) -> Tensor:
    """Sum of squares of one gradient of any shape, 0-dimensional."""
    real = torch.view_as_real(g) if g.is_complex() else g
    norm: Tensor = torch.linalg.vector_norm(real, dtype=_working_dtype(real))
    return norm.to(accumulator(g.device)).square()


def first(layer: Layer, sums: Tensor, rule: Rule) -> None:
    """Moments of the layer; ‖x‖² and every ‖u‖² of this process's part are added to `sums` [1 + directions]."""
    for x, g, moments in _blocks(layer):
        wide, gradient = _working(x), _working(g) * layer.numbers.gradient_factor
        rule.update_moments(wide, gradient, moments, layer.numbers)
        if layer.numbers.adapt:
            directions = rule.directions(wide, gradient, moments, layer.numbers)
            norms = torch.stack([torch.linalg.vector_norm(tensor) for tensor in (wide, *directions)])
            sums += norms.to(sums.dtype).square()


def second(layer: Layer, sums: Tensor, rule: Rule) -> None:
    """x ← x − η · Σ share · ratio · u."""
    rate = layer.numbers.learning_rate
    steps: list[Tensor | float] = [share * rate for share in rule.shares(layer.numbers)]
    if layer.numbers.adapt:
        norms = sums.sqrt()
        ratios = trust_ratio(norms[:1], norms[1:], layer.numbers.norm_bounds)
        steps = [step * ratio.to(_working_dtype(layer.x)) for step, ratio in zip(steps, ratios, strict=True)]
    for x, g, moments in _blocks(layer):
        new = _working(x).clone()
        gradient = _working(g) * layer.numbers.gradient_factor
        for step, u in zip(steps, rule.directions(_working(x), gradient, moments, layer.numbers), strict=True):
            new -= u.mul_(step)
        x.copy_(new)


def both(layers: Sequence[Layer], rows: Sequence[Tensor], rule: Rule) -> None:
    """Whole layers, one after another."""
    for layer, row in zip(layers, rows, strict=True):
        first(layer, row, rule)
        second(layer, row, rule)


def _working_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _working(tensor: Tensor) -> Tensor:
    return tensor.to(_working_dtype(tensor))


def flat(tensors: Sequence[Tensor]) -> list[Tensor] | None:
    """The tensors as one-dimensional views over the same elements in the same order; None where they have none."""
    x = tensors[0]
    if any(tensor.shape != x.shape for tensor in tensors):
        return None
    if all(tensor.is_contiguous() for tensor in tensors):
        return [tensor.view(-1) for tensor in tensors]
    # Another order of the same dense memory, such as channels-last.
    order = sorted(range(x.dim()), key=lambda d: (x.stride(d), x.shape[d]), reverse=True)
    permuted = [tensor.permute(order) for tensor in tensors]
    if all(tensor.is_contiguous() for tensor in permuted):
        return [tensor.view(-1) for tensor in permuted]
    return None


def _blocks(layer: Layer) -> Iterator[tuple[Tensor, Tensor, tuple[Tensor, ...]]]:
    tensors = [layer.x, layer.g, *layer.moments]
    views = flat(tensors) if layer.x.device.type == "cpu" else None
    if views is None:
        yield layer.x, layer.g, layer.moments
        return
    for start in range(0, views[0].numel(), BLOCK):
        x, g, *moments = (view[start : start + BLOCK] for view in views)
        yield x, g, tuple(moments)
