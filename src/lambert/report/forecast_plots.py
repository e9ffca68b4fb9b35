"""Pictures of predicted runs: where a step's time goes, and what a larger batch saves. Plain numbers in, files out."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lambert.errors import UserError
from lambert.report import words
from lambert.report.charts import colour_of
from lambert.report.palette import light
from lambert.report.plots import STANDING, Size, new_axes, y_label_at
from lambert.report.svg import house_settings, png, standing_svg

SUFFIXES = (".svg", ".png")
_CAPTION_LETTERS = 140
_BAR_WIDTH = 0.62
_NO_LINE_OF_PHASES = 20


@dataclass(frozen=True)
class StackedStep:
    """One bar: a step on so many chips."""

    label: str
    parts: dict[str, float]
    """What for → how much. All bars have the same keys; what is 0 in all of them is not shown."""
    told: str
    """Above the bar."""


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
        figure, size = _standing(title, caption)
        axes = figure.axes[0]
        bottoms = [0.0] * len(steps)
        for place, kind in enumerate(kinds):
            heights = [step.parts[kind] for step in steps]
            axes.bar(
                range(len(steps)), heights, _BAR_WIDTH, bottom=bottoms, color=light(colour_of(place)), label=kind,
                edgecolor=light("paper"), linewidth=0.8,
            )  # fmt: skip
            bottoms = [low + height for low, height in zip(bottoms, heights, strict=True)]
        for place, total in enumerate(bottoms):
            axes.annotate(
                steps[place].told, (place, total), xytext=(0, 5), textcoords="offset points", ha="center",
                fontsize=size.font - 1, color=light("ink"),
            )  # fmt: skip
        axes.set_xticks(range(len(steps)), [step.label for step in steps])
        axes.set_xlim(-0.6, len(steps) - 0.4)
        axes.set_ylim(0, 1.12 * max(bottoms))
        _finish(figure, axes, size, x=x, y=y)
    return figure


def batch_picture(lines: dict[str, Sequence[BatchPoint]], *, title: str, caption: str) -> Figure:
    """Hours over batch sizes, both by powers of ten; at each line's ends stands what its runs take in chip-hours."""
    with house_settings():
        figure, size = _standing(title, caption)
        axes = figure.axes[0]
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        for place, (label, points) in enumerate(lines.items()):
            sizes, hours = [point.batch_size for point in points], [point.hours for point in points]
            colour = light(colour_of(place))
            axes.plot(sizes, hours, "-o", color=colour, linewidth=2, markersize=5, label=label)
            for point, align in ((points[0], "left"), (points[-1], "right")):
                axes.annotate(
                    f"{point.chip_hours:,.0f} chip-hours", (point.batch_size, point.hours), xytext=(0, 8), ha=align,
                    textcoords="offset points", fontsize=size.font - 1.5, color=light("muted"),
                )  # fmt: skip
        everywhere = [point for points in lines.values() for point in points]
        axes.set_xticks(sorted({point.batch_size for point in everywhere}))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: words.count(value)))
        axes.xaxis.set_minor_locator(NullLocator())
        low, high = (bound(point.hours for point in everywhere) for bound in (min, max))
        axes.set_ylim(low / 1.3, high * 1.5)
        ticks = [base * 10**power for power in range(-3, 5) for base in (1, 2, 5)]
        axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low / 1.3 <= tick <= high * 1.5]))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        _finish(figure, axes, size, x="sequences in a batch, the same in both phases", y="hours")
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


def _standing(title: str, caption: str) -> tuple[Figure, Size]:
    """A figure of its own with a title and, below the axes, how far to trust it."""
    lines = textwrap.wrap(caption, _CAPTION_LETTERS)
    size = replace(
        STANDING, top=STANDING.top - _NO_LINE_OF_PHASES, bottom=STANDING.bottom + 8 + 17 * len(lines),
        height=STANDING.height + 8 + 17 * len(lines),
    )  # fmt: skip
    figure, _ = new_axes(size)
    figure.patch.set(visible=True, facecolor=light("paper"))
    left = size.margin / size.width
    figure.text(left, 1 - 42 / size.height, title, fontsize=17, fontweight="bold", color=light("ink"))
    for place, line in enumerate(reversed(lines)):
        figure.text(left, (14 + 17 * place) / size.height, line, fontsize=12, color=light("muted"))
    return figure, size


def _finish(figure: Figure, axes: Axes, size: Size, *, x: str, y: str) -> None:
    axes.set_xlabel(x, color=light("muted"), fontsize=size.font, labelpad=6)
    y_label_at(axes, y, size, above=10)
    figure.legend(
        handles=axes.get_legend_handles_labels()[0], loc="upper left", ncols=6, frameon=False, fontsize=size.font,
        bbox_to_anchor=(size.margin / size.width - 0.006, 1 - 54 / size.height), labelcolor=light("ink"),
        handlelength=1.4, columnspacing=1.8,
    )  # fmt: skip
