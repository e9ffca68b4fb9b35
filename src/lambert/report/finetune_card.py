"""The model card of a fine-tuned model: `README.md` with the metadata that the Hugging Face Hub reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lambert.report.fine_tuning import METRIC_NAMES
from lambert.report.model_card import markdown_table
from lambert.report.tables import flat
from lambert.utils import formatting

_PIPELINES = {"tags": "token-classification", "answers": "question-answering"}
_MOST_LABELS = 30


def render(facts: Mapping[str, Any], *, name: str) -> str:
    """The card as Markdown.

    Args:
        facts: the contents of `finetune.json`.
    """
    task = _PIPELINES.get(facts["kind"], "text-classification")
    given = '{"text": "one", "text_pair": "another"}' if len(facts["data"].get("texts", ())) == 2 else '"a text"'
    parts = [
        "\n".join(
            (
                *("---", "library_name: transformers", f"pipeline_tag: {task}", "tags:", "- lambert", f"- {task}"),
                *("# language: en", "# license: the license of your model, which depends on its text"),
                *("metrics:", *(f"- {metric}" for metric in facts["metrics"]), "---"),
            )
        ),
        f"# {name}",
        f"An encoder that was fine-tuned on {facts['task']} ({facts['kind']}), "
        f"{formatting.count(facts['train_examples'])} examples.",
        "## Use\n\n```python\nfrom transformers import pipeline\n\n"
        f'pipeline("{task}", "PATH_OR_NAME_OF_THIS_FOLDER")({given})\n```',
        "## Evaluation\n\n" + _evaluated(facts),
    ]
    if counts := facts["data"].get("examples_by_label"):
        parts.append("## Labels\n\n" + _labels(counts))
    chosen = "; ".join(f"{label.replace('_', ' ')} {value}" for label, value in flat(facts["settings"]))
    seed = f" The model is that of seed {facts['best_seed']}, the best of {len(facts['seeds'])}."
    parts += [
        f"## Training\n\n{chosen}.{seed}",
        "## Limits\n\nThe model repeats what its texts and labels say, errors and prejudice included. It was measured "
        "on texts like those it was trained on; on others it may be worse. Say here who labelled them, and how.",
    ]
    return "\n\n".join(parts) + "\n"


def _evaluated(facts: Mapping[str, Any]) -> str:
    """Means over the seeds beside the baseline."""
    seeds = len(facts["seeds"])
    rows = [("", f"model{f', mean of {seeds} seeds' * (seeds > 1)}", "most frequent label"), ("---",) * 3]
    for metric, value in facts["metrics"].items():
        baseline = facts["majority_baseline"].get(metric)
        shown = formatting.MISSING if baseline is None else f"{baseline:.1f}"
        rows.append((METRIC_NAMES.get(metric, metric), f"{value:.1f}", shown))
    text = f"On {formatting.count(facts['dev_examples'])} other examples:\n\n{markdown_table(rows)}"
    if facts.get("score_interval"):
        low, high = facts["score_interval"]
        text += f"\n\n{100 * facts['confidence']:.0f} % interval of the score over the seeds: {low:.1f} to {high:.1f}."
    return text


def _labels(counts: Mapping[str, int]) -> str:
    rows = [("label", "training examples"), ("---", "---")]
    rows += [(label.replace("|", "\\|"), formatting.count(number)) for label, number in counts.items()]
    left_out = len(rows) - 2 - _MOST_LABELS
    more = f"\n\n{left_out:,} more labels are in `config.json`." if left_out > 0 else ""
    return markdown_table(rows[: 2 + _MOST_LABELS]) + more
