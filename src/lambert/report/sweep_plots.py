"""The picture of a sweep: held-out loss by batch size, a line for every optimizer and learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lambert.report import words
from lambert.report.charts import SERIES_COLOURS, colour_of
from lambert.report.palette import light
from lambert.report.plots import STANDING, new_axes, y_label_at
from lambert.report.svg import house_settings, standing_svg

_DASHES = ("-", (0, (5, 3)), (0, (1.5, 2)), (0, (8, 2, 2, 2)))
"""One colour an optimizer, one kind of line a learning rate or recipe."""


def write_sweep_picture(arms: Sequence[Mapping[str, Any]], out: Path) -> Path:
    """Draw the arms of a sweep's table (docs/sweep.md); those that diverged stand at the upper edge as crosses."""
    figure = _figure(arms)
    out.write_text(standing_svg(figure, "Held-out masked-word loss by batch size"), encoding="utf-8")
    return out


def _figure(arms: Sequence[Mapping[str, Any]]) -> Figure:
    lines: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for arm in arms:
        lines.setdefault((arm["optimizer"], _kind(arm)), []).append(arm)
    optimizers = list(dict.fromkeys(name for name, _ in lines))
    kinds = list(dict.fromkeys(kind for _, kind in lines))
    with house_settings():
        figure, axes = new_axes(STANDING)
        figure.patch.set(visible=True, facecolor=light("paper"))
        for (optimizer, kind), own in lines.items():
            colour = light(colour_of(optimizers.index(optimizer) % SERIES_COLOURS))
            _line(axes, own, colour, _DASHES[kinds.index(kind) % len(_DASHES)], f"{optimizer}{kind}")
        sizes = sorted({arm["batch_size"] for arm in arms if arm["batch_size"]})
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(sizes))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: words.count(round(value))))
        axes.set_xlabel("batch size of the first phase, sequences", color=light("muted"), fontsize=STANDING.font)
        y_label_at(axes, "held-out loss, nats a hidden word; bars: 95 % interval over seeds", STANDING, above=10)
        _legend(figure, axes)
    return figure


def _line(axes: Axes, arms: Sequence[Mapping[str, Any]], colour: str, dashes: Any, label: str) -> None:
    ordered = sorted(arms, key=lambda arm: arm["batch_size"])
    drawn = [arm for arm in ordered if arm["loss"]["mean"] is not None]
    if drawn:
        halves = [arm["loss"]["half_interval"] or 0.0 for arm in drawn]
        axes.errorbar(
            [arm["batch_size"] for arm in drawn], [arm["loss"]["mean"] for arm in drawn], yerr=halves,
            color=colour, linestyle=dashes, linewidth=2, marker="o", markersize=5, capsize=3, label=label,
        )  # fmt: skip
    for arm in ordered:
        if arm["diverged"]:
            axes.plot(
                [arm["batch_size"]], [1.0], marker="x", markersize=8, markeredgewidth=2, color=colour,
                transform=axes.get_xaxis_transform(), clip_on=False, label="" if drawn else f"{label} (diverged)",
            )  # fmt: skip


def _kind(arm: Mapping[str, Any]) -> str:
    times = "" if math.isclose(arm["multiplier"], 1.0) else f" × {arm['multiplier']:g}"
    return times + ("" if arm["recipe"] == "sqrt" else f", {Path(arm['recipe']).stem}")


def _legend(figure: Figure, axes: Axes) -> None:
    left, top = STANDING.margin / STANDING.width, 1 - 42 / STANDING.height
    figure.text(left, top, "Loss by batch size", fontsize=17, fontweight="bold", color=light("ink"))
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="upper left", bbox_to_anchor=(left - 0.006, 1 - 54 / STANDING.height), ncols=5,
        frameon=False, fontsize=STANDING.font, labelcolor=light("ink"), handlelength=2.6, columnspacing=1.6,
    )  # fmt: skip
