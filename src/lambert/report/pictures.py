"""The pictures outside a page: a run's loss, predicted steps and batch sizes, a sweep; and the corpus page's bars."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lambert.errors import UserError
from lambert.report.charts import CURVES, Board
from lambert.report.columns import rows_of
from lambert.report.comparison import Legend
from lambert.report.picture import LegendEntry, check_picture, legend_layer, standing, write_picture
from lambert.report.spec import CONFIG, INK, MUTED, PAPER, SERIES, Spec, fill
from lambert.runlog.reader import Run, read_run
from lambert.runlog.schema import JOURNAL_FILE

_DASHES = ([1, 0], [10, 3, 3, 3], [2, 3], [4, 2])
_RULE_DASH = [5, 4]
_BAND = 0.62
_ALL_LABELS = {"labelOverlap": False, "tickCount": 100}
"""For axes with given ticks, which Vega would thin out otherwise."""
_PART_COLOURS = (*SERIES, MUTED)
"""There is one kind of step time more than there are series colours."""


@dataclass(frozen=True)
class StackedStep:
    """One bar: a step on so many chips."""

    label: str
    """Below the bar; may have two lines."""
    parts: Mapping[str, float]
    """Kind of time → amount. All bars have the same keys; a kind that is 0 in all of them is not shown."""
    text: str
    """Above the bar."""
    published: float | None = None
    """Where a line is drawn across the bar."""


@dataclass(frozen=True)
class BatchPoint:
    """One plan of a line: a batch size, and how long the run takes with it."""

    batch_size: int
    hours: float
    chip_hours: float


def write_loss_curve(run: Path, out: Path) -> Path:
    """Writes the loss curve of one run as a picture, SVG or PNG by the ending of `out`; returns its path.

    Raises:
        UserError: another ending, a folder without a usable journal or loss, an `out` that cannot be written.
    """
    out, read = Path(out), read_run(Path(run))
    check_picture(out)
    if not np.isfinite(read.series["mlm_loss"]).any():
        raise UserError(
            f"{read.folder / JOURNAL_FILE} records no finite loss", remedy="Give a run that did not diverge"
        )
    return write_picture(loss_curve(read), out)


def loss_curve(run: Run) -> Spec:
    """The page's first chart over steps, with a title and a legend, without what needs a pointer."""
    board = Board([run], Legend.of([run]))
    board.curve(CURVES[0])
    chart = board.charts["loss"]
    axis, colours = board.data()["axes"]["step"], board.legend.colours()["run"]
    tables = {name: rows_of(table["columns"]) if "columns" in table else table["rows"]
              for name, table in board.tables.items()}  # fmt: skip
    values = {
        "$x": "step", "$x_stop": "step_stop", "$x_title": axis["title"], "$x_format": axis["format"],
        "$x_scale": {"nice": False, "zero": False, "padding": 8}, "$from": 0, "$baseline_start": "datum.begin",
        "$y:loss": {**chart["scales"]["linear"], "padding": 6}, "$smooth:mlm_loss": "mlm_loss_1", "$hidden": [],
        "$perplexity:mlm_loss": "exp(datum.mlm_loss_1)",
        "$colour": colours["field"], "$domain": colours["domain"], "$range": colours["range"],
        "$dot_range": colours["dots"], "$dot_size": 55, "$line": 2, "$legend": None, "$width": None, "$height": None,
        "$dash": colours["field"], "$dashes": {"domain": colours["domain"], "range": colours["dashes"]},
        **{f"$table:{name}": {"values": rows} for name, rows in tables.items()},
    }  # fmt: skip
    drawn = fill(chart["spec"], values)
    layers = [{key: value for key, value in layer.items() if key != "params"} for layer in drawn["layer"][:-1]]
    entries = [LegendEntry("training", SERIES[0], "stroke")]
    if run.evaluations:
        entries.append(LegendEntry("held-out evaluation", SERIES[1]))
    if any(row["unigram_loss"] is not None for row in tables["baselines"]):
        entries.append(LegendEntry("unigram baseline", MUTED, "stroke", dash=(4, 2)))
    content = _layered([*layers, legend_layer(entries)]) | {name: drawn[name] for name in ("description", "config")}
    return standing(content, title=f"MLM loss, {run.name}")


