"""Norms and trust ratios of the last step by layer name; kept as sums until somebody reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lambert.optim.layers import Layer


@dataclass(frozen=True)
class LayerStats:
    """One layer of one step."""

    weight_norm: float
    """‖x‖ before the step."""
    update_norm: float
    """‖u‖, before ratio and learning rate (LANS: of the direction from momentum)."""
    trust_ratio: float


class Telemetry:
    """Holds on to the last step's sums; outside `state`, so that it never lands in a checkpoint."""

    def __init__(self) -> None:
        self._layers: list[tuple[Tensor, int | None, tuple[float, float] | None]] = []
        self._sums: Sequence[Tensor] = ()

    def record(self, layers: Sequence[Layer], sums: Sequence[Tensor]) -> None:
        """Keep the sums [2] of adapted layers."""
        kept = [(layer, row) for layer, row in zip(layers, sums, strict=True) if layer.numbers.adapt]
        self._layers = [(layer.parameter, layer.place, layer.numbers.norm_bounds) for layer, _ in kept]
        self._sums = [row for _, row in kept]

    def read(
        self, groups: Sequence[dict[str, Any]], named_parameters: Iterable[tuple[str, Tensor]] | None
    ) -> dict[str, LayerStats]:
        """By name; with `named_parameters` only those."""
        if named_parameters is None:
            named_parameters = [
                (names[place] if names else f"{number}.{place}", parameter)
                for number, group in enumerate(groups)
                for names in [group.get("param_names")]
                for place, parameter in enumerate(group["params"])
            ]
        name_of = {parameter: name for name, parameter in named_parameters}
        figures = {}
        for (parameter, place, bounds), row in zip(self._layers, self._sums, strict=True):
            if parameter in name_of:
                name = name_of[parameter] + ("" if place is None else f"[{place}]")
                x_square, u_square = row[:2].tolist()
                figures[name] = _figures(x_square, u_square, bounds)
        return figures


def _figures(x_square: float, u_square: float, bounds: tuple[float, float] | None) -> LayerStats:
    x_norm, u_norm = math.sqrt(x_square), math.sqrt(u_square)
    phi = x_norm if bounds is None else min(max(x_norm, bounds[0]), bounds[1])
    return LayerStats(x_norm, u_norm, phi / u_norm if x_norm > 0 and u_norm > 0 else 1.0)
