"""Plain tensor operations: any device, any dtype, any strides; on a CPU in blocks that stay in its cache."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lambert.optim.equations import LayerHyperparameters, UpdateRule, trust_ratio
from lambert.optim.layers import Layer
from lambert.optim.norms import accumulator, all_reduce_partial_norms

BLOCK = 32_768
"""Elements of a block on a CPU for each thread: with its four inputs and two temporaries 0.8 MB."""

BATCH = 8_388_608
"""Elements of the layers that are computed end to end elsewhere: 32 MB for each temporary."""

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
    for x, g, moments in _blocks(layer, rule):
        wide, gradient = _working(x), _scaled(g, layer.hyper)
        directions: tuple[Tensor, ...]
        if by_adamw:
            directions = _lamb_by_adamw(wide, gradient, moments, layer.hyper)
        else:
            rule.update_moments(wide, gradient, moments, layer.hyper)
            directions = rule.directions(wide, gradient, moments, layer.hyper)
        if layer.hyper.adapt:
            kind = squares.dtype if rule.keeps_norm else wide.dtype
            norms = torch.stack([torch.linalg.vector_norm(tensor, dtype=kind) for tensor in (wide, *directions)])
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
    for block, (x, g, moments) in enumerate(_blocks(layer, rule)):
        new = _working(x)
        directions = kept[block] if kept else rule.directions(new, _scaled(g, layer.hyper), moments, layer.hyper)
        for step, u in zip(steps, directions, strict=True):
            new = new.sub_(u.mul_(step))
        if new is not x:
            x.copy_(new)


def restore_norms(layers: Sequence[Layer], rows: Sequence[Tensor]) -> None:
    """Scale every adapted layer to the norm that it had before the step, unless that was 0.

    The norms are summed in float64 where the device has it, so that rounding does not add up over steps.

    Args:
        rows: of each layer, from `update_moments`: ‖x‖² before the step is first.
    """
    pairs = [(layer, row) for layer, row in zip(layers, rows, strict=True) if layer.hyper.adapt]
    if not pairs:
        return
    squares = [torch.linalg.vector_norm(layer.x, dtype=row.dtype).square().to(pairs[0][1]) for layer, row in pairs]
    sums = all_reduce_partial_norms(torch.stack(squares)[:, None], [layer.sharded_over for layer, _ in pairs])
    for (layer, row), square in zip(pairs, sums[:, 0], strict=True):
        scale = torch.where(row[0] > 0, (row[0] / square.to(row.device)).sqrt(), 1.0)
        layer.x.mul_(scale.to(_working_dtype(layer.x)))


def is_counted(layer: Layer) -> bool:
    """Whether the layer's device counts its steps, so that it can skip them: on a GPU, unless it is a shard."""
    return layer.x.device.type != "cpu" and not layer.sharded_over


def fused_step(
    layers: Sequence[Layer], rows: Sequence[Tensor], rule: UpdateRule, found_inf: Tensor | None = None
) -> None:
    """Unsharded layers: one after another on a CPU, many at once elsewhere.

    On a CPU directions are kept where that takes at most one byte per parameter.

    Args:
        found_inf: where it is not 0, nothing changes and `rows` stay; only if `is_counted` of every layer.
    """
    pairs = list(zip(layers, rows, strict=True))
    for batch in _batches([pair for pair in pairs if pair[0].x.device.type != "cpu"], rule):
        _step_end_to_end(batch, rule, found_inf)
    own = [pair for pair in pairs if pair[0].x.device.type == "cpu"]
    budget = sum(layer.x.numel() for layer, _ in own) // (4 * rule.direction_count)
    for layer, row in own:
        kept: Kept | None = [] if layer.x.numel() <= budget else None
        update_moments(layer, row, rule, kept)
        apply_update(layer, row, rule, kept)
    if rule.keeps_norm:
        restore_norms([layer for layer, _ in own], [row for _, row in own])


Pair = tuple[Layer, Tensor]
"""A layer, and its row of sums of squares."""


def _batches(pairs: Sequence[Pair], rule: UpdateRule) -> list[list[Pair]]:
    """Layers with the same hyperparameters (the factor of g apart), types and device, in batches of at most `BATCH`
    elements; layers without flat views, larger ones, and those that are whole matrices, are alone."""
    batches: list[list[Pair]] = []
    open_ones: dict[Any, tuple[int, list[Pair]]] = {}
    for pair in pairs:
        layer, size = pair[0], pair[0].x.numel()
        is_alone = layer.flat is None or layer.x.dtype != _working_dtype(layer.x) or size > BATCH
        if is_alone or not rule.is_elementwise or isinstance(layer.hyper.local_rate, Tensor):
            batches.append([pair])
            continue
        hyper = replace(layer.hyper, gradient_factor=1.0)
        rate = id(hyper.learning_rate) if isinstance(hyper.learning_rate, Tensor) else hyper.learning_rate
        kind = (layer.x.device, layer.x.dtype, layer.g.dtype, is_counted(layer))
        key = (kind, rate, replace(hyper, learning_rate=0.0))
        total, batch = open_ones.get(key, (0, []))
        if not batch or total + size > BATCH:
            total, batch = 0, []
            batches.append(batch)
        batch.append(pair)
        open_ones[key] = total + size, batch
    return batches


