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
RECORDS = ("finetune.json", "glue.json", "squad.json")
"""Results that a card can be made of."""


def render(facts: Mapping[str, Any], *, name: str) -> str:
    """The card as Markdown.

    Args:
        facts: the contents of one of `RECORDS`.
    """
    if "exact_match" in facts:
        facts = _of_squad(facts)
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
        f"## Use\n\n```python\n{_use(task, given)}\n```",
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


def _of_squad(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of `squad.json` under the names of the others."""
    return {
        **facts,
        "task": f"SQuAD v{facts['version']}",
        "kind": "answers",
        "metrics": {"exact_match": facts["exact_match"], "f1": facts["f1"]},
        "majority_baseline": {},
        "score_interval": facts["f1_interval"],
        "train_examples": facts["train_questions"],
        "dev_examples": facts["dev_questions"],
        "data": {},
    }


def _use(task: str, given: str) -> str:
    """Code that opens the model."""
    folder = '"PATH_OR_NAME_OF_THIS_FOLDER"'
    if task == "question-answering":  # transformers 5 has no pipeline for it
        return (
            "from transformers import AutoModelForQuestionAnswering, AutoTokenizer\n\n"
            f"tokenizer = AutoTokenizer.from_pretrained({folder})\n"
            f"model = AutoModelForQuestionAnswering.from_pretrained({folder})\n"
            'answer = model(**tokenizer("a question", "a passage", return_tensors="pt"))\n'
            "answer.start_logits.argmax(), answer.end_logits.argmax()  # first and last token of the answer"
        )
    return f'from transformers import pipeline\n\npipeline("{task}", {folder})({given})'


def _evaluated(facts: Mapping[str, Any]) -> str:
    """Means over the seeds beside the baseline."""
    seeds = len(facts["seeds"])
    beside = bool(facts["majority_baseline"])
    head = ("", f"model{f', mean of {seeds} seeds' * (seeds > 1)}", *["most frequent label"] * beside)
    rows = [head, ("---",) * len(head)]
    for metric, value in facts["metrics"].items():
        baseline = facts["majority_baseline"].get(metric)
        shown = formatting.MISSING if baseline is None else f"{baseline:.1f}"
        rows.append((METRIC_NAMES.get(metric, metric), f"{value:.1f}", *[shown] * beside))
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
