"""Scores of published models on GLUE, to stand beside one's own.

Each figure was read in the source that its row names. Where a source does not say which metric a figure is (MRPC, QQP
and STS-B have two), the figure is left out, and so are averages of metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lambert.finetune.labelled.results import PublishedScore, Split


@dataclass(frozen=True)
class _Source:
    """Figures of one model from one place."""

    model: str
    split: Split
    how: str
    source: str
    figures: Mapping[str, Mapping[str, float]]
    """Task → metric → value, 0 to 100 (correlations −100 to 100)."""


def published_scores(task: str) -> tuple[PublishedScore, ...]:
    """Of a task by its name: those of the development set, then those of the test set, small models first."""
    found = [
        PublishedScore(one.model, one.split, dict(one.figures[task]), one.how, one.source)
        for one in _SOURCES
        if task in one.figures
    ]
    return tuple(sorted(found, key=lambda one: one.split))


_METRICS = {"cola": "matthews", "sts-b": "spearman"}


def _figures(columns: str, row: str) -> dict[str, dict[str, float]]:
    """A row of a table; several metrics of a task are separated by "/", in both.

    Args:
        columns: tasks, each with its metrics after a colon (accuracy, or Matthews and Spearman correlation, where none
            are given).
    """
    found = {}
    for column, values in zip(columns.split(), row.split(), strict=True):
        task, _, metrics = column.partition(":")
        names = (metrics or _METRICS.get(task, "accuracy")).split("/")
        found[task] = dict(zip(names, map(float, values.split("/")), strict=True))
    return found


_ELECTRA = "cola sst-2 mrpc sts-b qqp mnli qnli rte"
_OF_ELECTRA = ("median of many seeds", "Clark et al. 2020: README of google-research/electra, Expected Results")
_SMALL = "cola sst-2 mrpc:f1/accuracy sts-b:pearson/spearman qqp:f1/accuracy mnli mnli-mm qnli rte wnli"
_OF_SMALL = ("best of a grid", "Turc et al. 2019: README of google-research/bert, Smaller BERT Models")
_OF_DEVLIN = ("mean of 5 seeds", "Devlin et al. 2019, arXiv 1810.04805, Table 6")
_OF_SANH = ("median of 5 seeds", "Sanh et al. 2019, arXiv 1910.01108, Table 1")
_OF_GEIPING = ("median of 5 seeds", "Geiping and Goldstein 2022, arXiv 2212.14034: card of crammed-bert")
_OF_WOLF = ("one seed", "README of huggingface/transformers, examples/pytorch/text-classification")
_OF_LIU = ("single model", "Liu et al. 2019: README of facebookresearch/fairseq, examples/roberta")
_OF_LIU_LARGE = ("single model", "Liu et al. 2019, arXiv 1907.11692, Table 5")
_OF_WARNER = ("best of a grid; RTE from an MNLI model", "Warner et al. 2024, arXiv 2412.13663, Table 5")
_WOLF = "cola sst-2 mrpc:f1/accuracy sts-b:pearson/spearman qqp:accuracy/f1 mnli mnli-mm qnli rte wnli"
_OF_CASED = "56.53 92.32 88.85/84.07 88.64/88.48 90.71/87.49 83.91 84.10 90.66 65.70 56.34"

_SOURCES = (
    _Source(
        "ELECTRA-Small-OWT, 14M", "dev", *_OF_ELECTRA, _figures(_ELECTRA, "56.8 88.3 87.4 86.8 88.3 78.9 87.9 68.5")
    ),
    _Source("ELECTRA-Small, 14M", "dev", *_OF_ELECTRA, _figures(_ELECTRA, "57.0 91.2 88.0 87.5 89.0 81.3 88.4 66.7")),
    _Source(
        "DistilBERT, 66M", "dev", *_OF_SANH, _figures("cola mnli qnli rte sst-2 wnli", "51.3 82.2 89.2 59.9 91.3 56.3")
    ),
    _Source(
        "crammed BERT",
        "dev",
        *_OF_GEIPING,
        _figures("mnli mnli-mm qnli sst-2 cola rte", "83.9 84.1 89.5 92.2 44.5 53.8"),
    ),
    _Source("BERT-Base, 110M", "dev", *_OF_DEVLIN, _figures("mnli mrpc sst-2", "84.4 86.7 92.9")),
    _Source("BERT-Base cased, 110M", "dev", *_OF_WOLF, _figures(_WOLF, _OF_CASED)),
    _Source("RoBERTa-base, 125M", "dev", *_OF_LIU, _figures("mnli qnli rte sst-2 cola", "87.6 92.8 78.7 94.8 63.6")),
    _Source(
        "ModernBERT-base, 149M", "dev", *_OF_WARNER, _figures("cola sst-2 mnli qnli rte", "65.1 96.0 89.1 93.9 87.4")
    ),
    _Source("BERT-Large, 340M", "dev", *_OF_DEVLIN, _figures("mnli mrpc sst-2", "86.6 87.8 93.7")),
    _Source("BERT-Large, 340M", "dev", *_OF_LIU_LARGE, _figures("qnli rte cola", "92.3 70.4 60.6")),
    _Source(
        "BERT-Tiny, 2 layers of 128",
        "test",
        *_OF_SMALL,
        _figures(_SMALL, "0.0 83.2 81.1/71.1 74.3/73.6 62.2/83.4 70.2 70.3 81.5 57.2 62.3"),
    ),
    _Source(
        "BERT-Mini, 4 layers of 256",
        "test",
        *_OF_SMALL,
        _figures(_SMALL, "0.0 85.9 81.1/71.8 75.4/73.3 66.4/86.2 74.8 74.3 84.1 57.9 62.3"),
    ),
    _Source(
        "BERT-Small, 4 layers of 512",
        "test",
        *_OF_SMALL,
        _figures(_SMALL, "27.8 89.7 83.4/76.2 78.8/77.0 68.1/87.0 77.6 77.0 86.4 61.8 62.3"),
    ),
    _Source(
        "BERT-Medium, 8 layers of 512",
        "test",
        *_OF_SMALL,
        _figures(_SMALL, "38.0 89.6 86.6/81.6 80.4/78.4 69.6/87.9 80.0 79.1 87.7 62.2 62.3"),
    ),
)
