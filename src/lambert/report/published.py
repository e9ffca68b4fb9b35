"""A fine-tuned model's metrics beside those of published models, as rows for a terminal and as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lambert.report.fine_tuning import METRIC_NAMES, baseline_name
from lambert.report.tables import grid
from lambert.utils.formatting import MISSING

Facts = Mapping[str, Any]
SPLITS = {"dev": "development set", "test": "test set"}


def metric_text(facts: Facts, name: str) -> str:
    """The mean over the seeds, with its confidence interval where there are several."""
    mean, interval = f"{facts['metrics'][name]:.2f}", facts["metric_intervals"][name]
    return mean if interval is None else f"{mean} ({interval[0]:.2f} to {interval[1]:.2f})"


def own_rows(facts: Facts) -> list[list[str]]:
    """This model and the trivial baseline, with a value for each metric."""
    seeds, baseline = len(facts["seeds"]), facts["majority_baseline"]
    name = f"this model{', random weights' * facts['random_weights']}"
    how = f"mean of {seeds} seeds" if seeds > 1 else "one seed"
    trivial = baseline_name(facts["kind"], facts.get("data", {}))
    return [
        [name, *(metric_text(facts, metric) for metric in facts["metrics"]), how, ""],
        [trivial, *(f"{baseline[metric]:.2f}" for metric in facts["metrics"]), "", ""],
    ]


def published_rows(scores: Sequence[Facts], metrics: Sequence[str], split: str) -> list[list[str]]:
    """The published models of a split: name, a value for each metric, what the figures are, and their source."""
    return [
        [one["model"], *(_value(one["metrics"].get(name)) for name in metrics), one["how"], one["source"]]
        for one in scores
        if one["split"] == split
    ]


def published_tables(scores: Sequence[Facts], metrics: Sequence[str], own: Sequence[list[str]]) -> str:
    """A table for each split; `own` are the first rows of the development set's."""
    head = ["Model", *(METRIC_NAMES.get(name, name) for name in metrics), "Figures", "Source"]
    tables = []
    for split, title in SPLITS.items():
        rows = published_rows(scores, metrics, split)
        if rows:
            rows = [*(own if split == "dev" else ()), *rows]
            texts = {0, len(head) - 2, len(head) - 1}
            tables.append(f"<h3>On the {title}</h3>{grid(head, rows, texts=texts)}")
    note = (
        "Published models were tuned in other ways. Scores on the test set do not compare with those on the "
        "development set."
    )
    return f'{"".join(tables)}<p class="note">{note}</p>' if tables else ""


def _value(value: float | None) -> str:
    """With the digits that were published, at least one."""
    return MISSING if value is None else f"{value:.1f}" if round(value, 1) == value else f"{value:.2f}"
