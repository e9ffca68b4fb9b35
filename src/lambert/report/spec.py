"""The charts as Vega-Lite specifications with placeholders.

A placeholder is a string that begins with "$". page.js, or `fill` for a picture, replaces it before Vega-Lite sees the
specification: "$x" by the chosen column of the x axis, "$table:steps" by a table. No text that a run contains stands
in a specification; names and texts are in the tables, as data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lambert.report.style import FONT_STACK, PALETTE

Spec = dict[str, Any]

# Colours are variables of the page's style sheet, which has light, dark and print sets.
INK, MUTED, GRID, RULE, PAPER = (f"var(--{role})" for role in ("ink", "muted", "grid", "rule", "paper"))
SERIES = tuple(f"var(--{role})" for role in PALETTE if role.startswith("series"))

CONFIG: Spec = {
    "font": FONT_STACK,
    "background": None,
    "view": {"stroke": None},
    "axis": {
        "labelColor": MUTED, "titleColor": MUTED, "gridColor": GRID, "domainColor": RULE, "tickColor": RULE,
        "labelFontSize": 12, "titleFontSize": 12.5, "titleFontWeight": "normal", "labelPadding": 6, "titlePadding": 8,
        "labelOverlap": True, "labelLimit": 260,
    },
    "axisX": {"grid": False, "tickCount": {"expr": "max(3, width / 120)"}},
    "axisY": {
        "domain": False, "ticks": False, "titleAngle": 0, "titleAlign": "left", "titleAnchor": "end",
        "titleBaseline": "bottom", "titleX": 0, "titleY": -10, "tickCount": 5,
    },
    "legend": {
        "labelColor": MUTED, "titleColor": MUTED, "labelFontSize": 12.5, "titleFontSize": 12.5,
        "titleFontWeight": "normal", "orient": "top", "symbolType": "square", "labelLimit": 300,
    },
}  # fmt: skip

X: Spec = {
    "field": "$x", "type": "quantitative", "title": "$x_title", "scale": "$x_scale", "axis": {"format": "$x_format"},
}  # fmt: skip
_SHOWN: Spec = {"filter": {"not": {"field": "run", "oneOf": "$hidden"}}}
_IN_SIGHT: list[Spec] = [_SHOWN, {"filter": {"field": "$x", "gte": "$from"}}]
_NAMED: Spec = {
    "lookup": "run",
    "from": {"data": "$table:runs", "key": "run", "fields": ["name", "optimizer", "batch"]},
}
_POINT: list[Spec] = [{"field": "name", "title": "run"}, {"field": "step", "title": "step", "format": ",.0f"}]
"""Where a tooltip begins."""
_COLOUR: Spec = {
    "field": "$colour", "type": "nominal", "legend": None, "scale": {"domain": "$domain", "range": "$range"},
}  # fmt: skip
_ZOOM: Spec = {
    "name": "zoom",
    "bind": "scales",
    "select": {
        "type": "interval", "encodings": ["x"], "zoom": "wheel![event.ctrlKey || event.shiftKey]",
        "translate": "[pointerdown[event.pointerType != 'touch'], window:pointerup] > window:pointermove!",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """A chart of one metric over all runs. `charts` switches off the options that there is no data for."""

    name: str
    """Unique on the page; the chart's y scale is the placeholder "$y:name"."""
    column: str
    """Of the table of steps."""
    title: str
    y_title: str
    caption: str
    mask_unit: str = ""
    """`y_title` where training is measured at [MASK] tokens alone, as in evaluations."""
    smoothed: bool = True
    """The column is there once for each level of smoothing."""
    band: bool = False
    """Lowest and highest values behind the line, and the values without smoothing."""
    evaluated: bool = False
    """The table of evaluations has the same column, drawn as dots."""
    incidents: bool = False
    """Incidents of the runs, as symbols at the top."""
    beside: str = ""
    """Another column of the table of steps, drawn wide and pale."""
    beside_caption: str = ""
    baseline: str = ""
    """A column of the table of baselines, drawn as a dashed line over each phase."""
    baseline_caption: str = ""
    perplexity: bool = False
    """A loss in nats; tooltips give its exponential, too."""
    from_zero: bool = False
    y_format: str = "~r"
    tall: bool = False


