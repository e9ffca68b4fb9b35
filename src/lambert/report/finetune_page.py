"""One self-contained HTML page about a fine-tuning: scores, labels, confusion, the worst errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lambert.report.document import writable, write
from lambert.report.fine_tuning import METRIC_NAMES, OF_BEST_SEED, baseline_name, page, rates_table, seeds_table, value
from lambert.report.published import own_rows, published_tables
from lambert.report.tables import grid
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
    count, measured = formatting.count(facts["train_examples"]), formatting.count(facts["dev_examples"])
    trivial = baseline_name(facts["kind"], data)
    sections = {"Metrics": _metrics(facts, trivial)}
    if facts["published"]:
        sections["Published models"] = published_tables(facts["published"], [*facts["metrics"]], own_rows(facts))
    if "classes" in details:
        sections["Labels"] = _classes(details["classes"], data, facts["kind"])
    if "confusion" in details:
        sections["Confusion"] = _confusion(details["confusion"])
    if details.get("errors"):
        sections["Worst errors"] = _errors(details["errors"], facts["kind"])
    if data.get("conflicting"):
        sections["Texts with several labels"] = _conflicts(data["conflicting"])
    headline = [
        (METRIC_NAMES.get(name, name), value(mean), f"{trivial}: {value(facts['majority_baseline'][name])}")
        for name, mean in [*facts["metrics"].items()][:_MOST_TILES]
    ]
    lead = f"{count} training examples, measured on {measured} others"
    return page(facts, lead, headline, sections, notices=_notices(data))


def _notices(data: Facts) -> str:
    found = []
    if data.get("dev_texts_in_train"):
        several = data["dev_texts_in_train"] > 1
        are = "texts are training texts" if several else "text is a training text"
        found.append(f"{formatting.count(data['dev_texts_in_train'])} development {are}, too.")
    if data.get("conflicts"):
        occur = "texts occur" if data["conflicts"] > 1 else "text occurs"
        found.append(f"{formatting.count(data['conflicts'])} {occur} with several labels.")
    return "".join(f'<p class="notice">{escape(text)}</p>' for text in found)


def _metrics(facts: Facts, trivial: str) -> str:
    """Every seed's, and the learning rates that were tried."""
    of_seeds = [seed["metrics"] for seed in facts["seeds"]]
    baselines = {trivial: facts["majority_baseline"]}
    text = seeds_table(facts["seeds"], of_seeds, facts["metrics"], facts["metric_intervals"], baselines)
    return text + rates_table(facts["trials"], ["score"], "held-out training examples")


def _classes(classes: Sequence[Facts], data: Facts, kind: str) -> str:
    counts = data.get("examples_by_label", {})
    of_entities = kind == "tags"
    head = ["Label", "Precision", "Recall", "F1", "Development " + ("entities" if of_entities else "examples")]
    rows = []
    for one in classes:
        scores = [
            formatting.MISSING if one[name] is None else value(one[name]) for name in ("precision", "recall", "f1")
        ]
        rows.append([one["label"], *scores, formatting.count(one["examples"])])
        if not of_entities and counts:
            rows[-1].append(formatting.count(counts.get(one["label"], 0)))
    if not of_entities and counts:
        head.append("Training examples")
    note = ""
    if any(one["f1"] is None for one in classes):
        note = (
            f'<p class="note">{formatting.MISSING}: the label is neither given nor predicted in the development '
            "examples. It does not count in macro F1.</p>"
        )
    return _first_wide(grid(head, rows, texts={0})) + OF_BEST_SEED + note


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
    table = grid(["Text", "Given", "Predicted", "Loss"], rows, texts={0, 1, 2})
    return f'<p class="note">{note}</p>{_first_wide(table)}'


def _conflicts(found: Sequence[Facts]) -> str:
    rows = [[one["text"][:1_000], "; ".join(one["labels"][:8]), ", ".join(one["places"][:8])] for one in found]
    return _first_wide(grid(["Text", "Labels", "Where"], rows, texts={0, 1, 2}))


def _first_wide(table: str) -> str:
    """A table whose first column has a line of its own on a narrow screen."""
    return f'<div class="first-wide">{table}</div>'
