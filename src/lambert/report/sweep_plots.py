"""The picture of a sweep: held-out loss by batch size, each optimizer at its best learning rate and at the rule's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lambert.report.charts import SERIES_COLOURS, colour_of
from lambert.report.palette import light
from lambert.report.plots import STANDING, Size, new_axes, y_label_at
from lambert.report.svg import house_settings, standing_svg
from lambert.utils import formatting

_DASHES: tuple[Any, ...] = ("-", (0, (8, 2, 2, 2)), (0, (1.5, 2)), (0, (3, 1)))
"""One colour an optimizer, one kind of line a recipe."""
_RULE = (0, (4, 3))
_COLUMNS, _ROW, _TOP = 4, 20, 98
"""Of the legend: entries side by side, height of a row, and what stands above and below it, in points."""

Arms = Sequence[Mapping[str, Any]]


def write_sweep_picture(table: Mapping[str, Any], out: Path) -> Path:
    """Draw a sweep's table (docs/sweep.md); arms that diverged stand at the upper edge as crosses."""
    out.write_text(standing_svg(_figure(table), "Held-out masked-word loss by batch size"), encoding="utf-8")
    return out


def _figure(table: Mapping[str, Any]) -> Figure:
    best = {(one["optimizer"], one["batch"], one["recipe"]): one["multiplier"] for one in table["tuned"]}
    lines: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for arm in sorted(table["arms"], key=lambda arm: int(arm["batch_size"])):
        lines.setdefault((arm["optimizer"], arm["recipe"]), []).append(arm)
    optimizers = list(dict.fromkeys(name for name, _ in lines))
    recipes = list(dict.fromkeys(recipe for _, recipe in lines))
    handles = []
    with house_settings():
        size = _size(len(lines) + 2 * bool(best))
        figure, axes = new_axes(size)
        figure.patch.set(visible=True, facecolor=light("paper"))
        for (optimizer, recipe), arms in lines.items():
            colour = light(colour_of(optimizers.index(optimizer) % SERIES_COLOURS))
            dashes = _DASHES[recipes.index(recipe) % len(_DASHES)]
            _group(axes, arms, best, colour, dashes)
            name = optimizer + ("" if recipe == "sqrt" else f", {Path(recipe).stem}")
            handles.append(Line2D([], [], color=colour, linestyle=dashes, linewidth=2.5, marker="o", label=name))
        if best:
            muted = light("muted")
            handles.append(Line2D([], [], color=muted, linestyle=_RULE, linewidth=1.2, label="at the rule's rate"))
            handles.append(_hollow(muted, "at other rates"))
        _axis(axes, [int(arm["batch_size"]) for arm in table["arms"]])
        y_label_at(axes, "held-out loss, nats a hidden word; bars: 95 % interval over seeds", size, above=10)
        _head(figure, size, handles)
    return figure


def _size(entries: int) -> Size:
    return replace(STANDING, top=_TOP + _ROW * math.ceil(entries / _COLUMNS))


def _group(axes: Axes, arms: Arms, best: Mapping[tuple[str, str, str], float], colour: str, dashes: Any) -> None:
    """The arms of one optimizer and recipe: a line through the best at every batch, the rule's and the others paler."""
    drawn = [arm for arm in arms if arm["loss"]["mean"] is not None]
    chosen = [arm for arm in drawn if best.get(_place(arm), arm["multiplier"]) == arm["multiplier"]]
    rule = [arm for arm in drawn if math.isclose(arm["multiplier"], 1.0)]
    if any(arm not in chosen for arm in rule):
        axes.plot(*_points(rule), color=colour, linestyle=_RULE, linewidth=1.2, marker="o", markersize=3)
    for arm in drawn:
        if arm not in chosen and arm not in rule:
            axes.add_line(_hollow(colour, "_", *_points([arm])))
    axes.errorbar(
        *_points(chosen), yerr=[arm["loss"]["half_interval"] or 0.0 for arm in chosen], color=colour,
        linestyle=dashes, linewidth=2.5, marker="o", markersize=5, capsize=3,
    )  # fmt: skip
    for arm in arms:
        if arm["diverged"]:
            axes.plot(
                [arm["batch_size"]], [1.0], marker="x", markersize=8, markeredgewidth=2, color=colour,
                transform=axes.get_xaxis_transform(), clip_on=False,
            )  # fmt: skip


def _place(arm: Mapping[str, Any]) -> tuple[str, str, str]:
    return arm["optimizer"], arm["batch"], arm["recipe"]


def _points(arms: Arms) -> tuple[list[int], list[float]]:
    return [arm["batch_size"] for arm in arms], [arm["loss"]["mean"] for arm in arms]


def _hollow(colour: str, label: str, x: Sequence[float] = (), y: Sequence[float] = ()) -> Line2D:
    return Line2D(
        x, y, color=colour, linestyle="none", marker="o", markersize=5, markerfacecolor="none", label=label
    )  # fmt: skip


def _axis(axes: Axes, batch_sizes: Sequence[int]) -> None:
    axes.autoscale_view()
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sorted({size for size in batch_sizes if size})))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: formatting.count(round(value))))
    axes.set_xlabel("batch size of the first phase, sequences", color=light("muted"), fontsize=STANDING.font)


def _head(figure: Figure, size: Size, handles: Sequence[Line2D]) -> None:
    left = size.margin / size.width
    figure.text(
        left, 1 - 42 / size.height, "Loss by batch size", fontsize=17, fontweight="bold", color=light("ink")
    )  # fmt: skip
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(left - 0.006, 1 - 54 / size.height), ncols=_COLUMNS,
        frameon=False, fontsize=size.font, labelcolor=light("ink"), handlelength=2.6, columnspacing=1.6,
    )  # fmt: skip
