"""From parameters to layers: the views of memory, and the hyperparameters, of one step of one layer."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lambert.optim import norms
from lambert.optim.equations import LayerHyperparameters
from lambert.optim.options import Slices


@dataclass(eq=False)
class Layer:
    """One layer of one step, or this rank's shard of it."""

    x: Tensor
    """Parameters: real, any float type, changed in place."""
    g: Tensor
    """Gradient, of the shape of `x`; never changed."""
    moments: tuple[Tensor, ...]
    """Of the shape of `x`, float32 (float64 for float64 parameters), changed in place."""
    step: Tensor
    """Steps of the parameter before this one, float32, 0-dimensional."""
    parameter: Tensor
    """The parameter it belongs to."""
    slice_index: int | None
    """Index of the slice in the parameter; None for a whole parameter."""
    sharded_over: norms.ShardedOver
    """The mesh dimensions that the layer is sharded over."""
    hyper: LayerHyperparameters = field(init=False)
    """Set once it is known which kernel takes the layer."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """x, g and the moments."""
        return (self.x, self.g, *self.moments)

    @functools.cached_property
    def flat(self) -> list[Tensor] | None:
        """All tensors, flattened by `flat`."""
        return flat(self.tensors)


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


def layers_of(
    parameter: Tensor,
    weights: Tensor,
    gradient: Tensor,
    moments: tuple[Tensor, ...],
    step: Tensor,
    slices: Slices | None,
) -> list[Layer]:
    """The layers that make up a parameter.

    Args:
        weights: the parameter, or its float32 master copy.
        slices: layers along one dimension; None when the parameter is one layer.
    """
    sharded_over = norms.sharded_over(parameter)
    tensors = [_real(norms.local_part(t)) for t in (weights, norms.like_parameter(gradient, parameter), *moments)]
    if slices is None:
        x, g, *rest = tensors
        return [Layer(x, g, tuple(rest), step, parameter, None, sharded_over)]
    dimension, sizes = slices
    begin, end = norms.local_range(parameter, dimension)
    layers, start = [], 0
    for slice_index, size in enumerate(sizes):
        # The part of this slice in the local shard; empty where it has none.
        first, stop = min(max(start, begin), end), max(min(start + size, end), begin)
        x, g, *rest = (t.narrow(dimension, first - begin, max(0, stop - first)) for t in tensors)
        layers.append(Layer(x, g, tuple(rest), step, parameter, slice_index, sharded_over))
        start += size
    return layers


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def hyperparameters_of(
    group: dict[str, Any], rate: float | Tensor, step: float, adapt: bool, factor: float | Tensor
) -> LayerHyperparameters:
    """Of a layer at step `step`, from 1."""
    betas = group["betas"] if "betas" in group else (group["momentum"], 0.0)
    beta1, beta2 = float(betas[0]), float(betas[1])
    bounds = group["norm_bounds"]
    return LayerHyperparameters(
        learning_rate=rate,
        beta1=beta1,
        beta2=beta2,
        epsilon=float(group.get("eps", 0.0)),
        weight_decay=float(group["weight_decay"]),
        correction_step=step if group.get("bias_correction", True) else math.inf,
        gradient_factor=factor,
        adapt=adapt,
        norm_bounds=None if bounds is None else (float(bounds[0]), float(bounds[1])),
    )
