"""Norms and trust ratios of the last step by layer name; kept as sums of squares until they are read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
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


class LayerStatsRecorder:
    """Keeps the last step's sums of squares, outside `state`, so that they are never saved in a checkpoint."""

    def __init__(self) -> None:
        self._layers: list[tuple[Tensor, int | None, tuple[float, float] | None]] = []
        self._sums: Sequence[Tensor] = ()

    def record(self, layers: Sequence[Layer], sums: Sequence[Tensor]) -> None:
        """Keep the sums [2] of adapted layers."""
        kept = [(layer, row) for layer, row in zip(layers, sums, strict=True) if layer.hyper.adapt]
        self._layers = [(layer.parameter, layer.slice_index, layer.hyper.norm_bounds) for layer, _ in kept]
        self._sums = [row for _, row in kept]

    def read(
        self, groups: Sequence[dict[str, Any]], named_parameters: Iterable[tuple[str, Tensor]] | None
    ) -> dict[str, LayerStats]:
        """By name; with `named_parameters` only those."""
        if named_parameters is None:
            named_parameters = [
                (names[index] if names else f"{number}.{index}", parameter)
                for number, group in enumerate(groups)
                for names in [group.get("param_names")]
                for index, parameter in enumerate(group["params"])
            ]
        name_of = {parameter: name for name, parameter in named_parameters}
        rows = _read(self._sums)
        stats = {}
        for (parameter, slice_index, bounds), (x_square, u_square, *_) in zip(self._layers, rows, strict=True):
            if parameter in name_of:
                name = name_of[parameter] + ("" if slice_index is None else f"[{slice_index}]")
                stats[name] = _stats_of(x_square, u_square, bounds)
        return stats


def _read(rows: Sequence[Tensor]) -> list[list[float]]:
    """The numbers of each row; waits once for each device."""
    found: dict[int, list[float]] = {}
    for device in dict.fromkeys(row.device for row in rows):
        own = [index for index, row in enumerate(rows) if row.device == device]
        found |= zip(own, torch.stack([rows[index] for index in own]).tolist(), strict=True)
    return [found[index] for index in range(len(rows))]


def _stats_of(x_square: float, u_square: float, bounds: tuple[float, float] | None) -> LayerStats:
    x_norm, u_norm = math.sqrt(x_square), math.sqrt(u_square)
    phi = x_norm if bounds is None else min(max(x_norm, bounds[0]), bounds[1])
    return LayerStats(x_norm, u_norm, phi / u_norm if x_norm > 0 and u_norm > 0 else 1.0)
