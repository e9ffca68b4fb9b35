"""Several runs side by side: one table that is the charts' legend too, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from lambert.report.facts import flat, mean_speed, model_words
from lambert.report.legend import Legend
from lambert.report.tables import grid
from lambert.runlog.reader import Run
from lambert.utils import formatting

_MOST_RUNS_SIDE_BY_SIDE, _MOST_SETTINGS = 6, 10


def final_loss(run: Run) -> tuple[bool, float]:
    """By what runs are sorted: those that came through first, then by the last held-out (else training) loss."""
    loss = run.final.masked_word_loss if run.final is not None else float("nan")
    if not np.isfinite(loss):
        finite = run.series["masked_word_loss"][np.isfinite(run.series["masked_word_loss"])]
        loss = float(finite[-1]) if len(finite) else float("inf")
    return diverged_at(run) is not None, loss


def diverged_at(run: Run) -> int | None:
    """The first step from which on no loss is a number, None where the last one is."""
    finite = np.isfinite(run.series["masked_word_loss"])
    if finite[-1]:
        return None
    return int(run.steps[np.flatnonzero(finite)[-1] + 1 if finite.any() else 0])


def table(runs: Sequence[Run], legend: Legend) -> str:
    """One row a run, which is the charts' legend as well: a colour, and a box that shows or hides the run."""
    finals = [run.final for run in runs]
    losses = [final.masked_word_loss if final else np.nan for final in finals]
    accuracies = [final.masked_word_accuracy if final else np.nan for final in finals]
    columns = {
        "Run": list(legend.names),
        "Held-out loss": [formatting.loss(loss) for loss in losses],
        "Accuracy": [formatting.percent(accuracy) for accuracy in accuracies],
        "Steps": [formatting.count(run.steps[-1]) for run in runs],
        "Training time": [formatting.duration(run.training_seconds) for run in runs],
        "Tokens / s": [formatting.count(mean_speed(run, "tokens_per_second")) for run in runs],
    }
    shared = []
    for name, values in (
        ("Batch", legend.batches),
        ("Optimizer", legend.optimizers),
        ("Model", tuple(map(model_words, runs))),
        ("Word frequencies", tuple(formatting.loss(final.unigram_loss if final else None) for final in finals)),
        ("Ended", tuple(map(_ended, runs))),
    ):
        if len(set(values)) > 1:
            columns[name] = list(values)
        elif values[0] != formatting.MISSING:
            shared.append(f"{name.lower()} {values[0]}")
    best = set()
    if np.isfinite(losses).any():
        best.add((int(np.nanargmin(losses)), 1))
    if np.isfinite(accuracies).any():
        best.add((int(np.nanargmax(accuracies)), 2))
    chosen = legend.colours()[legend.chosen]["of_run"]
    leads = [
        f'<input type="checkbox" checked data-run="{place}" autocomplete="off"> '
        f'<span class="swatch" data-swatch="{place}" style="background:{colour}"></span>'
        for place, colour in enumerate(chosen)
    ]
    told = f"Best held-out loss first. The same in all: {'; '.join(shared)}." if shared else "Best held-out loss first."
    everyone = (
        f'<p class="note">{escape(told)}</p><p class="needs-script" hidden>'
        '<label><input type="checkbox" checked data-group="all"> Show all runs in the charts</label></p>'
    )
    texts = {place for place, name in enumerate(columns) if name in ("Run", "Optimizer", "Model", "Ended")}
    rows = list(zip(*columns.values(), strict=True))
    return f'{everyone}<div class="runs">{grid(list(columns), rows, texts=texts, best=best, leads=leads)}</div>'


def _ended(run: Run) -> str:
    lost = diverged_at(run)
    if lost is not None:
        return f"diverged at step {formatting.count(lost)}"
    return str(run.end.get("reason") or formatting.MISSING) if run.end is not None else "no end recorded"


def differences(runs: Sequence[Run], names: Sequence[str]) -> str:
    """The recipe's settings that are not the same in all runs; "" where none differ. Of many runs one row each."""
    settings = [dict(flat(run.recipe)) for run in runs]
    known = dict.fromkeys(name for table in settings for name in table if name != "command")
    rows = []
    for name in known:
        values = [table.get(name, formatting.MISSING) for table in settings]
        if len(set(values)) > 1:
            rows.append([name, *values])
    if not rows:
        return ""
    if len(runs) <= _MOST_RUNS_SIDE_BY_SIDE:
        return grid(["Setting", *names], rows, texts=set(range(len(runs) + 1)))
    shown = rows[:_MOST_SETTINGS]
    left_out = f'<p class="note">Others that differ: {escape(", ".join(row[0] for row in rows[_MOST_SETTINGS:]))}.</p>'
    turned = [[name, *(row[place + 1] for row in shown)] for place, name in enumerate(names)]
    table = grid(["Run", *(row[0] for row in shown)], turned, texts=set(range(len(shown) + 1)))
    return table + left_out * (len(rows) > len(shown))
