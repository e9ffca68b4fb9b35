"""What the page's charts look like, in Vega-Lite's words.

A specification has blanks: texts that begin with "$" and that page.js fills in before Vega-Lite sees it, with what
the reader has chosen ("$x" is the column of the x axis) or with a table ("$table:steps"). Nothing that a run says
of itself stands in a specification: names and texts are in the tables, as data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lambert.report.palette import FONT_STACK, PALETTE

Spec = dict[str, Any]

# Colours are variables of the page's style sheet, which knows light, dark and paper.
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
        "titleFontWeight": "normal", "orient": "top", "symbolType": "square", "labelLimit": 300, "offset": 26,
    },
}  # fmt: skip

X: Spec = {
    "field": "$x", "type": "quantitative", "title": "$x_title", "scale": "$x_scale", "axis": {"format": "$x_format"},
}  # fmt: skip
_IN_SIGHT: list[Spec] = [
    {"filter": {"not": {"field": "run", "oneOf": "$hidden"}}},
    {"filter": {"field": "$x", "gte": "$from"}},
]
_NAMED: Spec = {
    "lookup": "run",
    "from": {"data": "$table:runs", "key": "run", "fields": ["name", "optimizer", "batch"]},
}
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


def curve(
    name: str, column: str, y_title: str, *,
    smoothed: bool = False, band: bool = False, evaluated: bool = False, marked: bool = False, phased: bool = False,
    reference: float | None = None, beside: str = "", y_format: str = "~g",
) -> Spec:  # fmt: skip
    """A line for every run by what the reader counts on the x axis.

    Args:
        name: of the chart; its y scale is the blank "$y:name".
        column: of the table of steps.
        smoothed: the column is there once for each level of smoothing.
        band: show lowest and highest behind the line, and the values without smoothing.
        evaluated: the table of evaluations has the same column, drawn as dots.
        marked: show what befell the runs at the top.
        phased: mark where phases begin.
        reference: a level to compare with, drawn as a dashed line.
        beside: another column of the table of steps, drawn wide and pale.
    """
    field = f"$smooth:{column}" if smoothed else column
    layers: list[Spec] = _phases() if phased else []
    if band:
        layers += [
            _of_steps(name, f"{column}_low", {"type": "area", "opacity": 0.2}, {"y2": {"field": f"{column}_high"}}),
            _of_steps(name, f"{column}_0", {"type": "line", "opacity": 0.35, "strokeWidth": 0.8}),
        ]
    if reference is not None:
        y = {"datum": reference, "type": "quantitative", "scale": f"$y:{name}"}
        layers.append({
            "data": {"values": [{}]},
            "mark": {"type": "rule", "strokeDash": [5, 3], "stroke": MUTED, "strokeWidth": 1.5},
            "encoding": {"y": y},
        })  # fmt: skip
    if beside:
        layers.append(_of_steps(name, beside, {"type": "line", "strokeWidth": 8, "opacity": 0.3}))
    line = _of_steps(name, field, {"type": "line", "strokeWidth": 2, "strokeJoin": "round"})
    line["params"] = [_ZOOM]
    line["encoding"]["strokeDash"] = {"field": "$dash", "type": "nominal", "legend": None, "scale": "$dashes"}
    layers.append(line)
    if evaluated:
        layers.append(_dots(name, column, y_title, y_format))
    if marked:
        layers.append(_marks())
    layers.append(_hover(name, field, y_title, y_format))
    for layer in layers:  # Vega-Lite joins the titles of different layers, unless they are the same
        if "scale" in layer["encoding"].get("y", {}):
            layer["encoding"]["y"] |= {"title": y_title, "axis": {"format": y_format}}
    return chart(layers, y_title)


def chart(layers: Sequence[Spec], description: str) -> Spec:
    """Layers on top of each other, as wide as the page allows."""
    return {
        "width": "$width", "height": "$height", "autosize": {"type": "fit", "contains": "padding"},
        "description": description, "layer": list(layers),
        "resolve": {"scale": {"color": "independent"}}, "config": "$config", "padding": {"top": 26, "right": 6},
    }  # fmt: skip


def tables_of(drawn: Any) -> list[str]:
    """The tables that a specification names, each once, in order."""
    if isinstance(drawn, str):
        return [drawn.split(":")[1]] if drawn.startswith("$table:") else []
    inside = drawn.values() if isinstance(drawn, dict) else drawn if isinstance(drawn, list) else ()
    return list(dict.fromkeys(name for part in inside for name in tables_of(part)))


def stack(name: str, columns: Sequence[str], run: int, y_title: str, *, phased: bool) -> Spec:
    """Areas on top of each other, one for each column of one run."""
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
            "y": {"field": "seconds", "type": "quantitative", "stack": "zero", "title": y_title, "scale": f"$y:{name}"},
            "color": {
                "field": "part", "type": "nominal", "title": None, "sort": None,
                "scale": {"domain": list(columns), "range": list(SERIES[: len(columns)])},
                "legend": {"labelExpr": "replace(datum.label, 'seconds_of_', '')"},
            },
            "order": {"field": "part"},
        },
        "params": [_ZOOM],
    }  # fmt: skip
    return chart([layer, *(_phases() if phased else [])], y_title)


def noise(name: str, table: str, *, phased: bool) -> Spec:
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
        *(_phases() if phased else []),
        {**data, "mark": {"type": "area", "opacity": 0.2, "clip": True, "color": SERIES[0]},
         "encoding": {"x": X, "y": {**y, "field": "low"}, "y2": {"field": "high"}}},
        {**data, "mark": {"type": "line", "color": MUTED, "strokeDash": [5, 3], "clip": True, "interpolate": "step"},
         "encoding": {"x": X, "y": {**y, "field": "batch"}}},
        {**data, "params": [_ZOOM], "mark": {"type": "line", "strokeWidth": 2, "color": SERIES[0], "clip": True},
         "encoding": {"x": X, "y": {**y, "field": "noise_scale"}}},
        {**data, "params": [_nearest("at_noise")], "mark": _hidden_point(),
         "encoding": {"x": X, "y": {**y, "field": "noise_scale"}, "tooltip": tooltip, "opacity": _if_near("at_noise")}},
    ]  # fmt: skip
    return chart(layers, "gradient noise scale in sequences")


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
    return chart([layer], "trust ratio by layer and optimizer step")


def _of_steps(name: str, field: str, mark: Spec, more: Spec | None = None) -> Spec:
    y = {"field": field, "type": "quantitative", "scale": f"$y:{name}"}
    encoding = {"x": X, "y": y, "color": _COLOUR, "detail": {"field": "run"}, **(more or {})}
    return {
        "data": "$table:steps", "transform": [*_IN_SIGHT, _NAMED], "mark": {"clip": True, **mark}, "encoding": encoding,
    }  # fmt: skip


def _dots(name: str, column: str, y_title: str, y_format: str) -> Spec:
    colour = {**_COLOUR, "scale": {"domain": "$domain", "range": "$dot_range"}}
    return {
        "data": "$table:evaluations", "transform": [*_IN_SIGHT, _NAMED],
        "mark": {"type": "point", "filled": True, "opacity": 1, "size": "$dot_size", "stroke": PAPER, "strokeWidth": 1,
                 "clip": True},
        "encoding": {
            "x": X, "y": {"field": column, "type": "quantitative", "scale": f"$y:{name}"},
            "color": colour, "tooltip": _tooltip(column, f"held-out, {y_title}", y_format),
        },
    }  # fmt: skip


def _hover(name: str, field: str, y_title: str, y_format: str) -> Spec:
    """Shows the point of the line that is nearest to the pointer, with its figures."""
    layer = _of_steps(name, field, _hidden_point())
    layer["params"] = [_nearest("near")]
    layer["encoding"] |= {"opacity": _if_near("near"), "tooltip": _tooltip(field, y_title, y_format)}
    return layer


def _tooltip(field: str, title: str, number_format: str) -> list[Spec]:
    number_format = number_format.replace("~g", ".4~g").replace("~s", ".3~s").replace(".0%", ".1%")
    return [
        {"field": "name", "title": "run"}, {"field": "step", "title": "step", "format": ",.0f"},
        {"field": field, "title": title, "format": number_format},
    ]  # fmt: skip


def _nearest(name: str) -> Spec:
    return {"name": name, "select": {"type": "point", "on": "pointermove", "nearest": True, "clear": "pointerout"}}


def _if_near(name: str) -> Spec:
    return {"condition": {"param": name, "empty": False, "value": 1}, "value": 0}


def _hidden_point() -> Spec:
    return {"type": "point", "filled": True, "size": 70, "aria": False, "clip": True}


def _phases() -> list[Spec]:
    """Lines where phases begin and, above the plot, what they are: the last one's label ends at the right end."""
    mark: Spec = {
        "type": "text",
        "baseline": "bottom",
        "fontSize": 12,
        "fill": INK,
        "y": -5,
        "aria": False,
        "clip": False,
    }
    text: Spec = {"text": {"field": "label"}}
    in_sight = {"filter": {"field": "$x", "gte": "$from"}}
    return [
        {
            "data": "$table:phases", "transform": [{"filter": {"field": "place", "gt": 0}}, in_sight],
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


def _marks() -> Spec:
    kinds = {
        "spike": "triangle-down", "skipped": "cross", "rollback": "triangle-left", "micro-batch": "square",
        "resumed": "triangle-right", "damaged": "diamond",
    }  # fmt: skip
    return {
        "data": "$table:marks", "transform": [*_IN_SIGHT, _NAMED],
        "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1, "clip": True},
        "encoding": {
            "x": X, "y": {"value": 7}, "color": {"value": SERIES[5]},
            "shape": {"field": "kind", "type": "nominal", "legend": None,
                      "scale": {"domain": list(kinds), "range": list(kinds.values())}},
            "tooltip": [{"field": "name", "title": "run"}, {"field": "step", "title": "step", "format": ",.0f"},
                        {"field": "what", "title": "what"}],
        },
    }  # fmt: skip
