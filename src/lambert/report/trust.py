"""Trust ratios by layer and step as a heat map that can be read with 4 layers and with 400.

Above `_MOST_ROWS` layers, rows are parts of the model: names are cut at their dots, at the deepest level that
leaves few enough rows, and a row shows the geometric mean of its layers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lambert.report import words
from lambert.report.charts import PhaseMark, phase_marks
from lambert.report.curves import Floats
from lambert.report.palette import light
from lambert.report.plots import Size, new_axes
from lambert.report.read import Run, TrustRatios
from lambert.report.svg import house_settings, page_svg

_MOST_ROWS = 48
_MOST_COLUMNS = 200
_COLOURS = "viridis"


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


def heat_map(ratios: TrustRatios) -> HeatMap | None:
    """Rows and columns of the picture, or None where no layer has a ratio to show."""
    values = np.where(ratios.values > 0, ratios.values, np.nan)
    shown = [
        place for place in range(len(ratios.layers))
        if np.isfinite(values[:, place]).any() and not np.all(ratios.values[:, place] == 1.0)
    ]  # fmt: skip
    if not shown:
        return None
    names = [ratios.layers[place] for place in shown]
    keys = group_names(names, _MOST_ROWS)
    rows = tuple(dict.fromkeys(keys))
    logs = np.log(values[:, shown])
    grouped = np.stack([_mean(logs[:, [key == row for key in keys]]) for row in rows])
    columns = _columns(ratios.steps)
    return HeatMap(
        short_names(rows), np.exp(grouped[:, columns]), float(ratios.steps[0]), float(ratios.steps[-1]),
        len(names), len(ratios.layers) - len(shown),
    )  # fmt: skip


def group_names(names: list[str], most: int) -> list[str]:
    """For each dotted name the part of the model it is shown under: at most `most` different ones."""
    parts = [name.split(".") for name in names]
    for depth in range(max(map(len, parts)), 0, -1):
        keys = [".".join(part[:depth]) for part in parts]
        if len(set(keys)) <= most:
            return keys
    return ["all layers"] * len(names)


def short_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names without the leading parts that all share and without ".weight"; a slice keeps its number."""
    parts = [re.sub(r"\.weight(\[\d+\])?$", r"\1", name).split(".") for name in names]
    shared = 0
    while all(len(part) > shared + 1 and part[shared] == parts[0][shared] for part in parts):
        shared += 1
    shortened = tuple(".".join(part[shared:]) for part in parts)
    return shortened if len(set(shortened)) == len(names) else names


def trust_svg(run: Run, shown: HeatMap, *, wide: bool, name: str) -> str:
    """The heat map as inline SVG."""
    font = 12.5 if wide else 12.0
    longest = max(len(_label(row, wide)) for row in shown.rows)
    row_height = 19 if len(shown.rows) <= 32 else 15
    width = 1040 if wide else 440
    left = round(min(longest * font * 0.56 + 14, width * 0.46))
    size = Size(width, 84 + 44 + max(row_height * len(shown.rows), 40), font, left=left, top=84)
    with house_settings():
        figure, axes = new_axes(size)
        low, high = _colour_limits(shown.values)
        first, last = shown.first_step, max(shown.last_step, shown.first_step + 1)
        axes.imshow(
            _coloured(shown.values, low, high), aspect="auto", interpolation="none",
            extent=(first, last, len(shown.rows) - 0.5, -0.5),
        )  # fmt: skip
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        axes.set_yticks(range(len(shown.rows)), [_label(row, wide) for row in shown.rows])
        axes.tick_params(axis="y", labelcolor=light("ink"), labelsize=min(font, row_height - 3.5))
        axes.set_xlabel("optimizer step", color=light("muted"), fontsize=font, labelpad=6)
        blocks = [_block(row) for row in shown.rows]
        for row, (before, after) in enumerate(pairwise(blocks)):
            if before != after and len(set(blocks)) * 2 < len(blocks):
                axes.axhline(row + 0.5, color=light("paper"), linewidth=2)
        for mark in phase_marks(run)[1:]:
            _mark(axes, mark)
        _colour_key(figure, size, low, high)
    return page_svg(figure, name, "Trust ratio by layer and optimizer step")


def _block(row: str) -> str:
    """The block of the model a row belongs to: its name up to the first number ("bert.encoder.3")."""
    parts = row.split(".")
    numbers = [place for place, part in enumerate(parts) if part.isdecimal()]
    return ".".join(parts[: numbers[0] + 1]) if numbers else parts[0]


def _label(row: str, wide: bool) -> str:
    """The row's name, without leading parts where it is too long for the picture."""
    most = 44 if wide else 26
    while len(row) > most and row.count(".") > 1:
        row = row.split(".", 1)[1]
    return row if len(row) <= most else "…" + row[-(most - 1) :]


def _mark(axes: Axes, mark: PhaseMark) -> None:
    left, right = axes.get_xlim()
    if left < mark.start < right:
        axes.axvline(mark.start, color=light("paper"), linewidth=1.5)


def _colour_key(figure: Figure, size: Size, low: float, high: float) -> None:
    """A bar of the colours above the map, with the ratios they stand for."""
    width = min(300, size.width - size.left - size.right)
    key = figure.add_axes((size.left / size.width, 1 - 44 / size.height, width / size.width, 11 / size.height))
    key.imshow(colormaps[_COLOURS](np.linspace(0, 1, 128))[None, :, :], aspect="auto", extent=(0, 1, 0, 1))
    places = np.linspace(0, 1, 4)
    key.set_xticks(places, [words.number(low * (high / low) ** place, 2) for place in places])
    key.set_yticks([])
    key.tick_params(length=0, labelcolor=light("muted"), labelsize=size.font - 0.5, pad=4)
    for spine in key.spines.values():
        spine.set_visible(False)
    key.set_title("trust ratio, no unit", loc="left", fontsize=size.font, color=light("muted"), pad=6)


def _coloured(values: Floats, low: float, high: float) -> NDArray[np.uint8]:
    """RGBA bytes [rows, columns, 4]; transparent where there is no value."""
    shades = colormaps[_COLOURS](LogNorm(low, high, clip=True)(np.nan_to_num(values, nan=low)))
    shades[~np.isfinite(values), 3] = 0.0
    return np.asarray((shades * 255).round(), dtype=np.uint8)


def _colour_limits(values: Floats) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = (float(np.quantile(finite, share)) for share in (0.005, 0.995))
    return (low / 1.1, high * 1.1) if high / low < 1.05 else (low, high)


def _columns(steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """For evenly spaced columns the last record at or before each; records may be spaced unevenly."""
    places = np.linspace(steps[0], steps[-1], min(_MOST_COLUMNS, len(steps)))
    return np.searchsorted(steps, np.floor(places + 1e-9), side="right") - 1


def _mean(logs: Floats) -> Floats:
    """Mean over the last axis without NaNs, NaN where all are; float64 [records]."""
    finite = np.isfinite(logs)
    totals = np.where(finite, logs, 0.0).sum(axis=1)
    return np.where(finite.any(axis=1), totals / np.maximum(finite.sum(axis=1), 1), np.nan)