def lines(curve: Curve, *, phases: int, dotted: bool) -> Spec:
    """A line for every run over the chosen x axis.

    Args:
        phases: how many to mark.
        dotted: show each point too, since a line of one point cannot be seen.
    """
    field = f"$smooth:{curve.column}" if curve.smoothed else curve.column
    y: Spec = {
        "type": "quantitative", "scale": f"$y:{curve.name}", "title": curve.y_title, "axis": {"format": curve.y_format},
    }  # fmt: skip
    layers = _phases(phases)
    if curve.band:
        band = _of_steps(y, f"{curve.column}_low", {"type": "area", "opacity": 0.2})
        band["encoding"] |= {"y2": {"field": f"{curve.column}_high"}}
        layers += [band, _of_steps(y, f"{curve.column}_0", {"type": "line", "opacity": 0.35, "strokeWidth": 0.8})]
    if curve.baseline:
        layers.append(_baseline(y, curve))
    if curve.beside:
        layers.append(_of_steps(y, curve.beside, {"type": "line", "strokeWidth": 8, "opacity": 0.3}))
    line = _of_steps(y, field, {"type": "line", "strokeWidth": "$line", "strokeJoin": "round"})
    line["params"] = [_ZOOM]
    line["mark"] |= {"point": {"size": 30}} if dotted else {}
    line["encoding"] |= {
        "color": {**_COLOUR, "legend": "$legend"},
        "strokeDash": {"field": "$dash", "type": "nominal", "legend": None, "scale": "$dashes"},
    }
    layers.append(line)
    if curve.evaluated:
        layers.append(_dots(curve, y))
    if curve.incidents:
        layers.append(_incidents())
    near = _of_steps(y, field, _hidden_point())
    near["encoding"] |= {"tooltip": [*_POINT]}
    near = _with_value(near, curve, field, curve.y_title, f"$perplexity:{curve.column}")
    return chart([*layers, near], f"{curve.title}, {curve.y_title}", phases=phases)


def chart(layers: Sequence[Spec], description: str, *, phases: int = 0) -> Spec:
    """Layers on top of each other, as wide as the page allows; the labels of phases have a line above the plot."""
    line = 16 if phases else 0
    return {
        "width": "$width", "height": "$height", "autosize": {"type": "fit", "contains": "padding"},
        "padding": {"top": 4, "right": 6}, "description": description, "layer": list(layers),
        "resolve": {"scale": {"color": "independent"}},
        "config": {
            **CONFIG, "axisY": {**CONFIG["axisY"], "titleY": -10 - line},
            "legend": {**CONFIG["legend"], "offset": 28 + line},
        },
    }  # fmt: skip


def tables_of(drawn: Any) -> list[str]:
    """The tables that a specification uses, each once, in order."""
    if isinstance(drawn, str):
        return [drawn.split(":")[1]] if drawn.startswith("$table:") else []
    inside = drawn.values() if isinstance(drawn, dict) else drawn if isinstance(drawn, list) else ()
    return list(dict.fromkeys(name for part in inside for name in tables_of(part)))


def fill(node: Any, values: Mapping[str, Any]) -> Any:
    """The specification with a value in place of every placeholder, as page.js does it."""
    if isinstance(node, str):
        return values[node] if node.startswith("$") else node
    if isinstance(node, Mapping):
        return {key: fill(value, values) for key, value in node.items()}
    return [fill(item, values) for item in node] if isinstance(node, (list, tuple)) else node


def stack(name: str, columns: Sequence[str], run: int, *, phases: int) -> Spec:
    """The parts of the step time of one run as stacked areas, one for each column."""
    layer: Spec = {
        "data": "$table:steps",
        "transform": [
            {"filter": {"field": "run", "equal": run}},
            {"filter": {"field": "$x", "gte": "$from"}},
            {"fold": list(columns), "as": ["part", "seconds"]},
        ],
        "mark": {"type": "area", "clip": True},
        "encoding": {
            "x": X,
            "y": {"field": "seconds", "type": "quantitative", "stack": "zero", "title": "seconds per step",
                  "scale": f"$y:{name}"},
            "color": {
                "field": "part", "type": "nominal", "title": None, "sort": None,
                "scale": {"domain": list(columns), "range": list(SERIES[: len(columns)])},
                "legend": {"labelExpr": "replace(datum.label, '_seconds', '')"},
            },
            "order": {"field": "part"},
        },
        "params": [_ZOOM],
    }  # fmt: skip
    return chart([layer, *(_phases(phases))], "Step time by part, in seconds", phases=phases)