def step_picture(
    steps: Sequence[StackedStep], *, title: str, caption: str, x: str = "chips", y: str = "seconds per step"
) -> Spec:
    """Stacked bars over numbers of chips."""
    kinds = [kind for kind in steps[0].parts if any(step.parts[kind] > 0 for step in steps)]
    colours = _PART_COLOURS[: len(kinds)]
    parts = [
        {"bar": index, "kind": kind, "amount": step.parts[kind], "order": order}
        for index, step in enumerate(steps) for order, kind in enumerate(kinds)
    ]  # fmt: skip
    tops = [max(sum(step.parts[kind] for kind in kinds), step.published or 0.0) for step in steps]
    texts = [
        {"bar": index, "top": top, "text": step.text} for index, (step, top) in enumerate(zip(steps, tops, strict=True))
    ]
    marks = [{"bar": index, "amount": step.published} for index, step in enumerate(steps) if step.published is not None]
    labels = json.dumps([step.label for step in steps])
    x_axis = {"title": x, "labelAngle": 0, "labelExpr": f"split({labels}[datum.value], '\\n')", "ticks": False}
    place: Spec = {"field": "bar", "type": "ordinal", "axis": x_axis, "scale": {"paddingInner": 1 - _BAND}}
    height: Spec = {
        "type": "quantitative", "title": y, "scale": {"domain": [0, 1.12 * max(tops)], "nice": False},
    }  # fmt: skip
    entries = [LegendEntry("published", INK, "stroke")] * bool(marks)
    entries += [LegendEntry(kind, colour, "square") for kind, colour in zip(kinds, colours, strict=True)]
    layers: list[Spec] = [
        {"data": {"values": parts}, "mark": {"type": "bar", "stroke": PAPER, "strokeWidth": 0.8},
         "encoding": {"x": place, "y": {**height, "field": "amount", "stack": "zero"}, "order": {"field": "order"},
                      "color": {"field": "kind", "type": "nominal", "legend": None,
                                "scale": {"domain": kinds, "range": list(colours)}}}},
        {"data": {"values": texts}, "mark": {"type": "text", "dy": -8, "fontSize": 13, "fill": INK},
         "encoding": {"x": place, "y": {**height, "field": "top"}, "text": {"field": "text"}}},
        {"data": {"values": marks},
         "mark": {"type": "tick", "orient": "horizontal", "thickness": 2, "bandSize": 560 / len(steps), "color": INK,
                  "opacity": 1},
         "encoding": {"x": place, "y": {**height, "field": "amount"}}},
        legend_layer(entries),
    ]  # fmt: skip
    return standing(_layered(layers), title=title, caption=caption)


def batch_picture(lines: Mapping[str, Sequence[BatchPoint]], *, title: str, caption: str) -> Spec:
    """Hours and chip-hours over batch sizes, side by side, on logarithmic axes."""
    rows = [
        {"line": label, "batch": point.batch_size, "kind": kind, "amount": amount}
        for label, points in lines.items() for point in points
        for kind, amount in (("hours", point.hours), ("chip-hours", point.chip_hours))
    ]  # fmt: skip
    sizes = sorted({point.batch_size for points in lines.values() for point in points})
    ticks = [base * 10.0**power for power in range(-3, 9) for base in (1, 2, 5)]
    colours = [_PART_COLOURS[index % len(SERIES)] for index in range(len(lines))]
    encoding: Spec = {
        "x": {"field": "batch", "type": "quantitative", "title": "batch size, sequences",
              "scale": {"type": "log", "base": 2, "nice": False, "padding": 12},
              "axis": {"values": sizes[:: 2 if len(sizes) > 5 else 1], "format": ",~g", **_ALL_LABELS}},
        "y": {"field": "amount", "type": "quantitative", "title": None,
              "scale": {"type": "log", "nice": False, "padding": 12},
              "axis": {"values": ticks, "format": ",~g", **_ALL_LABELS}},
        "color": {"field": "line", "type": "nominal", "title": None, "sort": None,
                  "scale": {"domain": list(lines), "range": colours}, "legend": {"symbolType": "stroke",
                  "symbolStrokeWidth": 2.5, "symbolOpacity": 1, "labelColor": INK, "labelFontSize": 13, "offset": 4}},
    }  # fmt: skip
    content: Spec = {
        "data": {"values": rows},
        "facet": {"column": {"field": "kind", "type": "nominal", "sort": ["hours", "chip-hours"], "title": None}},
        "spec": {"width": 390, "height": 250, "encoding": encoding, "layer": [
            {"mark": {"type": "line", "strokeWidth": 2}},
            {"mark": {"type": "point", "filled": True, "size": 40, "opacity": 1}},
        ]},
        "resolve": {"scale": {"y": "independent"}},
        "spacing": 44,
        "config": {"header": {"labelAnchor": "start", "labelFontSize": 12.5, "labelColor": MUTED, "labelPadding": 8}},
    }  # fmt: skip
    return standing(content, title=title, caption=caption, size={})