def _step_end_to_end(batch: Sequence[Pair], rule: UpdateRule, found_inf: Tensor | None) -> None:
    """One step of layers with the same hyperparameters, as if they were one tensor: copies cost less than launches."""
    is_skipped = None if found_inf is None else found_inf.to(batch[0][0].x.device).reshape(()) != 0
    if len(batch) == 1:
        ((layer, row),) = batch
        changed, kept = (layer.x, *layer.moments, row), list[tuple[Tensor, ...]]()
        before = None if is_skipped is None else [tensor.clone() for tensor in changed]
        layer.hyper = replace(layer.hyper, corrections=_corrections(batch, rule, [1]))
        update_moments(layer, row, rule, kept)
        apply_update(layer, row, rule, kept)
        if rule.keeps_norm:
            restore_norms([layer], [row])
        if is_skipped is not None and before is not None:
            for tensor, old in zip(changed, before, strict=True):
                tensor.copy_(torch.where(is_skipped, old, tensor))
        return
    views = [layer.flat or [] for layer, _ in batch]
    sizes = [own[0].numel() for own in views]
    x, g, *moments = (torch.cat([own[column] for own in views]) for column in range(len(views[0])))
    hyper = replace(batch[0][0].hyper, gradient_factor=1.0, corrections=_corrections(batch, rule, sizes))
    g = _scaled_each(_working(g), [layer.hyper.gradient_factor for layer, _ in batch], sizes)
    rule.update_moments(x, g, tuple(moments), hyper)
    directions = rule.directions(x, g, tuple(moments), hyper)
    rate = hyper.learning_rate
    steps: list[Tensor | float] = [weight * rate for weight in rule.weights(hyper)]
    if hyper.adapt:
        norms = torch.stack([torch.stack(torch._foreach_norm(z.split(sizes))) for z in (x, *directions)])
        squares = norms.to(batch[0][1].dtype).square()
        recorded = squares if is_skipped is None else torch.where(is_skipped, 0.0, squares)
        torch._foreach_copy_([row for _, row in batch], list(recorded.T))
        ratios = trust_ratio(squares[:1].sqrt(), squares[1:].sqrt(), hyper.norm_bounds).to(x.dtype)
        steps = [_each(step * ratio, sizes) for step, ratio in zip(steps, ratios, strict=True)]
    for step, u in zip(steps, directions, strict=True):
        x = x.sub_(u.mul_(step))
    if hyper.adapt and rule.keeps_norm:
        after = torch.stack(torch._foreach_norm(x.split(sizes), dtype=squares.dtype)).square()
        x = x.mul_(_each(torch.where(squares[0] > 0, (squares[0] / after).sqrt(), 1.0).to(x.dtype), sizes))
    for column, new in zip((0, *range(2, len(views[0]))), (x, *moments), strict=True):
        own = [view[column] for view in views]
        if is_skipped is not None:
            new = torch.where(is_skipped, torch.cat(own), new)
        torch._foreach_copy_(own, list(new.split(sizes)))


def _corrections(batch: Sequence[Pair], rule: UpdateRule, sizes: Sequence[int]) -> tuple[Tensor, Tensor] | None:
    """Both bias corrections, where the device counts the steps: of one layer a number, of several for each element."""
    layer = batch[0][0]
    if not (is_counted(layer) and rule.corrects_bias and layer.hyper.correction_step != math.inf):
        return None
    kind, device = accumulator(layer.x.device), layer.x.device
    step = torch.stack([layer.step for layer, _ in batch]).to(kind) + 1
    both = (1 - _betas(layer.hyper.beta1, layer.hyper.beta2, kind, device) ** step).reciprocal_()
    if len(batch) == 1:
        return both[0, 0], both[1, 0]
    lengths = _lengths(tuple(sizes), device)
    first, second = both.to(layer.x.dtype).repeat_interleave(lengths, dim=1, output_size=sum(sizes))
    return first, second


@functools.lru_cache(maxsize=64)
def _betas(beta1: float, beta2: float, kind: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor([[beta1], [beta2]], dtype=kind).to(device)


def _scaled_each(g: Tensor, factors: Sequence[float | Tensor], sizes: Sequence[int]) -> Tensor:
    """Gradients end to end, each times its factor."""
    if any(isinstance(factor, Tensor) for factor in factors):
        stacked = torch.stack([torch.as_tensor(factor, dtype=g.dtype, device=g.device) for factor in factors])
        return g * _each(stacked, sizes)
    if all(factor == 1 for factor in factors):
        return g
    return g * (factors[0] if len(set(factors)) == 1 else _each(torch.tensor(factors).to(g), sizes))


def _each(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """`values` [layers], each repeated for the elements of its layer."""
    lengths = _lengths(tuple(sizes), values.device)
    return torch.repeat_interleave(values, lengths, output_size=sum(sizes))


@functools.lru_cache(maxsize=64)
def _lengths(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(sizes).to(device)


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
    wide, factor = _working(g), hyper.gradient_factor
    return wide if not isinstance(factor, Tensor) and factor == 1 else wide * factor


def _working_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _working(tensor: Tensor) -> Tensor:
    return tensor.to(_working_dtype(tensor))


def _flat_on_cpu(layer: Layer) -> list[Tensor] | None:
    return layer.flat if all(tensor.device.type == "cpu" for tensor in layer.tensors) else None


def _blocks(layer: Layer, rule: UpdateRule) -> Iterator[tuple[Tensor, Tensor, tuple[Tensor, ...]]]:
    views = _flat_on_cpu(layer) if rule.is_elementwise else None
    length = ADAMW_BLOCK if _by_adamw(layer, rule) else BLOCK * torch.get_num_threads()
    if views is None:
        yield layer.x, layer.g, layer.moments
        return
    for start in range(0, views[0].numel(), length):
        x, g, *moments = (view[start : start + length] for view in views)
        yield x, g, tuple(moments)
