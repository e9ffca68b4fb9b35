"""Several runs side by side: their names and colours, one table that is the charts' legend, and differing settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from lambert.report.spec import SERIES
from lambert.report.tables import flat, grid, inline, mean_speed, model_text
from lambert.runlog.reader import Run
from lambert.utils import formatting

_MOST_RUNS_SIDE_BY_SIDE, _MOST_SETTINGS = 6, 10
_DASHES = ([1, 0], [6, 3], [2, 2])  # of the first six runs, of the next six, and so on


@dataclass(frozen=True)
class Legend:
    """The name of each run, and the groups it may be coloured by."""

    names: tuple[str, ...]
    optimizers: tuple[str, ...]
    batches: tuple[str, ...]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Legend:
        """The folders' names; their paths where two are the same."""
        names = [run.name for run in runs]
        shown = [run.name if names.count(run.name) == 1 else str(run.folder) for run in runs]
        unique = [name if shown.count(name) == 1 else f"{name} ({n})" for n, name in enumerate(shown, start=1)]
        return cls(tuple(unique), tuple(map(optimizer_name, runs)), tuple(map(batch_text, runs)))

    @property
    def choices(self) -> dict[str, str]:
        """What runs can be coloured by, in few enough colours."""
        offered = {"run": "run"}
        for name, values in (("optimizer", self.optimizers), ("batch", self.batches)):
            if 2 <= len(set(values)) <= len(SERIES) * len(_DASHES) and len(set(values)) < len(self.names):
                offered[name] = name
        return offered

    @property
    def chosen(self) -> str:
        """A colour for each run while there are enough colours."""
        return "run" if len(self.names) <= len(SERIES) else ([*self.choices, "run"])[1]

    def rows(self) -> list[dict[str, Any]]:
        """Index, name, optimizer and batch sizes of each run."""
        together = zip(self.names, self.optimizers, self.batches, strict=True)
        return [
            {"run": index, "name": name, "optimizer": optimizer, "batch": batch}
            for index, (name, optimizer, batch) in enumerate(together)
        ]

    def colours(self) -> dict[str, dict[str, Any]]:
        """For every choice: its field, its values with a colour and a dash each, and the colour of each run."""
        found = {}
        for choice, field in (("run", "name"), ("optimizer", "optimizer"), ("batch", "batch")):
            if choice in self.choices:
                values = [row[field] for row in self.rows()]
                domain = list(dict.fromkeys(values))
                index = {value: number for number, value in enumerate(domain)}
                colours = [SERIES[number % len(SERIES)] for number in range(len(domain))]
                found[choice] = {
                    "field": field, "domain": domain, "range": colours,
                    "dots": colours if len(self.names) > 1 else [SERIES[1]],
                    "dashes": [_DASHES[number // len(SERIES) % len(_DASHES)] for number in range(len(domain))],
                    "of_run": [colours[index[value]] for value in values],
                }  # fmt: skip
        return found


def optimizer_name(run: Run) -> str:
    """The optimizer's name, without its settings."""
    optimizer = run.header.get("optimizer")
    return inline(optimizer.get("name") if isinstance(optimizer, dict) else optimizer)


def batch_text(run: Run) -> str:
    """The batch sizes of the phases, one where they are the same."""
    return ", ".join(dict.fromkeys(formatting.count(phase.batch_size) for phase in run.phases)) or formatting.MISSING


def final_loss(run: Run) -> tuple[bool, float]:
    """The sort key of runs: diverged ones last, then by the last held-out (else training) loss."""
    loss = run.final.mlm_loss if run.final is not None else float("nan")
    if not np.isfinite(loss):
        finite = run.series["mlm_loss"][np.isfinite(run.series["mlm_loss"])]
        loss = float(finite[-1]) if len(finite) else float("inf")
    return diverged_at(run) is not None, loss


def diverged_at(run: Run) -> int | None:
    """The first step after the last finite loss; None where the last loss is finite."""
    finite = np.isfinite(run.series["mlm_loss"])
    if finite[-1]:
        return None
    return int(run.steps[np.flatnonzero(finite)[-1] + 1 if finite.any() else 0])


def table(runs: Sequence[Run], legend: Legend) -> str:
    """One row for each run. It is the charts' legend too: a colour, and a box that shows or hides the run."""
    finals = [run.final for run in runs]
    losses = [final.mlm_loss if final else np.nan for final in finals]
    accuracies = [final.mlm_accuracy if final else np.nan for final in finals]
    columns = {
        "Run": list(legend.names),
        "Held-out MLM loss": [formatting.loss(loss) for loss in losses],
        "Perplexity": list(map(formatting.perplexity, losses)),
        "Accuracy": [formatting.percent(accuracy) for accuracy in accuracies],
        "Steps": [formatting.count(run.steps[-1]) for run in runs],
        "Training time": [formatting.duration(run.training_seconds) for run in runs],
        "Tokens / s": [formatting.count(mean_speed(run, "tokens_per_second")) for run in runs],
    }
    shared = []
    for name, values in (
        ("Batch size", legend.batches),
        ("Optimizer", legend.optimizers),
        ("Model", tuple(map(model_text, runs))),
        ("Unigram baseline", tuple(formatting.loss(final.unigram_loss if final else None) for final in finals)),
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
        best.add((int(np.nanargmax(accuracies)), 3))
    chosen = legend.colours()[legend.chosen]["of_run"]
    leads = [
        f'<input type="checkbox" checked data-run="{index}" autocomplete="off"> '
        f'<span class="swatch" data-swatch="{index}" style="background:{colour}"></span>'
        for index, colour in enumerate(chosen)
    ]
    note = "Best held-out loss first." + f" The same in all runs: {'; '.join(shared)}." * bool(shared)
    above = (
        f'<p class="note">{escape(note)}</p><p class="needs-script" hidden>'
        '<label><input type="checkbox" checked data-group="all"> Show all runs in the charts</label></p>'
    )
    texts = {index for index, name in enumerate(columns) if name in ("Run", "Optimizer", "Model", "Ended")}
    rows = list(zip(*columns.values(), strict=True))
    return f'{above}<div class="runs">{grid(list(columns), rows, texts=texts, best=best, leads=leads)}</div>'


def _ended(run: Run) -> str:
    diverged = diverged_at(run)
    if diverged is not None:
        return f"diverged at step {formatting.count(diverged)}"
    return str(run.end.get("reason") or formatting.MISSING) if run.end is not None else "no end recorded"


def differences(runs: Sequence[Run], names: Sequence[str]) -> str:
    """The recipe's settings that differ between runs; "" where none do. Many runs have a row each."""
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
    transposed = [[name, *(row[index] for row in shown)] for index, name in enumerate(names, start=1)]
    table = grid(["Run", *(row[0] for row in shown)], transposed, texts=set(range(len(shown) + 1)))
    return table + left_out * (len(rows) > len(shown))
