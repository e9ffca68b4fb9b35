"""Pictures of predicted runs: where a step's time goes, and what a larger batch saves. Plain numbers in, files out."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lambert.errors import UserError
from lambert.report.charts import SERIES_COLOURS, colour_of
from lambert.report.palette import light
from lambert.report.plots import STANDING, Size, new_axes, quiet_axes, y_label_at
from lambert.report.svg import house_settings, png, standing_svg
from lambert.utils import formatting

SUFFIXES = (".svg", ".png")
_CAPTION_LETTERS = 140
_LINE = 17
_BAR_WIDTH = 0.62
_NO_LINE_OF_PHASES = 20
_GAP = 60
"""Between two axes: room for the labels of the right one."""


@dataclass(frozen=True)
class StackedStep:
    """One bar: a step on so many chips."""

    label: str
    """Below the bar; may have two lines."""
    parts: Mapping[str, float]
    """What for → how much. All bars have the same keys; what is 0 in all of them is not shown."""
    told: str
    """Above the bar."""
    published: float | None = None
    """Where a line is drawn across the bar."""


@dataclass(frozen=True)
class BatchPoint:
    """One plan of a line: a batch size, and how long and how dear the run is with it."""

    batch_size: int
    hours: float
    chip_hours: float


def step_picture(
    steps: Sequence[StackedStep], *, title: str, caption: str, x: str = "chips", y: str = "seconds a step"
) -> Figure:
    """Stacked bars over numbers of chips."""
    kinds = [kind for kind in steps[0].parts if any(step.parts[kind] > 0 for step in steps)]
    with house_settings():
        figure, size = _standing(title, caption, label_lines=max(step.label.count("\n") for step in steps))
        axes = figure.axes[0]
        bottoms = [0.0] * len(steps)
        for place, kind in enumerate(kinds):
            heights = [step.parts[kind] for step in steps]
            axes.bar(
                range(len(steps)), heights, _BAR_WIDTH, bottom=bottoms, color=light(_colour(place)), label=kind,
                edgecolor=light("paper"), linewidth=0.8,
            )  # fmt: skip
            bottoms = [low + height for low, height in zip(bottoms, heights, strict=True)]
        marks = [(place, step.published) for place, step in enumerate(steps) if step.published is not None]
        for place, mark in marks:
            axes.plot(
                [place - 0.42, place + 0.42], [mark, mark], color=light("ink"), linewidth=2, zorder=4,
                label="published" if place == marks[0][0] else "_",
            )  # fmt: skip
        tops = [max(top, step.published or 0.0) for top, step in zip(bottoms, steps, strict=True)]
        for place, (step, top) in enumerate(zip(steps, tops, strict=True)):
            axes.annotate(
                step.told, (place, top), xytext=(0, 5), textcoords="offset points", ha="center",
                fontsize=size.font - 1, color=light("ink"),
            )  # fmt: skip
        axes.set_xticks(range(len(steps)), [step.label for step in steps])
        axes.set_xlim(-0.6, len(steps) - 0.4)
        axes.set_ylim(0, 1.12 * max(tops))
        axes.set_xlabel(x, color=light("muted"), fontsize=size.font, labelpad=6)
        y_label_at(axes, y, size, above=10)
        _legend(figure, axes, size)
    return figure


def batch_picture(lines: Mapping[str, Sequence[BatchPoint]], *, title: str, caption: str) -> Figure:
    """Hours and chip-hours over batch sizes, side by side, both by powers."""
    with house_settings():
        figure, size = _standing(title, caption)
        half = (size.width - size.left - size.right - _GAP) // 2
        left, right = figure.axes[0], quiet_axes(figure, replace(size, left=size.left + half + _GAP))
        box = left.get_position()
        left.set_position((box.x0, box.y0, half / size.width, box.height))
        for axes in (left, right):
            values = {
                label: [point.hours if axes is left else point.chip_hours for point in points]
                for label, points in lines.items()
            }
            for place, (label, points) in enumerate(lines.items()):
                sizes = [point.batch_size for point in points]
                colour = light(colour_of(place))
                axes.plot(sizes, values[label], "-o", color=colour, linewidth=2, markersize=5, label=label)
            _powers(axes, [point.batch_size for points in lines.values() for point in points], values)
            axes.set_xlabel("sequences in a batch", color=light("muted"), fontsize=size.font, labelpad=6)
            y_label_at(axes, "hours" if axes is left else "chip-hours", size, above=10)
        _legend(figure, left, size)
    return figure


def write_picture(figure: Figure, path: Path) -> None:
    """Writes an SVG that follows the reader's light or dark setting, or a PNG at twice its size.

    Raises:
        UserError: the name ends otherwise, or the file cannot be written.
    """
    check_picture(path)
    title = figure.texts[0].get_text()
    try:
        if path.suffix == ".svg":
            path.write_text(standing_svg(figure, title), encoding="utf-8")
        else:
            path.write_bytes(png(figure))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}", remedy="Choose another file") from None


def check_picture(path: Path) -> None:
    """Refuses what is neither an SVG nor a PNG by its name.

    Raises:
        UserError: it is neither.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"a picture in {path}", remedy=f"Give a name that ends in {' or '.join(SUFFIXES)}")


def _colour(place: int) -> str:
    """A role of the palette for each kind of time: there is one kind more than there are series."""
    return colour_of(place) if place < SERIES_COLOURS else "muted"


def _standing(title: str, caption: str, *, label_lines: int = 0) -> tuple[Figure, Size]:
    """A figure of its own with a title and, below the axes, how far to trust it.

    Args:
        label_lines: that labels below the axes have beyond the first.
    """
    lines = textwrap.wrap(caption.replace(" %", "\N{NO-BREAK SPACE}%"), _CAPTION_LETTERS)
    more = 8 + _LINE * (len(lines) + label_lines)
    size = replace(
        STANDING, top=STANDING.top - _NO_LINE_OF_PHASES, bottom=STANDING.bottom + more, height=STANDING.height + more
    )
    figure, _ = new_axes(size)
    figure.patch.set(visible=True, facecolor=light("paper"))
    left = size.margin / size.width
    figure.text(left, 1 - 42 / size.height, title, fontsize=17, fontweight="bold", color=light("ink"))
    for place, line in enumerate(reversed(lines)):
        figure.text(left, (14 + _LINE * place) / size.height, line, fontsize=12, color=light("muted"))
    return figure, size


def _powers(axes: Axes, sizes: Sequence[int], values: Mapping[str, Sequence[float]]) -> None:
    """Powers of two below, 1, 2, 5 and their tenfold at the side."""
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    shown = sorted(set(sizes))
    axes.set_xticks(shown[:: 2 if len(shown) > 5 else 1])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: formatting.count(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    everything = [value for line in values.values() for value in line]
    low, high = min(everything) / 1.3, max(everything) * 1.3
    axes.set_ylim(low, high)
    ticks = [base * 10.0**power for power in range(-3, 9) for base in (1, 2, 5)]
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def _legend(figure: Figure, axes: Axes, size: Size) -> None:
    figure.legend(
        handles=axes.get_legend_handles_labels()[0], loc="upper left", ncols=7, frameon=False, fontsize=size.font,
        bbox_to_anchor=(size.margin / size.width - 0.006, 1 - 54 / size.height), labelcolor=light("ink"),
        handlelength=1.4, columnspacing=1.8,
    )  # fmt: skip