def noise(name: str, table: str, *, phases: int) -> Spec:
    """The noise scale with its uncertainty, and the batch as a dashed line."""
    y = {"type": "quantitative", "scale": f"$y:{name}", "title": "sequences", "axis": {"format": "~s"}}
    data: Spec = {"data": f"$table:{table}", "transform": [{"filter": {"field": "$x", "gte": "$from"}}]}
    tooltip = [
        {"field": "step", "title": "step", "format": ","},
        {"field": "noise_scale", "title": "noise scale", "format": ",.0f"},
        {"field": "low", "title": "two standard errors below", "format": ",.0f"},
        {"field": "high", "title": "and above", "format": ",.0f"},
        {"field": "batch", "title": "batch", "format": ","},
    ]
    layers = [
        *(_phases(phases)),
        {**data, "mark": {"type": "area", "opacity": 0.2, "clip": True, "color": SERIES[0]},
         "encoding": {"x": X, "y": {**y, "field": "low"}, "y2": {"field": "high"}}},
        {**data, "mark": {"type": "line", "color": MUTED, "strokeDash": [5, 3], "clip": True, "interpolate": "step"},
         "encoding": {"x": X, "y": {**y, "field": "batch"}}},
        {**data, "params": [_ZOOM], "mark": {"type": "line", "strokeWidth": 2, "color": SERIES[0], "clip": True},
         "encoding": {"x": X, "y": {**y, "field": "noise_scale"}}},
        {**data, "mark": _hidden_point(), "encoding": {"x": X, "y": {**y, "field": "noise_scale"}, "tooltip": tooltip}},
    ]  # fmt: skip
    return chart(layers, "Gradient noise scale, in sequences", phases=phases)


def heat(cells: str, rows: str, limits: tuple[float, float]) -> Spec:
    """Cells by row and step, coloured on a logarithmic scale between the limits."""
    layer: Spec = {
        "data": f"$table:{cells}",
        "transform": [{"lookup": "row", "from": {"data": f"$table:{rows}", "key": "row", "fields": ["name"]}}],
        "mark": {"type": "rect", "aria": False, "strokeWidth": 0},
        "encoding": {
            "x": {"field": "first", "type": "quantitative", "title": "optimizer step",
                  "scale": {"nice": False, "zero": False}, "axis": {"format": ",d"}},
            "x2": {"field": "last"},
            "y": {"field": "name", "type": "nominal", "title": None, "sort": {"field": "row"},
                  "axis": {"domain": False, "ticks": False, "labelColor": INK, "labelLimit": "$label_limit"}},
            "color": {
                "field": "ratio", "type": "quantitative", "title": "trust ratio, no unit",
                "scale": {"type": "log", "domain": list(limits), "clamp": True, "scheme": "viridis"},
                "legend": {"format": ".2~g", "gradientLength": 240, "offset": 10, "tickCount": 3},
            },
            "tooltip": [
                {"field": "name", "title": "layer"}, {"field": "first", "title": "from step", "format": ",.0f"},
                {"field": "ratio", "title": "trust ratio", "format": ".3~g"},
            ],
        },
    }  # fmt: skip
    return chart([layer], "Trust ratio by layer and optimizer step")


def _of_steps(y: Spec, field: str, mark: Spec) -> Spec:
    """A layer of the table of steps with a mark for every run in sight."""
    return {
        "data": "$table:steps", "transform": [*_IN_SIGHT, _NAMED], "mark": {"clip": True, **mark},
        "encoding": {"x": X, "y": {**y, "field": field}, "color": _COLOUR, "detail": {"field": "run"}},
    }  # fmt: skip


