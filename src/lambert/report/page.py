"""One self-contained HTML page for one run or many: no request, nothing run from data, the same bytes every time."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import numpy as np

from lambert.errors import UserError
from lambert.report import comparison, facts, tables
from lambert.report.figures import Board
from lambert.report.legend import Legend
from lambert.report.shell import document, writable, write
from lambert.runlog.reader import JOURNAL, RECIPE, Run, read_run
from lambert.utils import formatting

CELLS = "cells"
"""Where an experiment's folder has its runs."""
_MOST_RUNS_IN_DETAIL = 4
_MOST_STARTS_IN_FOOTER = 8


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Writes the report of one run folder, or of several side by side, and returns its path.

    Args:
        runs: run folders, and folders of experiments, which stand for the runs in their `cells/` that have done a step.
        out: the page.

    Raises:
        UserError: no run given, a folder without a usable journal, or an `out` that cannot be written.
    """
    if not runs:
        raise UserError("no run folder was given", remedy="Name at least one folder that a run wrote")
    out, read = writable(Path(out)), [run for folder in runs for run in _runs_in(Path(folder))]
    return write(out, render(read).encode("utf-8", errors="replace"))


def _runs_in(folder: Path) -> list[Run]:
    cells = folder / CELLS
    if (folder / JOURNAL).exists() or not cells.is_dir():
        return [read_run(folder)]
    found = []
    for cell in sorted(cells.iterdir()):
        with suppress(UserError):  # not begun yet, or failed before its first step
            found.append(read_run(cell))
    if not found:
        raise UserError(
            f"no run in {cells} has done a step yet", remedy="Let one finish its first step, then ask again"
        )
    return found


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
    from lambert.report.plots import loss_curve_figure  # pages need no matplotlib
    from lambert.report.svg import png, standing_svg

    figure = loss_curve_figure(read)
    if out.suffix.lower() == ".png":
        return write(out, png(figure))
    return write(out, standing_svg(figure, f"Masked-word loss, {read.name}").encode("utf-8", errors="replace"))


def render(runs: Sequence[Run]) -> str:
    """The page as a string. Several runs come in the order of their last held-out loss, lost ones last."""
    runs = sorted(runs, key=comparison.final_loss)
    board = Board(runs, Legend.of(runs))
    single = runs[0] if len(runs) == 1 else None
    title = single.name if single else f"{len(runs)} runs compared"
    body = _header(runs, title, board) + f"<h2>How it went</h2>{board.controls()}{board.curves()}"
    if single:
        body += _details(single, board, 0)
    else:
        differing = comparison.differences(runs, board.legend.names)
        body += f"<h2>Settings that differ</h2>{differing}" if differing else ""
        body += "<h2>Each run</h2>" + "".join(_one_of_many(run, board, place) for place, run in enumerate(runs))
    return document(title, body + _footer(runs), board.data())


def _one_of_many(run: Run, board: Board, place: int) -> str:
    """A run among others: everything of a few runs; of many what tells them apart and how to see more."""
    inside = tables.tiles(run)
    inside += _details(run, board, place) if len(board.runs) <= _MOST_RUNS_IN_DETAIL else _trouble(run) + _again(run)
    return (
        f"<details><summary>{escape(board.legend.names[place])}</summary><p>{escape(_summary(run))}</p>{_notices(run)}"
        f"{inside}</details>"
    )


def _header(runs: Sequence[Run], title: str, board: Board) -> str:
    eyebrow = f'<p class="eyebrow">lambert pre-training report</p><h1>{escape(title)}</h1>'
    if len(runs) == 1:
        summary = f'<p class="lead">{escape(_summary(runs[0]))}</p>'
        return f"<header>{eyebrow}{summary}{_notices(runs[0])}{tables.tiles(runs[0])}</header>"
    return f"<header>{eyebrow}{comparison.table(runs, board.legend)}</header>"


def _summary(run: Run) -> str:
    """One or two sentences: what was trained, how, and how it ended."""
    parameters = run.header.get("parameters")
    model = facts.model_words(run)
    what = "A BERT" if model == formatting.MISSING else f"BERT {model}"
    if isinstance(parameters, int):
        what += f" with {formatting.large(parameters)} parameters"
    optimizer = run.header.get("optimizer")
    name = optimizer.get("name") if isinstance(optimizer, dict) else optimizer
    how = f", pre-trained with {str(name).upper() if str(name).islower() else name}" if name else ", pre-trained"
    if len(run.phases) > 1:
        how += f" in {len(run.phases)} phases"
    return f"{what}{how}. {_ending(run)}"


def _ending(run: Run) -> str:
    step, starts = formatting.count(run.steps[-1]), run.starts
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
        first = formatting.count(run.steps[lost][0])
        steps = "step has" if lost.sum() == 1 else "steps have"
        texts.append(f"{formatting.count(lost.sum())} {steps} a loss that is not a number, first at step {first}.")
    return "".join(f'<p class="notice">{escape(text)}</p>' for text in texts)


def _details(run: Run, board: Board, place: int) -> str:
    """What belongs to one run alone."""
    parts = [_trouble(run)]
    own = board.of_one_run(place)
    if own:
        parts.append(f"<h2>Inside the run</h2>{own}")
    if run.outcome is not None:
        parts.append(f"<h2>Predicted and actual</h2>{tables.outcome(run)}")
    if run.fills:
        parts.append(f"<h2>Filling in masked words</h2>{tables.fills(run)}")
    if run.evaluations:
        parts.append(f"<h2>Held-out evaluations</h2>{tables.evaluations(run)}")
    recipe = tables.settings_tables(run.recipe)
    phases = tables.phases(run) if run.phases else ""
    if recipe or phases:
        parts.append(f'<h2>Recipe</h2>{phases}<div class="columns">{recipe}</div>')
    machine = tables.settings(facts.machine_rows(run))
    if machine:
        parts.append(f"<h2>Data, machine and software</h2>{machine}")
    parts.append(_again(run))
    return "".join(parts)


def _trouble(run: Run) -> str:
    return f"<h2>What befell the run</h2>{tables.marks(run)}" if run.marks else ""


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
    return f"<h2>How to run it again</h2>{text}<p>This page:</p><pre><code>{escape(report)}</code></pre>"


def _footer(runs: Sequence[Run]) -> str:
    parts = []
    for run in runs[:_MOST_STARTS_IN_FOOTER]:
        version = run.header.get("lambert")
        made = f" with lambert {version}" if version else ""
        steps = f"{formatting.count(len(run.steps))} steps recorded"
        if run.checkpoints:
            steps += f", last checkpoint at step {formatting.count(run.checkpoints[-1]['step'])}"
        parts.append(f"{run.name}: started {_moment(run.started)}{made}, {steps}.")
    if len(runs) > len(parts):
        parts.append(f"And {formatting.count(len(runs) - len(parts))} others.")
    parts.append(
        "Charts: Vega, Vega-Lite and Vega-Embed, © University of Washington Interactive Data Lab, BSD-3-Clause."
    )
    return f"<footer>{''.join(f'<p>{escape(part)}</p>' for part in parts)}</footer>"


def _moment(seconds: float | None) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds or 0, UTC):%Y-%m-%d %H:%M} UTC" if seconds else "at an unknown time"
    except (OverflowError, OSError, ValueError):
        return "at an unknown time"
