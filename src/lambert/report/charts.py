"""The charts of a page: for each a title, a caption, a placeholder element, and the data that page.js draws from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

import numpy as np

from lambert.report import columns, spec, trust
from lambert.report.columns import Floats
from lambert.report.comparison import Legend
from lambert.report.spec import Curve
from lambert.runlog.reader import Run
from lambert.runlog.schema import STEP_PARTS
from lambert.utils import formatting

CURVES = (
    Curve(
        "loss", "mlm_loss", "MLM loss", "nats per masked token", "Lower is better. Perplexity is its exponential.",
        mask_unit="nats per [MASK] token", band=True, evaluated=True, incidents=True, tall=True, perplexity=True,
        baseline="unigram_loss", baseline_caption=" Dashed: the unigram baseline.",
    ),
    Curve(
        "accuracy", "mlm_accuracy", "MLM accuracy", "fraction of masked tokens", "Higher is better.",
        mask_unit="fraction of [MASK] tokens",
        evaluated=True, from_zero=True, y_format=".0%", baseline="unigram_accuracy",
        baseline_caption=" Dashed: always predicting the most frequent token.",
    ),
    Curve(
        "next-sentence", "nsp_accuracy", "NSP accuracy", "fraction of sentence pairs",
        "Does the second sentence follow the first?", evaluated=True, y_format=".0%",
        baseline="nsp_majority_accuracy", baseline_caption=" Dashed: the majority class.",
    ),
    Curve(
        "learning-rate", "learning_rate", "Learning rate", "learning rate", "The rate used in each step.",
        smoothed=False, from_zero=True, beside="recipe_rate", beside_caption=" Wide and pale: the recipe's schedule.",
    ),
    Curve(
        "gradient-norm", "gradient_norm", "Gradient norm", "L2 norm, before clipping",
        "Of the whole gradient of the global batch.", band=True, from_zero=True,
    ),
    Curve(
        "tokens-per-second", "tokens_per_second", "Throughput", "tokens / s",
        "All ranks together; real tokens only, padding is not counted.", from_zero=True, y_format="~s",
    ),
    Curve(
        "mfu", "mfu", "MFU (model FLOPs utilization)", "fraction of matmul throughput",
        "Forward and backward FLOPs over real tokens, relative to the throughput of large matmuls in the same"
        " precision, measured before training.", from_zero=True, y_format=".0%",
    ),
)  # fmt: skip
"""In reading order; one without data is left out."""
_SAME_TOKENS = " Training and evaluation both count [MASK] tokens only."
_OTHER_TOKENS = (
    " Not the same tokens: evaluation replaces every masked token by [MASK]; training keeps a tenth of them, which is"
    " easier, and gives a tenth a random one."
)
_TALL, _SMALL = 380, 260
_AXES = {
    "step": ("steps", "optimizer step", ",d"),
    "samples": ("samples", "sequences seen", "~s"),
    "tokens": ("tokens", "tokens seen, padding not counted", "~s"),
    "hours": ("hours", "hours of training", "~r"),
}
_RANGES = {"1": "all steps", "0.5": "last half", "0.25": "last quarter", "0.1": "last tenth"}
_FEW_STEPS = 30
_SMOOTHING = 1  # the level a page opens with


@dataclass
class Board:
    """The charts of one page, in the order they are added."""

    runs: Sequence[Run]
    legend: Legend
    charts: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    logs: list[str] = field(default_factory=list)

    at_mask: bool = False
    """Training loss and accuracy are drawn at [MASK] tokens alone: if the journals of all runs have them."""

    def __post_init__(self) -> None:
        found = [columns.at_mask_tokens(run) for run in self.runs]
        self.at_mask = None not in found
        self.runs = [run for run in found if run is not None] if self.at_mask else self.runs
        self.tables = {
            "steps": {"columns": columns.steps_table(self.runs)},
            "evaluations": {"columns": columns.evaluations_table(self.runs)},
            "incidents": {"rows": columns.incident_rows(self.runs)},
            "phases": {"rows": columns.phase_rows(self.runs)},
            "baselines": {"rows": columns.baseline_rows(self.runs)},
            "runs": {"rows": self.legend.rows()},
        }

    def curves(self) -> str:
        """The charts that all runs share, the loss first."""
        drawn = [self.curve(curve) for curve in CURVES]
        return f'{drawn[0]}<div class="pair">{"".join(drawn[1:])}</div>'

    def of_one_run(self, index: int) -> str:
        """The charts of a single run: gradient noise, step time by part, trust ratios."""
        return self._noise(index) + self._parts(index) + self._trust(index)

    def controls(self) -> str:
        """The choices for all charts at once; page.js shows them."""
        known = [name for name in columns.AXES if self._most(name) > 0]
        parts = [_select("axis", "x axis", {name: _AXES[name][0] for name in known}, self._axis)]
        if any(max(columns.windows(len(run.steps))) > 1 for run in self.runs):
            parts.append(
                f'<label>Smoothing <input type="range" min="0" max="{len(columns.LEVELS) - 1}" value="{_SMOOTHING}"'
                f' data-control="smoothing" autocomplete="off"><output>{columns.LEVELS[_SMOOTHING]}</output></label>'
            )
        parts.append(_select("range", "Show", _RANGES, "1"))
        if len(self.legend.choices) > 1:
            parts.append(_select("colour", "Colour by", self.legend.choices, self.legend.chosen))
        parts.append(_log_switch("x", "log x", on=False))
        hint = "Drag a chart to move it, Ctrl or Shift and the wheel to zoom, double-click for all of it."
        return (
            f'<div class="controls needs-script" role="group" aria-label="All charts" hidden>{"".join(parts)}'
            f'<p class="note mouse">{hint}</p></div>'
            '<noscript><p class="notice">The charts need JavaScript. The tables show the metrics without it.</p>'
            "</noscript>"
        )

    def data(self) -> dict[str, Any]:
        """Everything page.js needs."""
        axes = {
            name: {"title": title, "format": shape, "most": self._most(name)}
            for name, (_, title, shape) in _AXES.items()
            if self._most(name) > 0
        }
        return {
            "charts": self.charts, "tables": self.tables, "axes": axes, "levels": columns.LEVELS,
            "smoothing": _SMOOTHING, "axis": self._axis, "logs": self.logs, "runs": len(self.runs),
            "colour": self.legend.chosen, "colours": self.legend.colours(),
        }  # fmt: skip

    def curve(self, curve: Curve) -> str:
        """One curve over all runs; "" where there is no data for it."""
        series = [run.series[curve.column] for run in self.runs]
        if not any(np.isfinite(values).any() for values in series):
            return ""
        measured = [np.array([getattr(e, curve.column) for e in r.evaluations]) for r in self.runs if curve.evaluated]
        levels = [row[curve.baseline] for row in self.tables["baselines"]["rows"] if curve.baseline]
        references = [level for level in levels if level is not None]
        curve = replace(
            curve,
            evaluated=any(np.isfinite(values).any() for values in measured),
            band=curve.band and len(self.runs) <= columns.MOST_WITH_BANDS,
            incidents=curve.incidents and bool(self.tables["incidents"]["rows"]),
            beside=curve.beside if curve.beside in self.tables["steps"]["columns"] else "",
            baseline=curve.baseline if references else "",
        )
        at_mask = self.at_mask and bool(curve.mask_unit)
        curve = replace(curve, y_title=curve.mask_unit if at_mask else curve.y_title)
        caption = curve.caption + " Dots: held-out evaluations." * curve.evaluated
        caption += curve.baseline_caption * bool(curve.baseline) + curve.beside_caption * bool(curve.beside)
        if curve.mask_unit and curve.evaluated:
            caption += _SAME_TOKENS if at_mask else _OTHER_TOKENS
        if curve.tall and self._phases > columns.FEW_PHASES:
            caption += " Above: sequence length × batch size of each phase, in tokens and sequences."
        caption += " At the top: incidents, listed below." * curve.incidents
        if not curve.smoothed:  # it is planned, so no peak is a rare spike to cut off
            references.append(float(np.nanmax(np.concatenate(series))))
        scales = _scales([*series, *measured], references, from_zero=curve.from_zero)
        dotted = max(len(run.steps) for run in self.runs) <= _FEW_STEPS
        drawn = spec.lines(curve, phases=self._phases, dotted=dotted)
        self._add(curve.name, drawn, scales, _TALL if curve.tall else _SMALL)
        return _figure(curve.name, curve.title, caption, log=True)

    def _noise(self, index: int) -> str:
        run, name = self.runs[index], f"noise-{index}"
        measured = np.array([noise.noise_scale for noise in run.noise])
        if not np.isfinite(measured).any():
            return ""
        batches = [float(noise.large_batch) for noise in run.noise]
        self.tables[name] = {"columns": columns.noise_table(run)}
        self.logs.append(name)
        self._add(
            name, spec.noise(name, name, phases=self._phases), _scales([measured], batches, from_zero=True), _TALL
        )
        return _figure(
            name, "Gradient noise scale and critical batch size", self._noise_caption(run), log=True, logged=True
        )

    def _noise_caption(self, run: Run) -> str:
        lasts = [last for phase in run.phases if (last := run.last_noise(phase.number)) is not None]
        known = [
            f"phase {last.phase}: {formatting.count(last.noise_scale)} ± {formatting.count(2 * last.standard_error)}"
            f" sequences at a batch of {formatting.count(last.large_batch)}"
            for last in lasts
            if np.isfinite(last.noise_scale)
        ]
        return (
            "Up to about this batch size, the critical one, doubling the batch saves a quarter of the steps or more."
            f" At the end of {'; '.join(known) or 'the run it was not known'} (two standard errors, shaded)."
            " Dashed: the batch size of the run."
        )

    def _parts(self, index: int) -> str:
        run, name = self.runs[index], f"parts-{index}"
        parts = [f"{part}_seconds" for part in STEP_PARTS]
        known = [part for part in parts if np.nanmax(run.series[part], initial=0)]
        if not known:
            return ""
        total = np.sum([np.nan_to_num(run.series[column]) for column in known], axis=0)
        top = 1.3 * float(np.quantile(total, 0.98))  # one slow step would flatten all others
        scale = {"zero": True, "nice": False, "domainMax": top} if total.max() > top else {"zero": True}
        drawn = spec.stack(name, known, index, phases=self._phases)
        self._add(name, drawn, {"linear": scale}, _SMALL)
        return _figure(
            name,
            "Step time breakdown",
            "Means over neighbouring steps. Much slower ones, as the first often is, are cut off at the top.",
            log=False,
        )

    def _trust(self, index: int) -> str:
        run, name = self.runs[index], f"trust-{index}"
        shown = trust.heat_map(run.trust_ratios)
        if shown is None:
            return ""
        caption = "How far each layer's step is scaled: the norm of its weights over the norm of its update."
        if shown.grouped:
            caption += f" Each row is the geometric mean of several layers; {formatting.count(shown.layers)} in all."
        if shown.left_out:
            caption += f" Left out: {formatting.count(shown.left_out)} with ratio 1 throughout (not adapted)."
        self.tables[name] = {"columns": trust.cells(shown)}
        self.tables[f"{name}-rows"] = {"rows": [{"row": row, "name": text} for row, text in enumerate(shown.rows)]}
        height = 90 + (19 if len(shown.rows) <= 32 else 15) * len(shown.rows)
        self._add(name, spec.heat(name, f"{name}-rows", shown.limits), {}, height, fixed=True)
        return _figure(name, "Trust ratios", caption, log=False)

    def _add(self, name: str, drawn: spec.Spec, scales: dict[str, Any], height: int, *, fixed: bool = False) -> None:
        tables = spec.tables_of(drawn)
        self.charts[name] = {"spec": drawn, "tables": tables, "scales": scales, "height": height, "fixed": fixed}

    @property
    def _axis(self) -> str:
        """The first x axis: samples where batch sizes differ, since steps are then not comparable."""
        return "samples" if len(set(self.legend.batches)) > 1 and self._most("samples") > 0 else "step"

    @property
    def _phases(self) -> int:
        return len(self.tables["phases"]["rows"])

    def _most(self, axis: str) -> float:
        ends = [columns.progress(run)[axis][-1] for run in self.runs]
        return float(np.nanmax(ends)) if np.isfinite(ends).any() else 0.0


def _scales(series: list[Floats], references: list[float], *, from_zero: bool) -> dict[str, Any]:
    """The y axis as it is, and on a logarithmic scale."""
    _, high, cut = columns.y_limits(series, references, from_zero=from_zero)
    linear: dict[str, Any] = {"zero": from_zero, "nice": True}
    if cut:
        linear |= {"domainMax": high, "nice": False}
    together = np.concatenate([*series, np.array(references)])
    positive = together[np.isfinite(together) & (together > 0)]
    logarithmic: dict[str, Any] = {"type": "log", "nice": False, "clamp": True}
    if len(positive):
        logarithmic["domainMin"] = float(positive.min())
    return {"linear": linear, "log": logarithmic}


def _figure(name: str, title: str, caption: str, *, log: bool, logged: bool = False) -> str:
    switch = _log_switch(name, "log", on=logged, hidden=True) if log else ""
    return (
        f'<figure><div class="heading"><h3>{escape(title)}</h3>{switch}</div><figcaption>{escape(caption)}</figcaption>'
        f'<div class="chart" data-chart="{name}"></div></figure>'
    )


def _log_switch(name: str, text: str, *, on: bool, hidden: bool = False) -> str:
    classes = ' class="needs-script" hidden' if hidden else ""
    checked = " checked" if on else ""
    return f'<label{classes}><input type="checkbox" data-log="{name}"{checked} autocomplete="off"> {text}</label>'


def _select(control: str, text: str, choices: dict[str, str], chosen: str) -> str:
    options = "".join(
        f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>{escape(name)}</option>'
        for value, name in choices.items()
    )
    return f'<label>{escape(text)} <select data-control="{control}" autocomplete="off">{options}</select></label>'
