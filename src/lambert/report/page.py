"""One self-contained HTML page about one or more runs: no requests, no scripts from data, reproducible bytes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import numpy as np

from lambert.errors import UserError
from lambert.report import comparison, tables
from lambert.report.charts import Board
from lambert.report.comparison import Legend
from lambert.report.document import document, writable, write
from lambert.runlog.reader import Run, read_run
from lambert.runlog.schema import JOURNAL_FILE, RECIPE_FILE
from lambert.utils import formatting

TRIALS = "trials"
"""Where the folder of a sweep has its runs."""
_MOST_RUNS_IN_DETAIL = 4
_MOST_STARTS_IN_FOOTER = 8

_OPTIMIZERS = {
    "lamb": "LAMB", "adamw": "AdamW", "stableadamw": "StableAdamW", "lars": "LARS", "lans": "LANS", "muon": "Muon",
    "adam-hyperball": "Adam-Hyperball", "muon-hyperball": "Muon-Hyperball",
}  # fmt: skip
"""Names of optimizers as their authors write them."""


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Writes the report of one run folder, or of several side by side, and returns its path.

    Args:
        runs: run folders, or folders of sweeps: these stand for the runs in their `trials/` that have done a step.
        out: the page.

    Raises:
        UserError: no run given, a folder without a usable journal, or an `out` that cannot be written.
    """
    if not runs:
        raise UserError("no run folder was given", remedy="Name at least one folder that a run wrote")
    out, read = writable(Path(out)), [run for folder in runs for run in _runs_in(Path(folder))]
    return write(out, render(read).encode("utf-8", errors="replace"))


def _runs_in(folder: Path) -> list[Run]:
    trials = folder / TRIALS
    if (folder / JOURNAL_FILE).exists() or not trials.is_dir():
        return [read_run(folder)]
    found = []
    for trial in sorted(trials.iterdir()):
        with suppress(UserError):  # not started yet, or failed before its first step
            found.append(read_run(trial))
    if not found:
        raise UserError(
            f"no run in {trials} has done a step yet", remedy="Let one finish its first step, then ask again"
        )
    return found


def render(runs: Sequence[Run]) -> str:
    """The page as a string. Several runs are sorted by their last held-out loss, diverged ones last."""
    runs = sorted(runs, key=comparison.final_loss)
    board = Board(runs, Legend.of(runs))
    single = runs[0] if len(runs) == 1 else None
    title = single.name if single else f"{len(runs)} runs compared"
    body = _header(runs, title, board) + f"<h2>Curves</h2>{board.controls()}{board.curves()}"
    if single:
        body += _details(single, board, 0)
    else:
        differing = comparison.differences(runs, board.legend.names)
        body += f"<h2>Settings that differ</h2>{differing}" if differing else ""
        body += "<h2>Each run</h2>" + "".join(_one_of_many(run, board, index) for index, run in enumerate(runs))
    return document(title, body + _footer(runs), board.data())


def _one_of_many(run: Run, board: Board, index: int) -> str:
    """A run among others: all details of a few runs; a summary and the command to see more of many."""
    inside = tables.run_tiles(run)
    inside += (
        _details(run, board, index) if len(board.runs) <= _MOST_RUNS_IN_DETAIL else _incidents(run) + _reproduce(run)
    )
    return (
        f"<details><summary>{escape(board.legend.names[index])}</summary><p>{escape(_summary(run))}</p>{_notices(run)}"
        f"{inside}</details>"
    )


def _header(runs: Sequence[Run], title: str, board: Board) -> str:
    eyebrow = f'<p class="eyebrow">lambert pre-training report</p><h1>{escape(title)}</h1>'
    if len(runs) == 1:
        summary = f'<p class="lead">{escape(_summary(runs[0]))}</p>'
        return f"<header>{eyebrow}{summary}{_notices(runs[0])}{tables.run_tiles(runs[0])}</header>"
    return f"<header>{eyebrow}{comparison.table(runs, board.legend)}</header>"


