"""One self-contained HTML page for one run or several: no script, no request, the same bytes every time."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import numpy as np

from lambert.errors import UserError
from lambert.report import facts, tables, words
from lambert.report.charts import Chart, Trace, loss_chart, loss_over_sequences_chart, small_charts
from lambert.report.plots import NARROW, WIDE, chart_svg, loss_curve_figure
from lambert.report.read import JOURNAL, RECIPE, Run, read_run
from lambert.report.shell import document, writable, write
from lambert.report.svg import png, standing_svg
from lambert.report.trust import heat_map, trust_svg


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Writes the report of one run folder, or of several side by side, and returns its path.

    Raises:
        UserError: no run given, a folder without a usable journal, or an `out` that cannot be written.
    """
    if not runs:
        raise UserError("no run folder was given", remedy="Name at least one folder that a run wrote")
    out, read = writable(Path(out)), [read_run(Path(run)) for run in runs]
    return write(out, render(read).encode("utf-8", errors="replace"))


def write_loss_curve(run: Path, out: Path) -> Path:
    """Writes the loss curve of one run as a picture, SVG or PNG by the ending of `out`; returns its path.

    Raises:
        UserError: another ending, a folder without a usable journal or loss, an `out` that cannot be written.
    """
    out, read = writable(Path(out)), read_run(Path(run))
    if out.suffix.lower() not in (".svg", ".png"):
        raise UserError(f"{out} is neither an SVG nor a PNG", remedy="Give a name that ends in .svg or .png")
    if not np.isfinite(read.series["masked_word_loss"]).any():
        raise UserError(f"{read.folder / JOURNAL} records no finite loss", remedy="Give a run that did not diverge")
    figure = loss_curve_figure(read)
    if out.suffix.lower() == ".png":
        return write(out, png(figure))
    return write(out, standing_svg(figure, f"Masked-word loss, {read.name}").encode("utf-8", errors="replace"))


def render(runs: Sequence[Run]) -> str:
    """The page as a string."""
    single = runs[0] if len(runs) == 1 else None
    title = single.name if single else f"{len(runs)} runs compared"
    body = _header(runs, title) + _pictures(runs)
    if single:
        body += _details(single)
    else:
        body += "<h2>Each run</h2>" + "".join(
            f"<details><summary>{escape(run.name)}</summary><p>{escape(_summary(run))}</p>{_notices(run)}"
            f"{tables.tiles(run)}{_details(run, place)}</details>"
            for place, run in enumerate(runs)
        )
    return document(title, body + _footer(runs))


def _header(runs: Sequence[Run], title: str) -> str:
    eyebrow = f'<p class="eyebrow">lambert pre-training report</p><h1>{escape(title)}</h1>'
    if len(runs) == 1:
        summary = f'<p class="lead">{escape(_summary(runs[0]))}</p>'
        return f"<header>{eyebrow}{summary}{_notices(runs[0])}{tables.tiles(runs[0])}</header>"
    differing = tables.differences(runs)
    settings = f"<h2>Settings that differ</h2>{differing}" if differing else ""
    return f"<header>{eyebrow}{tables.comparison(runs)}</header>{settings}"


def _summary(run: Run) -> str:
    """One or two sentences: what was trained, how, and how it ended."""
    parameters = run.header.get("parameters")
    model = facts.model_words(run)
    what = "A BERT" if model == words.MISSING else f"BERT {model}"
    if isinstance(parameters, int):
        what += f" with {words.large(parameters)} parameters"
    optimizer = run.header.get("optimizer")
    name = optimizer.get("name") if isinstance(optimizer, dict) else optimizer
    how = f", pre-trained with {str(name).upper() if str(name).islower() else name}" if name else ", pre-trained"
    if len(run.phases) > 1:
        how += f" in {len(run.phases)} phases"
    return f"{what}{how}. {_ending(run)}"


def _ending(run: Run) -> str:
    step, starts = words.count(run.steps[-1]), run.starts
    resumed = f", started {starts} times" if starts > 1 else ""
    if run.end is None:
        return f"The journal stops at step {step}: the run is still going on, or was killed{resumed}."
    if run.end.get("reason") == "finished":
        return f"Finished after {step} steps{resumed}."
    return f"Stopped at step {step} ({run.end.get('reason') or 'no reason recorded'}){resumed}."


def _notices(run: Run) -> str:
    texts = list(run.notices)
    if run.bad_lines:
        lines = "line was" if len(run.bad_lines) == 1 else "lines were"
        where = facts.ranges(run.bad_lines)
        texts.append(f"{len(run.bad_lines)} damaged {lines} skipped in {JOURNAL} (line {where}).")
    lost = ~np.isfinite(run.series["masked_word_loss"])
    if lost.any():
        first = words.count(run.steps[lost][0])
        steps = "step has" if lost.sum() == 1 else "steps have"
        texts.append(f"{words.count(lost.sum())} {steps} a loss that is not a number, first at step {first}.")
    return "".join(f'<p class="notice">{escape(text)}</p>' for text in texts)