def sweep_picture(table: Mapping[str, Any]) -> Spec:
    """Held-out loss by batch size, from a sweep's table (docs/sweep.md).

    A line for each optimizer and recipe goes through the best learning rate of each batch size. The rates of the
    scaling rule and all others are drawn beside it; diverged configurations are crosses at the upper edge.
    """
    best = {(one["optimizer"], one["batch"], one["recipe"]): one["multiplier"] for one in table["tuned"]}
    configurations = [_sweep_row(config, best) for config in table["configurations"] if config["batch_size"]]
    groups = list(dict.fromkeys((row["optimizer"], row["recipe"]) for row in configurations))
    optimizers, recipes = (list(dict.fromkeys(names)) for names in zip(*groups, strict=True))
    colours = [SERIES[optimizers.index(optimizer) % len(SERIES)] for optimizer, _ in groups]
    dashes: list[Sequence[float]] = [_DASHES[recipes.index(recipe) % len(_DASHES)] for _, recipe in groups]
    names = [optimizer + ("" if recipe == "sqrt" else f", {Path(recipe).stem}") for optimizer, recipe in groups]
    for row in configurations:
        row["group"] = groups.index((row["optimizer"], row["recipe"]))
    lines_of_rule = {row["group"] for row in configurations if row["is_rule"] and not row["is_best"]}
    sizes = sorted({row["batch_size"] for row in configurations})
    x: Spec = {
        "field": "batch_size", "type": "quantitative", "title": "batch size of the first phase, sequences",
        "scale": {"type": "log", "base": 2, "nice": False, "padding": 20},
        "axis": {"values": sizes, "format": ",~g", **_ALL_LABELS},
    }  # fmt: skip
    y: Spec = {
        "field": "loss", "type": "quantitative", "scale": {"zero": False, "padding": 10},
        "title": "held-out loss, nats per masked token; bars: 95 % confidence interval over seeds",
    }  # fmt: skip
    numbers = list(range(len(groups)))
    colour = {"field": "group", "type": "nominal", "legend": None, "scale": {"domain": numbers, "range": colours}}
    dash = {"field": "group", "type": "nominal", "legend": None, "scale": {"domain": numbers, "range": dashes}}

    def layer(rows: list[Spec], mark: Spec, **channels: Any) -> Spec:
        return {"data": {"values": rows}, "mark": mark, "encoding": {"x": x, "y": y, "color": colour, **channels}}

    drawn = [row for row in configurations if row["loss"] is not None]
    chosen = [row for row in drawn if row["is_best"]]
    rule = [row for row in drawn if row["is_rule"] and row["group"] in lines_of_rule]
    others = [row for row in drawn if not row["is_best"] and not row["is_rule"]]
    layers = [
        layer(rule, {"type": "line", "strokeDash": _RULE_DASH, "strokeWidth": 1.2, "point": {"size": 12}}),
        layer(others, {"type": "point", "size": 30, "strokeWidth": 1.2, "opacity": 1}),
        layer(chosen, {"type": "line", "strokeWidth": 2.5}, strokeDash=dash),
        layer(chosen, {"type": "point", "filled": True, "size": 45, "opacity": 1}),
        layer(chosen, {"type": "errorbar", "ticks": {"size": 8}}, y={**y, "field": "low"}, y2={"field": "high"}),
        layer([row for row in configurations if row["diverged"]],
              {"type": "point", "shape": "cross", "angle": 45, "size": 90, "filled": True, "opacity": 1},
              y={"value": 0}),
    ]  # fmt: skip
    entries = [LegendEntry(name, colours[number], dash=dashes[number]) for number, name in enumerate(names)]
    if best:
        entries.append(LegendEntry("at the rule's rate", MUTED, "stroke", dash=(3, 2)))
        entries.append(LegendEntry("at other rates", MUTED, hollow=True))
    layers.append(legend_layer(entries, columns=6, symbolSize=70))
    return standing(_layered(layers), title="Loss by batch size")


