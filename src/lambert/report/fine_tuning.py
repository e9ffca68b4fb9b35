"""What the pages of all fine-tunings share: header, scores of the seeds, curves of the loss, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from lambert.report.document import document, tiles
from lambert.report.pictures import loss_curves
from lambert.report.tables import flat, grid, settings
from lambert.utils import formatting

Facts = Mapping[str, Any]
Values = Mapping[str, float]
METRIC_NAMES = {
    "accuracy": "Accuracy",
    "exact_match": "Exact match",
    "f1": "F1",
    "macro_f1": "Macro F1",
    "matthews": "Matthews correlation",
    "micro_f1": "Micro F1",
    "pearson": "Pearson correlation",
    "rmse": "Root mean square error",
    "span_f1": "Entity F1",
    "span_precision": "Entity precision",
    "span_recall": "Entity recall",
    "spearman": "Spearman correlation",
    "tag_accuracy": "Accuracy of the tags",
}
Tile = tuple[str, str, str]
TWO_SEEDS = "Two seeds give no useful interval: Student's t is 12.7 there. Give five seeds or more."
OF_BEST_SEED = '<p class="note">Of the best seed.</p>'


def page(facts: Facts, lead: str, headline: Sequence[Tile], sections: Mapping[str, str], *, notices: str = "") -> str:
    """The whole page.

    Args:
        facts: a result with `seeds`, each with a `curve`, and `settings`.
        headline: the tiles.
        sections: heading → HTML; those without any are left out. The loss comes after the first one.
    """
    title = f"Fine-tuning on {facts['task']}"
    seeds = len(facts["seeds"])
    lead = f"{lead}, {seeds} seed{'s' * (seeds > 1)}{', from random weights' * facts['random_weights']}."
    header = (
        f'<header><p class="eyebrow">lambert fine-tuning</p><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>'
        f"{tiles(headline)}</header>"
    )
    (first, scores), *others = sections.items()
    curves = {f"seed {seed['seed']}": seed["curve"] for seed in facts["seeds"] if seed["curve"]}
    curve = '<div class="chart" data-chart="loss"></div>' if curves else ""
    of_settings = f'<div class="columns">{settings(flat(facts["settings"]))}</div>'
    shown = [(first, scores), ("Training loss", curve), *others, ("Settings", of_settings)]
    body = "".join(f"<h2>{escape(heading)}</h2>{html}" for heading, html in shown if html)
    charts = None
    if curves:
        drawn = {"loss": {"spec": loss_curves(curves, y="training loss"), "tables": [], "height": 260}}
        charts = {"charts": drawn, "tables": {}, "axes": {}, "colours": {}}
    return document(title, header + notices + body, charts)


def baseline_name(kind: str, data: Facts) -> str:
    """What the trivial baseline always answers.

    Args:
        kind, data: of the result.
    """
    if kind == "tags":  # the labels are in the order of their frequency
        return f"always {next(iter(data.get('examples_by_label', {})), 'the most frequent tag')}"
    names = {"regression": "mean of the training examples", "multi-label": "most frequent set of labels"}
    return names.get(kind, "majority class")


def value(number: float) -> str:
    """A metric."""
    return f"{number:.2f}"


def between(interval: Sequence[float] | None) -> str:
    """An interval; nothing for a single seed."""
    return "" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"


def seeds_table(
    seeds: Sequence[Facts],
    metrics: Sequence[Values],
    mean: Values,
    intervals: Mapping[str, Sequence[float] | None],
    baselines: Mapping[str, Values],
) -> str:
    """Every seed's metrics, their means with 95 % intervals, and trivial baselines by their names.

    Args:
        metrics: of each seed.
    """
    head = ["Seed", *(METRIC_NAMES.get(name, name) for name in mean), "Training loss", "Time"]
    rows = [
        [
            str(seed["seed"]),
            *(value(of_seed[name]) for name in mean),
            formatting.MISSING if seed["train_loss"] is None else f"{seed['train_loss']:.4f}",
            formatting.duration(seed["seconds"]),
        ]
        for seed, of_seed in zip(seeds, metrics, strict=True)
    ]
    rows.append(["mean", *map(value, mean.values()), "", ""])
    if len(seeds) > 1:
        rows.append(["95 % confidence interval", *(between(intervals.get(name)) for name in mean), "", ""])
    rows += [[name, *(value(values[metric]) for metric in mean), "", ""] for name, values in baselines.items()]
    return grid(head, rows, texts={0})


def rates_table(trials: Sequence[Facts], metrics: Sequence[str], held_out: str) -> str:
    """The learning rates that were tried."""
    if not trials:
        return ""
    head = ["Peak", *(METRIC_NAMES.get(name, name.capitalize()) for name in metrics), ""]
    rows = [
        [f"{trial['learning_rate']:g}", *(_known(trial[name]) for name in metrics), trial["problem"] or ""]
        for trial in trials
    ]
    return f"<h3>Learning rates, on {escape(held_out)}</h3>{grid(head, rows, texts={len(head) - 1})}"


def _known(number: float | None) -> str:
    return formatting.MISSING if number is None else value(number)