def _pictures(runs: Sequence[Run]) -> str:
    large = [chart for chart in (loss_chart(runs), loss_over_sequences_chart(runs)) if chart is not None]
    figures = "".join(_figure(chart, both_sizes=True) for chart in large)
    small = "".join(_figure(chart, both_sizes=False) for chart in small_charts(runs))
    return f'<h2>How it went</h2>{figures}<div class="pair">{small}</div>'


def _figure(chart: Chart, *, both_sizes: bool) -> str:
    if both_sizes:
        pictures = (
            f'<div class="wide">{chart_svg(chart, WIDE, chart.name)}</div>'
            f'<div class="narrow">{chart_svg(chart, NARROW, f"{chart.name}-narrow")}</div>'
        )
    else:
        pictures = chart_svg(chart, NARROW, chart.name)
    caption = f"<figcaption>{escape(chart.caption)}</figcaption>"
    return f"<figure><h3>{escape(chart.title)}</h3>{caption}{_legend(chart)}{pictures}</figure>"


def _legend(chart: Chart) -> str:
    named = [trace for trace in chart.traces if trace.label]
    if len(named) < 2:
        return '<ul class="legend"></ul>'
    items = "".join(f"<li>{_key(trace)}<span>{escape(trace.label)}</span></li>" for trace in named)
    return f'<ul class="legend">{items}</ul>'


def _key(trace: Trace) -> str:
    colour = f"var(--{trace.colour})"
    if trace.kind == "points":
        mark = f'<circle cx="13" cy="6" r="4" fill="{colour}"/>'
    else:
        dashes = ' stroke-dasharray="5 3"' if trace.dashed else ""
        mark = f'<path d="M1 6H25" stroke="{colour}" stroke-width="2"{dashes}/>'
    return f'<svg viewBox="0 0 26 12" aria-hidden="true">{mark}</svg>'


def _details(run: Run, place: int = 0) -> str:
    """What belongs to one run alone."""
    parts = [_trust(run, place)]
    if run.fills:
        parts.append(f"<h2>Filling in masked words</h2>{tables.fills(run.fills)}")
    if run.evaluations:
        parts.append(f"<h2>Held-out evaluations</h2>{tables.evaluations(run)}")
    recipe = tables.settings_tables(run.recipe)
    phases = tables.phases(run) if run.phases else ""
    if recipe or phases:
        parts.append(f'<h2>Recipe</h2>{phases}<div class="columns">{recipe}</div>')
    machine = tables.settings(facts.machine_rows(run))
    if machine:
        parts.append(f"<h2>Machine and software</h2>{machine}")
    parts.append(f"<h2>How to run it again</h2>{_again(run)}")
    return "".join(parts)


def _trust(run: Run, place: int) -> str:
    shown = heat_map(run.trust_ratios)
    if shown is None:
        return ""
    caption = "How far each layer's step is scaled: the norm of its weights over the norm of its update."
    if shown.grouped:
        caption += f" Each row is the geometric mean over its share of {words.count(shown.layers)} layers."
    if shown.left_out:
        caption += f" Left out: {words.count(shown.left_out)} with ratio 1 throughout (not adapted)."
    wide = trust_svg(run, shown, wide=True, name=f"trust-{place}")
    narrow = trust_svg(run, shown, wide=False, name=f"trust-{place}-narrow")
    return (
        f"<h2>Trust ratios</h2><figure><figcaption>{escape(caption)}</figcaption>"
        f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div></figure>'
    )


def _again(run: Run) -> str:
    command = facts.command(run.recipe)
    report = f"lambert report {shlex.quote(str(run.folder))} --out report.html"
    if command is None:
        text = f"<p>{RECIPE} records no command. Its settings are options of <code>lambert pretrain</code>.</p>"
    else:
        text = (
            "<p>The same command on the same corpus resumes where the run stopped; with <code>--fresh</code>"
            f" it starts over.</p><pre><code>{escape(command)}</code></pre>"
        )
    return f"{text}<p>This page:</p><pre><code>{escape(report)}</code></pre>"


def _footer(runs: Sequence[Run]) -> str:
    parts = []
    for run in runs:
        version = run.header.get("lambert")
        made = f" with lambert {version}" if version else ""
        steps = f"{words.count(len(run.steps))} steps recorded"
        if run.checkpoints:
            steps += f", last checkpoint at step {words.count(run.checkpoints[-1]['step'])}"
        parts.append(f"{run.name}: started {_moment(run.started)}{made}, {steps}.")
    return f"<footer>{''.join(f'<p>{escape(part)}</p>' for part in parts)}</footer>"


def _moment(seconds: float | None) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds or 0, UTC):%Y-%m-%d %H:%M} UTC" if seconds else "at an unknown time"
    except (OverflowError, OSError, ValueError):
        return "at an unknown time"
