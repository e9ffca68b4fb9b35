"""Plain tensor operations: any device, any dtype, any strides; on a CPU in blocks that stay in its cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lambert.optim.equations import Numbers, Rule, trust_ratio
from lambert.optim.layers import Layer
from lambert.optim.norms import accumulator

BLOCK = 32_768
"""Elements of a block on a CPU for each thread: with its four inputs and two temporaries 0.8 MB."""


def gradient_square(g: Tensor) -> Tensor:
    """Sum of squares of one gradient of any shape, 0-dimensional."""
    real = torch.view_as_real(g) if g.is_complex() else g
    norm: Tensor = torch.linalg.vector_norm(real, dtype=_working_dtype(real))
    return norm.to(accumulator(g.device)).square()


Kept = list[tuple[Tensor, ...]]
"""The directions of each block."""


def first(layer: Layer, sums: Tensor, rule: Rule, kept: Kept | None = None) -> None:
    """Moments of the layer; ‖x‖² and every ‖u‖² of this process's part are added to `sums` [1 + directions].

    Args:
        kept: gets the directions, for a second sweep that need not compute them again.
    """
    for x, g, moments in _blocks(layer):
        wide, gradient = _working(x), _scaled(g, layer.numbers)
        rule.update_moments(wide, gradient, moments, layer.numbers)
        if layer.numbers.adapt:
            directions = rule.directions(wide, gradient, moments, layer.numbers)
            norms = torch.stack([torch.linalg.vector_norm(tensor) for tensor in (wide, *directions)])
            sums += norms.to(sums.dtype).square()
            if kept is not None:
                kept.append(directions)


def second(layer: Layer, sums: Tensor, rule: Rule, kept: Kept | None = None) -> None:
    """x ← x − η · Σ share · ratio · u."""
    rate = layer.numbers.learning_rate
    steps: list[Tensor | float] = [share * rate for share in rule.shares(layer.numbers)]
    if layer.numbers.adapt:
        norms = sums.sqrt()
        ratios = trust_ratio(norms[:1], norms[1:], layer.numbers.norm_bounds)
        steps = [step * ratio.to(_working_dtype(layer.x)) for step, ratio in zip(steps, ratios, strict=True)]
    for block, (x, g, moments) in enumerate(_blocks(layer)):
        new = _working(x)
        directions = kept[block] if kept else rule.directions(new, _scaled(g, layer.numbers), moments, layer.numbers)
        for step, u in zip(steps, directions, strict=True):
            new = new.sub_(u.mul_(step))
        if new is not x:
            x.copy_(new)


def both(layers: Sequence[Layer], rows: Sequence[Tensor], rule: Rule) -> None:
    """Whole layers, one after another; directions are kept where that takes at most a byte a parameter."""
    budget = sum(layer.x.numel() for layer in layers) // (4 * rule.direction_count)
    for layer, row in zip(layers, rows, strict=True):
        kept: Kept | None = [] if layer.x.numel() <= budget else None
        first(layer, row, rule, kept)
        second(layer, row, rule, kept)


def _scaled(g: Tensor, numbers: Numbers) -> Tensor:
    wide = _working(g)
    return wide if numbers.gradient_factor == 1 else wide * numbers.gradient_factor


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
    block = BLOCK * torch.get_num_threads()
    for start in range(0, views[0].numel(), block):
        x, g, *moments = (view[start : start + block] for view in views)
        yield x, g, tuple(moments)
