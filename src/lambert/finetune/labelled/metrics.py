"""Metrics of labelled examples, from the libraries that GLUE's own scripts use: scikit-learn and SciPy (the extra
`finetune`).

All but `rmse`, which has the unit of the labels, are times 100. A metric that is undefined, such as the correlation
with constant predictions, is 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import chain
from typing import Any

import numpy as np

from lambert.errors import UserError
from lambert.finetune.labelled.task import OUTSIDE, Task

Span = tuple[int, int, str]
"""First word, end and type of an entity."""


def check_installed() -> None:
    """Raises UserError where the extra is missing."""
    if find_spec("sklearn") is None or find_spec("scipy") is None:
        raise UserError(
            "the metrics of fine-tuning need the packages scikit-learn and scipy, which are not installed",
            remedy="Install them with: pip install 'lambert-bert[finetune]'",
        )


def compute_metrics(task: Task, labels: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
    """Metric → its value, 0 to 100 (correlations −100 to 100; `rmse` in the unit of the labels).

    Args:
        labels, predictions: for each example a class index or a number; a list of them where it may have several; for
            tags a list with the index of every word's tag.
    """
    assert len(labels) == len(predictions) > 0
    if task.kind == "tags":
        found = _of_tags(task, labels, predictions)
    elif task.kind == "multi-label":
        found = _of_several(task, labels, predictions)
    else:
        found = {name: _metric(name, np.asarray(labels), np.asarray(predictions)) for name in task.metrics}
    return {name: value if name == "rmse" else 100 * value for name, value in found.items()}


def _metric(name: str, labels: Any, predictions: Any) -> float:
    from scipy import stats
    from sklearn import metrics

    if name in ("pearson", "spearman", "matthews") and min(np.ptp(labels), np.ptp(predictions)) == 0:
        return 0.0  # of one value nothing is told apart
    if name in ("pearson", "spearman"):
        correlation = stats.pearsonr if name == "pearson" else stats.spearmanr
        value = float(correlation(predictions, labels).statistic)
        return value if math.isfinite(value) else 0.0
    if name == "rmse":
        return float(np.sqrt(np.mean((labels - predictions) ** 2)))
    if name in ("f1", "macro_f1"):
        average = "binary" if name == "f1" else "macro"
        return float(metrics.f1_score(labels, predictions, average=average, zero_division=0.0))
    if name == "matthews":
        return float(metrics.matthews_corrcoef(labels, predictions))
    return float(metrics.accuracy_score(labels, predictions))


def indicators(labels: Sequence[Sequence[int]], classes: int) -> Any:
    """[examples, classes] of 0 and 1."""
    ones = np.zeros((len(labels), classes), dtype=np.int8)
    for row, some in enumerate(labels):
        ones[row, list(some)] = 1
    return ones


def _of_several(task: Task, labels: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
    from sklearn import metrics

    given, said = indicators(labels, task.classes), indicators(predictions, task.classes)
    there = np.flatnonzero((given | said).any(0))  # as of single labels; others would count as an F1 of 0
    return {
        "micro_f1": float(metrics.f1_score(given, said, average="micro", zero_division=0.0)),
        "macro_f1": float(metrics.f1_score(given[:, there], said[:, there], average="macro", zero_division=0.0))
        if len(there)
        else 0.0,
        "exact_match": float(metrics.accuracy_score(given, said)),
    }


def spans_of(tags: Sequence[str]) -> set[Span]:
    """The entities of tags by CoNLL's rules: one begins at B-, or at I- of another type than the tag before.

    Tags without a prefix are entities of one type for as long as they repeat; `O` is none.

    >>> sorted(spans_of(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"]))
    [(0, 2, 'PER'), (3, 4, 'LOC'), (4, 5, 'LOC')]
    """
    return set(_spans(tags))


def _spans(tags: Sequence[str]) -> Iterator[Span]:
    first, kind = 0, ""
    for index, tag in enumerate([*tags, OUTSIDE]):
        prefix, _, name = tag.partition("-")
        if prefix not in ("B", "I", "E", "L", "S", "U"):  # BIO, BIOES and BILOU
            prefix, name = "I", "" if tag == OUTSIDE else tag
        if kind and (name != kind or prefix in ("B", "S", "U")):
            yield first, index, kind
            kind = ""
        if name and not kind:
            first, kind = index, name
        if kind and prefix in ("E", "L", "S", "U"):
            yield first, index + 1, kind
            kind = ""


def span_counts(task: Task, labels: Sequence[Any], predictions: Sequence[Any]) -> dict[str, tuple[int, int, int]]:
    """Type of entity → how many are right, predicted and given."""
    counts: dict[str, Counter[str]] = {"right": Counter(), "predicted": Counter(), "given": Counter()}
    for given, said in zip(labels, predictions, strict=True):
        here, there = (spans_of([task.labels[tag] for tag in tags]) for tags in (given, said))
        for name, spans in (("right", here & there), ("predicted", there), ("given", here)):
            counts[name].update(kind for _, _, kind in spans)
    kinds = sorted({*counts["given"], *counts["predicted"]})
    return {kind: (counts["right"][kind], counts["predicted"][kind], counts["given"][kind]) for kind in kinds}


def precision_recall_f1(right: int, predicted: int, given: int) -> tuple[float, float, float]:
    """0 where a denominator is 0."""
    return right / max(1, predicted), right / max(1, given), 2 * right / max(1, predicted + given)


def _of_tags(task: Task, labels: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
    totals = np.sum([*span_counts(task, labels, predictions).values(), (0, 0, 0)], axis=0).tolist()
    precision, recall, f1 = precision_recall_f1(*totals)
    pairs = zip(chain.from_iterable(labels), chain.from_iterable(predictions), strict=True)
    same = [given == said for given, said in pairs]
    return {
        "span_f1": f1,
        "span_precision": precision,
        "span_recall": recall,
        "tag_accuracy": sum(same) / max(1, len(same)),
    }
