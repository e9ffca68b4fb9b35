"""One self-contained HTML page about a fine-tuning: scores, labels, confusion, the worst errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lambert.report.document import document, tiles, writable, write
from lambert.report.published import METRIC_NAMES, own_rows, published_tables
from lambert.report.tables import flat, grid, settings
from lambert.utils import formatting

Facts = Mapping[str, Any]
_MOST_TILES = 4


def write_finetune_page(facts: Facts, out: Path) -> Path:
    """Writes the page and returns its path.

    Args:
        facts: the contents of `finetune.json` or `glue.json`.

    Raises:
        UserError: `out` cannot be written.
    """
    return write(writable(Path(out)), render(facts).encode("utf-8", errors="replace"))


def render(facts: Facts) -> str:
    """The page as a string."""
    details, data = facts["details"], facts["data"]
    title = f"Fine-tuning on {facts['task']}"
    count, measured = facts["train_examples"], facts["dev_examples"]
    seeds = len(facts["seeds"])
    lead = (
        f"{formatting.count(count)} training examples, measured on {formatting.count(measured)} others, "
        f"{seeds} seed{'s' * (seeds > 1)}{', from random weights' * facts['random_weights']}."
    )
    body = (
        f'<header><p class="eyebrow">lambert fine-tuning</p><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>'
        f"{_tiles(facts)}</header>{_notices(data)}<h2>Metrics</h2>{_metrics(facts)}{_trials(facts)}"
    )
    if facts["published"]:
        body += "<h2>Published models</h2>"
        body += published_tables(facts["published"], [*facts["metrics"]], own_rows(facts))
    if "classes" in details:
        body += f"<h2>Labels</h2>{_classes(details['classes'], data, facts['kind'])}"
    if "confusion" in details:
        body += f"<h2>Confusion</h2>{_confusion(details['confusion'])}"
    if details.get("errors"):
        body += f"<h2>Worst errors</h2>{_errors(details['errors'], facts['kind'])}"
    if data.get("conflicting"):
        body += f"<h2>Texts with several labels</h2>{_conflicts(data['conflicting'])}"
    body += f'<h2>Settings</h2><div class="columns">{settings(flat(facts["settings"]))}</div>'
    return document(title, body)


def _tiles(facts: Facts) -> str:
    entries = []
    for name, value in [*facts["metrics"].items()][:_MOST_TILES]:
        baseline = f"majority class: {_value(facts['majority_baseline'][name])}"
        note = (
            baseline
            if facts["kind"] != "regression"
            else "mean of the training examples: " + _value(facts["majority_baseline"][name])
        )
        entries.append((METRIC_NAMES.get(name, name), _value(value), note))
    return tiles(entries)


def _value(value: float) -> str:
    return f"{value:.2f}"


def _notices(data: Facts) -> str:
    found = []
    if data.get("dev_texts_in_train"):
        found.append(f"{formatting.count(data['dev_texts_in_train'])} development texts are training texts, too.")
    if data.get("conflicts"):
        found.append(f"{formatting.count(data['conflicts'])} texts occur with several labels.")
    return "".join(f'<p class="notice">{escape(text)}</p>' for text in found)


def _metrics(facts: Facts) -> str:
    """Every seed's."""
    names = [*facts["metrics"]]
    head = ["Seed", *(METRIC_NAMES.get(name, name) for name in names), "Training loss", "Time"]
    rows = [
        [
            str(seed["seed"]),
            *(_value(seed["metrics"][name]) for name in names),
            "–" if seed["train_loss"] is None else f"{seed['train_loss']:.4f}",
            formatting.duration(seed["seconds"]),
        ]
        for seed in facts["seeds"]
    ]
    rows.append(["mean", *(_value(facts["metrics"][name]) for name in names), "", ""])
    rows.append(["majority class", *(_value(facts["majority_baseline"][name]) for name in names), "", ""])
    text = grid(head, rows, texts={0})
    if facts["score_interval"] is not None:
        low, high = facts["score_interval"]
        text += f'<p class="note">{100 * facts["confidence"]:.0f} % confidence interval of the score over the seeds: {low:.2f} to {high:.2f}.</p>'  # noqa: E501
    return text


def _trials(facts: Facts) -> str:
    if not facts["trials"]:
        return ""
    rows = [[f"{trial['learning_rate']:g}", trial["problem"] or _value(trial["score"])] for trial in facts["trials"]]
    return f"<h3>Learning rates, on held-out training examples</h3>{grid(['Peak', 'Score'], rows, texts={1})}"


def _classes(classes: Sequence[Facts], data: Facts, kind: str) -> str:
    counts = data.get("examples_by_label", {})
    of_entities = kind == "tags"
    head = ["Label", "Precision", "Recall", "F1", "Development " + ("entities" if of_entities else "examples")]
    rows = []
    for one in classes:
        scores = [_value(one[name]) for name in ("precision", "recall", "f1")]
        rows.append([one["label"], *scores, formatting.count(one["examples"])])
        if not of_entities and counts:
            rows[-1].append(formatting.count(counts.get(one["label"], 0)))
    if not of_entities and counts:
        head.append("Training examples")
    return grid(head, rows, texts={0}) + '<p class="note">Of the best seed.</p>'


def _confusion(confusion: Facts) -> str:
    """Rows are given labels, columns predicted ones; the darker, the larger the share of the row."""
    labels = confusion["labels"]
    head = "".join(f'<th scope="col" class="number">{escape(label)}</th>' for label in labels)
    rows = []
    for index, (label, counts) in enumerate(zip(labels, confusion["counts"], strict=True)):
        total = max(1, sum(counts))
        cells = "".join(
            f'<td class="number{" best" * (index == column)}" style="background:color-mix(in srgb,var(--series-1) '
            f'{60 * count / total:.0f}%,transparent)">{formatting.count(count)}</td>'
            for column, count in enumerate(counts)
        )
        rows.append(f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>')
    return (
        '<p class="note">Rows: the given label. Columns: what the model of the best seed predicts.</p>'
        f'<div class="scroll"><table class="confusion"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _errors(errors: Sequence[Facts], kind: str) -> str:
    note = "The development examples of highest loss. An example that looks right may be labelled wrongly."
    if kind == "regression":
        note = "The development examples of largest squared error."
    rows = [[one["text"], one["given"], one["predicted"], f"{one['loss']:.3g}"] for one in errors]
    return f'<p class="note">{note}</p>{grid(["Text", "Given", "Predicted", "Loss"], rows, texts={0, 1, 2})}'


def _conflicts(found: Sequence[Facts]) -> str:
    rows = [[one["text"][:1_000], "; ".join(one["labels"][:8]), ", ".join(one["places"][:8])] for one in found]
    return grid(["Text", "Labels", "Where"], rows, texts={0, 1, 2})
