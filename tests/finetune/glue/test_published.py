"""Published scores, against the averages that their own sources print."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from lambert.finetune.glue.published import published_scores
from lambert.finetune.glue.tasks import TASKS
from lambert.report.published import published_rows

DOCS = Path(__file__).parents[3] / "docs" / "glue.md"

# Left out of the table, since their sources do not name the metric.
UNNAMED = {
    "DistilBERT, 66M": {"mrpc": 87.5, "qqp": 88.5, "sts-b": 86.9},
    "crammed BERT": {"mrpc": 87.5, "qqp": 87.3, "sts-b": 84.6},
    "ModernBERT-base, 149M": {"mrpc": 92.2, "qqp": 92.1, "sts-b": 91.8},
    "RoBERTa-base, 125M": {"mrpc": 90.2, "qqp": 91.9, "sts-b": 91.2},
}
AVERAGES = {
    "BERT-Tiny, 2 layers of 128": 64.2,
    "BERT-Mini, 4 layers of 256": 65.8,
    "BERT-Small, 4 layers of 512": 71.2,
    "BERT-Medium, 8 layers of 512": 73.5,
    "DistilBERT, 66M": 77.0,
    "crammed BERT": 78.6,  # MNLI counts twice
    "ModernBERT-base, 149M": 88.4,
    "RoBERTa-base, 125M": 86.4,
}


@pytest.mark.parametrize(("model", "average"), AVERAGES.items())
def test_the_average_is_the_published_one(model: str, average: float) -> None:
    scores = dict(UNNAMED.get(model, {}))
    for task in TASKS:
        for one in published_scores(task):
            if one.model == model:
                scores[task] = statistics.fmean(one.metrics.values())
    if "BERT-" in model and "layers" in model:
        scores["mnli"] = (scores["mnli"] + scores.pop("mnli-mm")) / 2
    assert statistics.fmean(scores.values()) == pytest.approx(average, abs=0.1)


@pytest.mark.parametrize("task", TASKS)
def test_metrics_are_those_of_the_task(task: str) -> None:
    found = published_scores(task)
    assert {one.split for one in found} == {"dev", "test"}
    assert [one.split for one in found] == sorted(one.split for one in found)
    assert all(one.metrics and set(one.metrics) <= set(TASKS[task].metrics) for one in found)
    assert len({(one.model, one.split) for one in found}) == len(found)


def test_figures_as_printed() -> None:
    found = {(one.model, one.split): one.metrics for one in published_scores("mrpc")}
    assert found["BERT-Base cased, 110M", "dev"] == {"f1": 88.85, "accuracy": 84.07}
    assert found["BERT-Large, 340M", "dev"] == {"accuracy": 87.8}
    assert found["BERT-Mini, 4 layers of 256", "test"] == {"f1": 81.1, "accuracy": 71.8}


@pytest.mark.parametrize("task", TASKS)
def test_the_documentation_has_every_figure(task: str) -> None:
    lines = [line.strip("| ").split(" | ") for line in DOCS.read_text(encoding="utf-8").splitlines() if " | " in line]
    names = next(line for line in lines if line[0] == "development set")
    column = next(n for n, name in enumerate(names) if name.split(" ")[0].lower() == task)
    by_model = {line[0]: line for line in lines}
    scores = [vars(one) for one in published_scores(task)]
    for split in ("dev", "test"):
        for model, *values, _, _ in published_rows(scores, TASKS[task].metrics, split):
            cell = by_model[model][column]
            assert cell == " / ".join(values) or cell in values
