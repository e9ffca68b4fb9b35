"""GLUE's metrics against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from lambert.errors import UserError
from lambert.finetune.labelled import metrics
from lambert.finetune.labelled.metrics import check_installed
from lambert.finetune.labelled.task import Task

LABELS = [1.0, 1.0, 1.0, 0.0, 0.0]
SAID = [1.0, 1.0, 0.0, 1.0, 0.0]  # 2 true positives, 1 false positive, 1 false negative, 1 true negative


def compute_metrics(names: tuple[str, ...], labels: list[float], predictions: list[float]) -> dict[str, float]:
    return metrics.compute_metrics(Task("any", "classification", ("no", "yes"), names), labels, predictions)


def test_classes() -> None:
    found = compute_metrics(("accuracy", "f1", "matthews"), LABELS, SAID)
    assert found["accuracy"] == pytest.approx(60.0)
    assert found["f1"] == pytest.approx(100 * 4 / 6)
    # (2·1 − 1·1) / √(3·3·2·2)
    assert found["matthews"] == pytest.approx(100 / 6)


def test_numbers() -> None:
    found = compute_metrics(("pearson", "spearman"), [0.0, 1.0, 2.0, 5.0], [1.0, 3.0, 2.0, 9.0])
    # deviations −2 −1 0 3 and −2.75 −.75 −1.75 5.25: 22 / √(14 · 38.75)
    assert found["pearson"] == pytest.approx(100 * 22 / math.sqrt(14 * 38.75))
    # ranks 1 3 2 4: 1 − 6·2/(4·15)
    assert found["spearman"] == pytest.approx(80.0)


def test_what_is_not_defined_counts_nothing() -> None:
    assert compute_metrics(("pearson", "spearman"), [1.0, 2.0], [3.0, 3.0]) == {"pearson": 0.0, "spearman": 0.0}
    assert compute_metrics(("f1", "matthews"), [1.0, 0.0], [0.0, 0.0]) == {"f1": 0.0, "matthews": 0.0}


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'lambert-bert\[finetune\]'"):
        check_installed()
