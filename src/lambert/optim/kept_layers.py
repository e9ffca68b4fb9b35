"""Layers of the GPU kernels, kept from step to step: making them again would take longer than launching the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lambert.optim.layers import Layer
from lambert.optim.norms import is_dtensor
from lambert.optim.options import Slices


class KeptLayers:
    """The layers of each parameter, as long as its tensors stay where they are. Gradients are not kept."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[tuple[Any, ...], list[Layer]]] = {}

    def __contains__(self, parameter: Tensor) -> bool:
        """Whether it has been kept, wherever its tensors are now."""
        return id(parameter) in self._kept  # the layers hold the parameter

    def find(
        self, parameter: Tensor, tensors: Sequence[Tensor], gradient: Tensor, slices: Slices | None, fused: bool | None
    ) -> list[Layer] | None:
        """The kept layers with this gradient; None where there are none, or something has moved.

        Args:
            tensors: weights, moments and the step count.
        """
        facts, layers = self._kept.get(id(parameter), ((), []))
        if not layers or facts != _facts(tensors, gradient, slices, fused):
            return None
        if slices is None:
            layers[0].g = gradient
        else:
            dimension, start = slices[0], 0
            for layer, size in zip(layers, slices[1], strict=True):
                layer.g = gradient.narrow(dimension, start, size)
                start += size
        return layers

    def keep(self, layers: list[Layer], tensors: Sequence[Tensor], *facts: Any) -> None:
        """Keep the layers of one parameter; `tensors` and `facts` as for `find`. Shards and complex parameters, whose
        layers are views of each step, are not kept.
        """
        parameter = layers[0].parameter
        if not is_dtensor(parameter) and not parameter.is_complex():
            self._kept[id(parameter)] = _facts(tensors, *facts), layers

    @staticmethod
    def release(layers: Sequence[Layer]) -> None:
        """Let go of the gradients, which are freed between steps."""
        for layer in layers:
            del layer.g
            layer.__dict__.pop("flat", None)


def _facts(tensors: Sequence[Tensor], gradient: Tensor, slices: Slices | None, fused: bool | None) -> tuple[Any, ...]:
    """All that decides on layers and kernel; equal addresses are the same memory, since kept layers hold it."""
    addresses = [tensor.data_ptr() for tensor in tensors]
    return addresses, tensors[0].stride(), gradient.stride(), gradient.dtype, gradient.device, slices, fused