def _summary(run: Run) -> str:
    """One or two sentences: the model, its training, and how it ended."""
    parameters = run.header.get("parameters")
    model = tables.model_text(run)
    architecture = run.recipe.get("model", {}).get("architecture", "bert")
    kind = {"bert": "BERT", "modernbert": "ModernBERT"}.get(architecture, architecture)
    what = f"A {kind}" if model == formatting.MISSING else f"{kind} {model}"
    if isinstance(parameters, int):
        what += f" with {formatting.large(parameters)} parameters"
    optimizer = run.header.get("optimizer")
    name = optimizer.get("name") if isinstance(optimizer, dict) else optimizer
    parts = [_OPTIMIZERS.get(part, part) for part in str(name).split("+")]
    how = f", pre-trained with {' and '.join(parts)}" if name else ", pre-trained"
    if len(run.phases) > 1:
        how += f" in {len(run.phases)} phases"
    return f"{what}{how}. {_ending(run)}"


def _ending(run: Run) -> str:
    step, starts = formatting.count(run.steps[-1]), run.starts
    resumed = f", started {starts} times" if starts > 1 else ""
    if run.end is None:
        return f"The journal stops at step {step}: the run is still training, or was killed{resumed}."
    if run.end.get("reason") == "finished":
        return f"Finished after {step} steps{resumed}."
    return f"Stopped at step {step} ({run.end.get('reason') or 'no reason recorded'}){resumed}."


def _notices(run: Run) -> str:
    texts = list(run.notices)
    if run.bad_lines:
        lines = "line was" if len(run.bad_lines) == 1 else "lines were"
        where = tables.ranges(run.bad_lines)
        texts.append(f"{len(run.bad_lines)} damaged {lines} skipped in {JOURNAL_FILE} (line {where}).")
    bad = ~np.isfinite(run.series["mlm_loss"])
    if bad.any():
        first = formatting.count(run.steps[bad][0])
        steps = "step has" if bad.sum() == 1 else "steps have"
        texts.append(f"{formatting.count(bad.sum())} {steps} a NaN or infinite loss, the first is step {first}.")
    return "".join(f'<p class="notice">{escape(text)}</p>' for text in texts)


def _details(run: Run, board: Board, index: int) -> str:
    """The charts and tables of one run alone."""
    parts = [_incidents(run)]
    own = board.of_one_run(index)
    if own:
        parts.append(f"<h2>Training dynamics</h2>{own}")
    if run.outcome is not None:
        parts.append(f"<h2>Predicted and actual cost</h2>{tables.outcome(run)}")
    if run.fills:
        parts.append(f"<h2>Fill-mask examples</h2>{tables.fills(run)}")
    if run.evaluations:
        parts.append(f"<h2>Held-out evaluations</h2>{tables.evaluations(run)}")
    recipe = tables.settings_tables(run.recipe)
    phases = tables.phases(run) if run.phases else ""
    if recipe or phases:
        parts.append(f'<h2>Recipe</h2>{phases}<div class="columns">{recipe}</div>')
    machine = tables.settings(tables.machine_rows(run))
    if machine:
        parts.append(f"<h2>Data, machine and software</h2>{machine}")
    parts.append(_reproduce(run))
    return "".join(parts)


def _incidents(run: Run) -> str:
    return f"<h2>Incidents</h2>{tables.incidents(run)}" if run.incidents else ""


def _reproduce(run: Run) -> str:
    command = tables.command(run.recipe)
    report = formatting.shell_command("lambert", "report", run.folder, "--out", "report.html")
    if command is None:
        text = f"<p>{RECIPE_FILE} records no command. Its settings are options of <code>lambert pretrain</code>.</p>"
    else:
        text = (
            "<p>This command on the same corpus resumes where the run stopped; with <code>--fresh</code> it starts"
            f" from scratch.</p><pre><code>{escape(command)}</code></pre>"
        )
    return f"<h2>Reproduce</h2>{text}<p>This page:</p><pre><code>{escape(report)}</code></pre>"


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
