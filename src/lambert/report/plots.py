"""Draws a chart with matplotlib, for pictures outside a page: Chart -> Figure. One point is one CSS pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lambert.report.charts import Chart, PhaseMark, Trace, loss_chart
from lambert.report.curves import y_limits
from lambert.report.palette import light
from lambert.report.svg import house_settings
from lambert.runlog.reader import Run
from lambert.utils import formatting

_FEW_POINTS = 30  # up to here every point gets a dot: a line of one point cannot be seen
_ROUND_STEPS = [1, 2, 2.5, 5, 10]
_PHASE_LINE = 20  # height of the line of phase labels


@dataclass(frozen=True)
class Size:
    """Width, height and font size in CSS pixels."""

    width: int
    height: int
    font: float
    left: int = 54
    right: int = 16
    top: int = 52
    bottom: int = 44
    margin: int = 2  # what stands left of the axes' left edge begins here


NARROW = Size(440, 310, 12.5)
STANDING = Size(960, 440, 14.0, left=66, right=26, top=138, bottom=56, margin=26)


def draw(chart: Chart, size: Size) -> Figure:
    """Draws a chart in the palette's light colours."""
    with house_settings():
        size = size if chart.phases else replace(size, top=size.top - _PHASE_LINE)
        figure, axes = new_axes(size)
        dotted = sum(trace.kind == "points" for trace in chart.traces)
        for trace in chart.traces:
            _draw_trace(axes, trace, dot=7 if dotted == 1 else 5)
        _scale(axes, chart)
        _mark_phases(axes, chart.phases, size)
        axes.set_xlabel(chart.x_label, color=light("muted"), fontsize=size.font, labelpad=6)
        y_label_at(axes, chart.y_label, size, above=10 + (_PHASE_LINE if chart.phases else 0))
    return figure


def loss_curve_figure(run: Run) -> Figure:
    """The loss curve as a picture of its own: with title, legend and background.

    Raises:
        ValueError: no step of the run has a finite loss.
    """
    chart = loss_chart(run)
    if chart is None:
        raise ValueError("no finite loss")
    size = STANDING
    figure = draw(chart, size)
    figure.patch.set(visible=True, facecolor=light("paper"))
    with house_settings():
        left, top = size.margin / size.width, 1 - 42 / size.height
        figure.text(left, top, f"{chart.title}, {run.name}", fontsize=17, fontweight="bold", color=light("ink"))
        figure.legend(
            handles=figure.axes[0].get_legend_handles_labels()[0],
            loc="upper left", bbox_to_anchor=(left - 0.006, 1 - 54 / size.height), ncols=3, frameon=False,
            fontsize=size.font, labelcolor=light("ink"), handlelength=2.2, columnspacing=1.8,
        )  # fmt: skip
    return figure


def new_axes(size: Size) -> tuple[Figure, Axes]:
    """A figure of that size with quiet axes."""
    figure = Figure(figsize=(size.width / 72, size.height / 72), dpi=72)
    figure.patch.set_visible(False)
    return figure, quiet_axes(figure, size)


def quiet_axes(figure: Figure, size: Size) -> Axes:
    """Axes inside the margins of that size: horizontal grid, bottom line, no box."""
    axes = figure.add_axes((
        size.left / size.width, size.bottom / size.height,
        1 - (size.left + size.right) / size.width, 1 - (size.top + size.bottom) / size.height,
    ))  # fmt: skip
    axes.patch.set_visible(False)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set(color=light("rule"), linewidth=1)
    axes.tick_params(colors=light("rule"), labelcolor=light("muted"), labelsize=size.font - 0.5, length=4)
    axes.tick_params(axis="y", length=0, pad=6)
    axes.grid(axis="y", color=light("grid"), linewidth=1)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(
        MaxNLocator(8 if size.width > 600 else 5, integer=True, min_n_ticks=1, steps=_ROUND_STEPS)
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: formatting.count(value)))
    return axes


def y_label_at(axes: Axes, text: str, size: Size, above: int) -> None:
    """What the y axis shows, level and above it: easier to read than a turned label, and narrower."""
    axes.annotate(
        text, (0, 1), xytext=(size.margin - size.left, above), xycoords="axes fraction",
        textcoords="offset points", fontsize=size.font, color=light("muted"), ha="left",
        va="baseline", annotation_clip=False,
    )  # fmt: skip


def _draw_trace(axes: Axes, trace: Trace, dot: int) -> None:
    colour, label = light(trace.colour), trace.label or "_"
    dashes = (0, (5, 3)) if trace.dashed else "-"
    if trace.kind == "reference":
        axes.axhline(float(trace.y[0]), color=colour, linewidth=1.5, linestyle=dashes, label=label, zorder=2.5)
    elif trace.kind == "points":
        axes.plot(
            trace.x, trace.y, "o", color=colour, markersize=dot, label=label, zorder=4, clip_on=True,
            markeredgecolor=light("paper"), markeredgewidth=1.3 if dot > 5 else 0.6,
        )  # fmt: skip
    elif trace.kind == "raw":
        axes.plot(trace.x, trace.y, "-", color=colour, linewidth=0.8, alpha=0.28, label=label, zorder=2)
    else:
        axes.plot(
            trace.x, trace.y, linestyle=dashes, color=colour, linewidth=2, label=label, zorder=3,
            marker="o" if np.isfinite(trace.y).sum() <= _FEW_POINTS else "", markersize=4,
            solid_joinstyle="round",
        )  # fmt: skip


def _scale(axes: Axes, chart: Chart) -> None:
    measured = [trace.y for trace in chart.traces if trace.kind != "reference"]
    references = [float(trace.y[0]) for trace in chart.traces if trace.kind == "reference"]
    ends = [float(x) for trace in chart.traces if trace.kind in ("raw", "line") for x in trace.x[[0, -1]]]
    first, last = min(ends), max(ends)
    room = 0.012 * (last - first) or 0.5
    axes.set_xlim(first - room, last + room)
    low, high, cut = y_limits(measured, references, from_zero=False)
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=_ROUND_STEPS))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: formatting.tick(value, high)))
    if cut:
        axes.annotate(
            "higher points are cut off", (1, 1), xytext=(-4, -12), xycoords="axes fraction",
            textcoords="offset points", ha="right", fontsize=11, color=light("muted"),
        )  # fmt: skip


def _mark_phases(axes: Axes, phases: Sequence[PhaseMark], size: Size) -> None:
    """A line where a phase begins and, above the axes, what it is: the first from its start, the last up to
    its end, the others centred where there is room for them."""
    for mark in phases[1:]:
        axes.axvline(mark.start - 0.5, color=light("rule"), linewidth=1.2, zorder=1.5)
    left, right = axes.get_xlim()
    pixels = size.width - size.left - size.right
    room = sum(len(mark.long) * size.font * 0.56 for mark in {*phases[:1], *phases[-1:]}) < pixels
    for place, mark in enumerate(phases):
        at_start, at_end = place == 0, place == len(phases) - 1 and place > 0
        text = mark.long if room else mark.short
        share = (mark.stop - mark.start) / (right - left)
        if not (at_start or at_end) and share * pixels < len(text) * size.font * 0.6:
            continue
        x, align = (mark.start - 0.5, "left") if at_start else ((mark.start + mark.stop) / 2, "center")
        if at_end:
            x, align = right, "right"
        axes.annotate(
            text, (max(x, left), 1), xytext=(0, 8), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha=align, va="baseline", fontsize=size.font - 0.5,
            color=light("ink"), annotation_clip=False,
        )  # fmt: skip