def _sweep_row(config: Mapping[str, Any], best: Mapping[tuple[str, str, str], float]) -> Spec:
    mean, half = config["loss"]["mean"], config["loss"]["half_interval"] or 0.0
    multiplier = config["multiplier"]
    return {
        "optimizer": config["optimizer"], "recipe": config["recipe"], "batch_size": int(config["batch_size"]),
        "loss": mean, "low": None if mean is None else mean - half, "high": None if mean is None else mean + half,
        "is_best": best.get((config["optimizer"], config["batch"], config["recipe"]), multiplier) == multiplier,
        "is_rule": math.isclose(multiplier, 1.0), "diverged": bool(config["diverged"]),
    }  # fmt: skip


def loss_curves(curves: Mapping[str, Sequence[Sequence[float]]], *, y: str) -> Spec:
    """A line through the points (step, loss) of each name, for page.js."""
    rows = [{"of": name, "step": step, "loss": loss} for name, points in curves.items() for step, loss in points]
    colours = [SERIES[index % len(SERIES)] for index in range(len(curves))]
    legend = {"legend": {"orient": "top", "title": None}} if len(curves) > 1 else {"legend": None}
    return {
        "width": "$width", "height": "$height", "autosize": {"type": "fit", "contains": "padding"}, "padding": 4,
        "description": f"{y} by step", "data": {"values": rows},
        "mark": {"type": "line", "strokeWidth": 1.5, "point": len(rows) == len(curves)},
        "encoding": {
            "x": {"field": "step", "type": "quantitative", "title": "step", "axis": {"format": ",d", "grid": False}},
            "y": {"field": "loss", "type": "quantitative", "title": y, "scale": {"zero": False}},
            "color": {"field": "of", "type": "nominal", "scale": {"domain": [*curves], "range": colours}, **legend},
        },
        "config": {**CONFIG, "legend": {**CONFIG["legend"], "offset": 28}},
    }  # fmt: skip


def histogram(counts: Sequence[Sequence[int]], *, x: str, y: str) -> Spec:
    """Bars for (lower edge, count) pairs, for page.js; a bin ends where the next one begins."""
    rows = [{"bin": index, "count": int(count)} for index, (_, count) in enumerate(counts)]
    edges = json.dumps([f"{int(edge):,}" for edge, _ in counts])
    return {
        "width": "$width", "height": "$height", "autosize": {"type": "fit", "contains": "padding"}, "padding": 4,
        "description": f"{y} by {x}", "data": {"values": rows}, "mark": {"type": "bar", "color": SERIES[0]},
        "encoding": {
            "x": {"field": "bin", "type": "ordinal", "title": x, "scale": {"paddingInner": 0.14}, "axis": {
                "labelAngle": 0, "labelExpr": f"{edges}[datum.value]", "ticks": False, **_ALL_LABELS,
                "values": list(range(0, len(rows), 1 + len(rows) // 9))}},
            "y": {"field": "count", "type": "quantitative", "title": y, "axis": {"format": ",d"}},
        },
        "config": CONFIG,
    }  # fmt: skip


def _layered(layers: Sequence[Spec]) -> Spec:
    """Layers whose legends do not merge; there is room for the title of the y axis below the legend."""
    return {
        "layer": list(layers),
        "resolve": {"scale": dict.fromkeys(("color", "fill", "stroke", "shape", "strokeDash"), "independent")},
        "config": {"legend": {**CONFIG["legend"], "offset": 28}},
    }
