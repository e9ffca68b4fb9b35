"""What one fine-tuning got right and wrong, for the page: confusion, each class, the worst errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lambert.finetune.labelled.metrics import indicators, precision_recall_f1, span_counts, spans_of
from lambert.finetune.labelled.task import TaggedText, Task

_MOST_CLASSES = 30
_MOST_ERRORS = 50
_MOST_CHARACTERS = 1_000


def details_of(task: Task, examples: Sequence[Any], predictions: Mapping[str, Any]) -> dict[str, Any]:
    """Of the development examples and what `decode` returned for them, ready for JSON.

    Returns:
        `classes`: for each class `label`, `precision`, `recall`, `f1` (0 to 100; None of a class that is neither given
        nor predicted) and `examples`; `confusion`, for classification with at most 30 classes: `labels`, and `counts`
        [given][predicted]; `errors`: the wrong examples of highest loss, with `index`, `text`, `given`, `predicted`
        and `loss`.
    """
    labels = predictions["labels"]
    found: dict[str, Any] = {"errors": _errors(task, examples, labels, predictions["losses"])}
    if task.kind != "regression":
        found["classes"] = _classes(task, examples, labels)
    if task.kind == "classification" and task.classes <= _MOST_CLASSES:
        counts = np.zeros((task.classes, task.classes), dtype=int)
        np.add.at(counts, (np.array([one.label for one in examples], dtype=int), np.array(labels, dtype=int)), 1)
        found["confusion"] = {"labels": list(task.labels), "counts": counts.tolist()}
    return found


def given_labels(examples: Sequence[Any]) -> list[Any]:
    """The labels as the metrics take them."""
    return [list(one.tags) if isinstance(one, TaggedText) else one.label for one in examples]


def label_names(kind: str, names: Sequence[str], label: Any) -> Any:
    """A label or a prediction by its names, as predictions are written."""
    if kind == "regression":
        return label
    if kind == "classification":
        return names[int(label)]
    return [names[index] for index in label]


def _classes(task: Task, examples: Sequence[Any], labels: Sequence[Any]) -> list[dict[str, Any]]:
    given = given_labels(examples)
    if task.kind == "tags":
        counts = span_counts(task, given, labels)
    else:
        several = task.kind == "multi-label"
        here = indicators(given if several else [[int(one)] for one in given], task.classes)
        there = indicators(labels if several else [[int(one)] for one in labels], task.classes)
        sums = zip((here & there).sum(0).tolist(), there.sum(0).tolist(), here.sum(0).tolist(), strict=True)
        counts = dict(zip(task.labels, sums, strict=True))
    rows = []
    for label, of_class in counts.items():
        scores = dict(zip(("precision", "recall", "f1"), precision_recall_f1(*of_class), strict=True))
        occurs = any(of_class)
        shown = {name: 100 * value if occurs else None for name, value in scores.items()}
        rows.append({"label": label, **shown, "examples": of_class[2]})
    return rows


def _errors(task: Task, examples: Sequence[Any], labels: Sequence[Any], losses: Sequence[float]) -> list[dict[str, Any]]:  # fmt: skip  # noqa: E501
    given = given_labels(examples)
    wrong = [
        index for index in range(len(examples)) if task.kind == "regression" or labels[index] != _like(given[index])
    ]
    wrong.sort(key=lambda index: -losses[index])
    return [
        {
            "index": index,
            "text": _text(examples[index]),
            "given": _shown(task, examples[index], given[index]),
            "predicted": _shown(task, examples[index], labels[index]),
            "loss": losses[index],
        }
        for index in wrong[:_MOST_ERRORS]
    ]


def _like(label: Any) -> Any:
    return list(label) if isinstance(label, tuple) else label


def _text(example: Any) -> str:
    text = (
        example.text if isinstance(example, TaggedText) else " / ".join(filter(None, (example.first, example.second)))
    )
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"


def _shown(task: Task, example: Any, label: Any) -> str:
    """A label in words: of tags the entities with their text."""
    if task.kind == "regression":
        return f"{label:.4g}"
    names = label_names(task.kind, task.labels, label)
    if task.kind == "classification":
        return str(names)
    if task.kind == "multi-label":
        return ", ".join(names) or "none"
    spans = sorted(spans_of(names))
    texts = (
        f"{example.text[example.words[first][0] : example.words[end - 1][1]]} ({kind})" for first, end, kind in spans
    )
    return "; ".join(texts) or "none"