def _baseline(y: Spec, curve: Curve) -> Spec:
    """A dashed line from the start to the end of each phase; "$baseline_start" cuts it to what is in sight."""
    ends = [{"op": "min", "field": "$x", "as": "begin"}, {"op": "max", "field": "$x_stop", "as": "until"}]
    field = curve.baseline
    layer = {
        "data": "$table:baselines",
        "transform": [
            _SHOWN, {"filter": {"field": "$x_stop", "gte": "$from"}}, {"filter": {"field": field, "valid": True}},
            {"aggregate": ends, "groupby": ["line", "phase", field]},
            {"calculate": "$baseline_start", "as": "start"},
        ],
        "mark": {"type": "rule", "strokeDash": [5, 3], "stroke": MUTED, "strokeWidth": 1.5, "clip": True},
        "encoding": {
            "x": {**X, "field": "start"}, "x2": {"field": "until"}, "y": {**y, "field": field},
            "tooltip": [{"field": "phase", "title": "baseline of phase"}],
        },
    }  # fmt: skip
    return _with_value(layer, curve, field, curve.y_title, f"exp(datum.{field})")


def _dots(curve: Curve, y: Spec) -> Spec:
    layer = {
        "data": "$table:evaluations", "transform": [*_IN_SIGHT, _NAMED],
        "mark": {"type": "point", "filled": True, "opacity": 1, "size": "$dot_size", "stroke": PAPER, "strokeWidth": 1,
                 "clip": True},
        "encoding": {
            "x": X, "y": {**y, "field": curve.column},
            "color": {**_COLOUR, "scale": {"domain": "$domain", "range": "$dot_range"}},
            "tooltip": [*_POINT],
        },
    }  # fmt: skip
    return _with_value(layer, curve, curve.column, f"held-out, {curve.y_title}", f"exp(datum.{curve.column})")


def _with_value(layer: Spec, curve: Curve, field: str, title: str, exponential: str) -> Spec:
    """The layer; its tooltip gets the value with more digits than the axis and, of a loss, the exponential."""
    shape = curve.y_format.replace("~r", ".4~g").replace("~s", ".3~s").replace(".0%", ".1%")
    layer["encoding"]["tooltip"].append({"field": field, "title": title, "format": shape})
    if curve.perplexity:
        layer["transform"].append({"calculate": exponential, "as": "perplexity"})
        layer["encoding"]["tooltip"].append({"field": "perplexity", "title": "perplexity", "format": ",.4~g"})
    return layer


def _hidden_point() -> Spec:
    """A target for the pointer on and near a line; it shows the tooltip."""
    return {"type": "point", "filled": True, "size": 150, "opacity": 0, "aria": False, "clip": True}


def _phases(count: int) -> list[Spec]:
    """Lines where phases begin and, above the plot, their labels; the last label ends at the right edge."""
    mark: Spec = {
        "type": "text", "baseline": "bottom", "fontSize": 12, "fill": INK, "y": -5, "aria": False, "clip": False
    }  # fmt: skip
    text: Spec = {"text": {"field": "label"}}
    if count <= 1:  # of a whole run; a layer whose rows are all out of sight would make Vega complain
        return [{"data": "$table:phases", "mark": {**mark, "align": "left", "x": 0}, "encoding": text}] * count
    in_sight = {"filter": {"field": "$x", "gte": "$from"}}
    return [
        {
            "data": "$table:phases", "transform": [{"filter": {"field": "index", "gt": 0}}, in_sight],
            "mark": {"type": "rule", "stroke": RULE, "strokeWidth": 1.2, "aria": False, "clip": True},
            "encoding": {"x": X},
        },
        {
            "data": "$table:phases", "transform": [{"filter": {"field": "last", "equal": False}}, in_sight],
            "mark": {**mark, "align": "left"}, "encoding": {"x": X, **text},
        },
        {
            "data": "$table:phases", "transform": [{"filter": {"field": "last", "equal": True}}],
            "mark": {**mark, "align": "right", "x": "width"}, "encoding": text,
        },
    ]  # fmt: skip


def _incidents() -> Spec:
    kinds = {
        "spike": "triangle-down", "skipped": "cross", "rollback": "triangle-left", "micro-batch": "square",
        "resumed": "triangle-right", "damaged": "diamond",
    }  # fmt: skip
    return {
        "data": "$table:incidents", "transform": [*_IN_SIGHT, _NAMED],
        "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1, "clip": True},
        "encoding": {
            "x": X, "y": {"value": 7}, "color": {"value": SERIES[5]},
            "shape": {"field": "kind", "type": "nominal", "legend": None,
                      "scale": {"domain": list(kinds), "range": list(kinds.values())}},
            "tooltip": [*_POINT, {"field": "what", "title": "what"}],
        },
    }  # fmt: skip
