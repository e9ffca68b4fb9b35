"""Trust ratios by layer and step as a heat map that can be read with 4 layers and with 400.

Above `_MOST_ROWS` layers, rows are modules: layer names are cut at their dots, at the deepest level with few enough
rows, and a row shows the geometric mean of its layers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lambert.report.columns import Floats, Table, packed
from lambert.runlog.reader import TrustRatios

_MOST_ROWS = 48
_MOST_COLUMNS = 120


@dataclass(frozen=True)
class HeatMap:
    """values: float64 [rows, columns], geometric means; `left_out` layers had ratio 1 throughout."""

    rows: tuple[str, ...]
    values: Floats
    first_step: float
    last_step: float
    layers: int
    left_out: int

    @property
    def grouped(self) -> bool:
        return len(self.rows) < self.layers

    @property
    def limits(self) -> tuple[float, float]:
        """Ratios of the first and the last colour; a few outliers beyond them do not compress the others."""
        return _colour_limits(self.values)


def heat_map(ratios: TrustRatios) -> HeatMap | None:
    """Rows and columns of the picture, or None where no layer has a ratio to show."""
    values = np.where(ratios.values > 0, ratios.values, np.nan)
    shown = [
        index for index in range(len(ratios.layers))
        if np.isfinite(values[:, index]).any() and not np.all(ratios.values[:, index] == 1.0)
    ]  # fmt: skip
    if not shown:
        return None
    names = [ratios.layers[index] for index in shown]
    keys = group_names(names, _MOST_ROWS)
    rows = tuple(dict.fromkeys(keys))
    logs = np.log(values[:, shown])
    grouped = np.stack([_mean(logs[:, [key == row for key in keys]]) for row in rows])
    columns = _columns(ratios.steps)
    return HeatMap(
        short_names(rows), np.exp(grouped[:, columns]), float(ratios.steps[0]), float(ratios.steps[-1]),
        len(names), len(ratios.layers) - len(shown),
    )  # fmt: skip


def cells(shown: HeatMap) -> Table:
    """One row for every cell that has a ratio: its row, its first and last step."""
    edges = np.linspace(shown.first_step, max(shown.last_step, shown.first_step + 1), shown.values.shape[1] + 1)
    rows, places = np.nonzero(np.isfinite(shown.values))
    ratios = shown.values[rows, places]
    numbers = np.arange(len(shown.rows), dtype=np.float64)
    return packed({"row": numbers[rows], "first": edges[places], "last": edges[places + 1], "ratio": ratios})


def group_names(names: list[str], most: int) -> list[str]:
    """For each dotted name the part of the model it is shown under: at most `most` different ones."""
    parts = [name.split(".") for name in names]
    for depth in range(max(map(len, parts)), 0, -1):
        keys = [".".join(part[:depth]) for part in parts]
        if len(set(keys)) <= most:
            return keys
    return ["all layers"] * len(names)


def short_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names without their common prefix and without ".weight"; a slice keeps its number."""
    parts = [re.sub(r"\.weight(\[\d+\])?$", r"\1", name).split(".") for name in names]
    shared = 0
    while all(len(part) > shared + 1 and part[shared] == parts[0][shared] for part in parts):
        shared += 1
    shortened = tuple(".".join(part[shared:]) for part in parts)
    return shortened if len(set(shortened)) == len(names) else names


def _colour_limits(values: Floats) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = (float(np.quantile(finite, q)) for q in (0.005, 0.995))
    return (low / 1.1, high * 1.1) if high < 1.05 * low else (low, high)


def _columns(steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """For evenly spaced columns the last record at or before each; records may be spaced unevenly."""
    places = np.linspace(steps[0], steps[-1], min(_MOST_COLUMNS, len(steps)))
    return np.searchsorted(steps, np.floor(places + 1e-9), side="right") - 1


def _mean(logs: Floats) -> Floats:
    """Mean over the last axis without NaNs, NaN where all are; float64 [records]."""
    finite = np.isfinite(logs)
    totals = np.where(finite, logs, 0.0).sum(axis=1)
    return np.where(finite.any(axis=1), totals / np.maximum(finite.sum(axis=1), 1), np.nan)
