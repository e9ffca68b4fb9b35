"""Which charts a page has: each a title, a caption and a place to draw in, and together what page.js draws from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

import numpy as np

from lambert.report import columns, spec, trust
from lambert.report.catalogue import CURVES, Curve
from lambert.report.curves import Floats, y_limits
from lambert.report.legend import Legend
from lambert.runlog.reader import Run
from lambert.runlog.records import STEP_PARTS
from lambert.utils import formatting

_TALL, _SMALL = 380, 260
_AXES = {
    "step": ("steps", "optimizer step", ",d"),
    "samples": ("samples", "sequences seen", "~s"),
    "tokens": ("tokens", "tokens seen, padding not counted", "~s"),
    "hours": ("hours", "hours of training", "~r"),
}
_SHARES = {"1": "all of it", "0.5": "last half", "0.25": "last quarter", "0.1": "last tenth"}
_FEW_STEPS = 30
_SMOOTHING = 1  # the level a page opens with


@dataclass
class Board:
    """The charts of a page as they are put on it."""

    runs: Sequence[Run]
    legend: Legend
    charts: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    logs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tables = {
            "steps": {"columns": columns.steps_table(self.runs)},
            "evaluations": {"columns": columns.evaluations_table(self.runs)},
            "marks": {"rows": columns.marks_rows(self.runs)},
            "phases": {"rows": columns.phase_rows(self.runs)},
            "runs": {"rows": self.legend.rows()},
        }

    def curves(self) -> str:
        """The charts that all runs share, the loss first."""
        drawn = [self._curve(curve) for curve in CURVES]
        return f'{drawn[0]}<div class="pair">{"".join(drawn[1:])}</div>'

    def of_one_run(self, place: int) -> str:
        """The charts that belong to one run: noise, the parts of a step, trust ratios."""
        return self._noise(place) + self._parts(place) + self._trust(place)

    def controls(self) -> str:
        """What the reader can choose for all charts at once; page.js shows it."""
        known = [name for name in columns.AXES if self._most(name) > 0]
        parts = [_select("axis", "x axis", {name: _AXES[name][0] for name in known}, self._axis)]
        if any(max(columns.windows(len(run.steps))) > 1 for run in self.runs):
            parts.append(
                f'<label>Smoothing <input type="range" min="0" max="{len(columns.LEVELS) - 1}" value="{_SMOOTHING}"'
                f' data-control="smoothing" autocomplete="off"><output>{columns.LEVELS[_SMOOTHING]}</output></label>'
            )
        parts.append(_select("share", "Show", _SHARES, "1"))
        if len(self.legend.choices) > 1:
            parts.append(_select("colour", "Colour by", self.legend.choices, self.legend.chosen))
        parts.append(_log_switch("x", "log x", on=False))
        hint = "Drag a chart to move it, Ctrl or Shift and the wheel to zoom, double-click for all of it."
        return (
            f'<div class="controls needs-script" role="group" aria-label="All charts" hidden>{"".join(parts)}'
            f'<p class="note mouse">{hint}</p></div>'
            '<noscript><p class="notice">The charts need JavaScript, which this page brings along; the figures are in'
            " the tables without it.</p></noscript>"
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

    def _curve(self, curve: Curve) -> str:
        series = [run.series[curve.column] for run in self.runs]
        if not any(np.isfinite(values).any() for values in series):
            return ""
        measured = [np.array([getattr(e, curve.column) for e in r.evaluations]) for r in self.runs if curve.evaluated]
        level = self._reference(curve.reference) if curve.reference else None
        curve = replace(
            curve,
            evaluated=any(np.isfinite(values).any() for values in measured),
            band=curve.band and len(self.runs) <= columns.MOST_WITH_BANDS,
            marked=curve.marked and bool(self.tables["marks"]["rows"]),
            beside=curve.beside if curve.beside in self.tables["steps"]["columns"] else "",
        )
        caption = curve.caption + " Dots: held-out text." * curve.evaluated
        caption += curve.reference_caption * (level is not None) + curve.beside_caption * bool(curve.beside)
        caption += " At the top: what befell the run, listed below." * curve.marked
        references = [] if level is None else [level]
        if not curve.smoothed:  # as planned: no peak of it is a rare spike to be cut off
            references.append(float(np.nanmax(np.concatenate(series))))
        scales = _scales([*series, *measured], references, from_zero=curve.from_zero)
        dotted = max(len(run.steps) for run in self.runs) <= _FEW_STEPS
        drawn = spec.lines(curve, level, phased=self._phased, dotted=dotted)
        self._add(curve.name, drawn, scales, _TALL if curve.tall else _SMALL)
        return _figure(curve.name, curve.title, caption, log=True)

    def _noise(self, place: int) -> str:
        run, name = self.runs[place], f"noise-{place}"
        measured = np.array([noise.noise_scale for noise in run.noise])
        if not np.isfinite(measured).any():
            return ""
        batches = [float(noise.large_batch) for noise in run.noise]
        self.tables[name] = {"columns": columns.noise_table(run)}
        self.logs.append(name)
        self._add(
            name, spec.noise(name, name, phased=self._phased), _scales([measured], batches, from_zero=True), _TALL
        )
        return _figure(name, "Gradient noise scale and critical batch", self._noise_words(run), log=True, logged=True)

    def _noise_words(self, run: Run) -> str:
        lasts = [last for phase in run.phases if (last := run.last_noise(phase.number)) is not None]
        told = [
            f"phase {last.phase}: {formatting.count(last.noise_scale)} ± {formatting.count(2 * last.standard_error)}"
            f" sequences at a batch of {formatting.count(last.large_batch)}"
            for last in lasts
            if np.isfinite(last.noise_scale)
        ]
        return (
            "Up to about this batch, the critical one, doubling the batch pays: it saves a quarter of the steps or"
            f" more. At the end of {'; '.join(told) or 'the run it was not known'} (two standard errors, shaded)."
            " Dashed: the batch of the run."
        )

    def _parts(self, place: int) -> str:
        run, name = self.runs[place], f"parts-{place}"
        known = [f"seconds_of_{part}" for part in STEP_PARTS if np.nanmax(run.series[f"seconds_of_{part}"], initial=0)]
        if not known:
            return ""
        total = np.sum([np.nan_to_num(run.series[column]) for column in known], axis=0)
        top = 1.3 * float(np.quantile(total, 0.98))  # one slow step would flatten all others
        scale = {"zero": True, "nice": False, "domainMax": top} if total.max() > top else {"zero": True}
        drawn = spec.stack(name, known, place, "seconds of a step", phased=self._phased)
        self._add(name, drawn, {"linear": scale}, _SMALL)
        return _figure(
            name,
            "Where the time of a step goes",
            "Means over neighbouring steps; one far slower than others, as the first often is, is cut off at the top.",
            log=False,
        )

    def _trust(self, place: int) -> str:
        run, name = self.runs[place], f"trust-{place}"
        shown = trust.heat_map(run.trust_ratios)
        if shown is None:
            return ""
        caption = "How far each layer's step is scaled: the norm of its weights over the norm of its update."
        if shown.grouped:
            caption += f" Each row is the geometric mean over its share of {formatting.count(shown.layers)} layers."
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
        """What the x axes count at first: samples where batches differ, since steps then mean different amounts."""
        return "samples" if len(set(self.legend.batches)) > 1 and self._most("samples") > 0 else "step"

    @property
    def _phased(self) -> bool:
        return bool(self.tables["phases"]["rows"])

    def _reference(self, name: str) -> float | None:
        """A level that all runs share closely enough for one line: the last one known of each."""
        levels = [getattr(run.final, name) for run in self.runs if run.final is not None]
        levels = [level for level in levels if np.isfinite(level)]
        if not levels or max(levels) - min(levels) > 0.02 * max(map(abs, levels)):
            return None
        return float(np.mean(levels))

    def _most(self, axis: str) -> float:
        ends = [columns.progress(run)[axis][-1] for run in self.runs]
        return float(np.nanmax(ends)) if np.isfinite(ends).any() else 0.0


def _scales(series: list[Floats], references: list[float], *, from_zero: bool) -> dict[str, Any]:
    """The y axis as it is, and on a logarithmic scale."""
    _, high, cut = y_limits(series, references, from_zero=from_zero)
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
