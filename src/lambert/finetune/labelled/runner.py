"""Fine-tunings on labelled examples: learning rates, seeds, the best model, and what it got wrong."""

from __future__ import annotations

import logging
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lambert.finetune.cache import FineTuneResult
from lambert.finetune.job import FineTuneJob
from lambert.finetune.labelled.details import details_of, given_labels
from lambert.finetune.labelled.metrics import compute_metrics
from lambert.finetune.labelled.results import LabelledResult, LearningRateTrial, SeedResult, over_seeds
from lambert.finetune.labelled.sequences import LabelledSettings, sequence_preset
from lambert.finetune.labelled.split import hold_out
from lambert.finetune.labelled.tagging import tag_preset
from lambert.finetune.labelled.task import Task
from lambert.finetune.loop import TaskPreset
from lambert.finetune.runner import best_rate, run_seeds, try_rates

log = logging.getLogger("lambert")
HELD_OUT_FRACTION = 0.1
_PROBLEM_TYPES = {
    "classification": "single_label_classification",
    "multi-label": "multi_label_classification",
    "regression": "regression",
}


def preset_of(task: Task) -> TaskPreset:
    """How a task is fine-tuned."""
    return tag_preset(task) if task.kind == "tags" else sequence_preset(task)


def run_labelled(
    job: FineTuneJob[LabelledSettings],
    task: Task,
    seeds: Sequence[int],
    *,
    learning_rates: Sequence[float] = (),
    **fields: Any,
) -> LabelledResult:
    """All seeds (`run_seeds`).

    Args:
        learning_rates: peaks to choose from on held-out training examples, with the first seed.
        fields: of `LabelledResult`: `file_name`, `data`, `published`.
    """
    trials = _tried(job, task, learning_rates, seeds[0])
    if trials:
        rate = best_rate(trials, lambda trial: trial.score)
        job = replace(job, settings=replace(job.settings, learning_rate=rate))
    labels = given_labels(job.dev)
    fields |= {
        "majority_baseline": compute_metrics(task, labels, _baseline(task, job)),
        "train_examples": len(job.train),
        "dev_examples": len(job.dev),
        "random_weights": job.random_weights,
        "settings": job.settings,
        "trials": tuple(trials),
    }

    def of_seed(one: FineTuneResult, reused: bool) -> SeedResult:
        said = one.predictions["labels"]
        metrics = compute_metrics(task, labels, said)
        score = score_of(task, metrics)
        return SeedResult(one.seed, score, metrics, one.train_loss, one.seconds, reused, said, one.curve)

    def so_far(results: Sequence[SeedResult], best: FineTuneResult, model: str | None) -> LabelledResult:
        return over_seeds(task, results, model=model, details=details_of(task, job.dev, best.predictions), **fields)

    result = run_seeds(job, seeds, of_seed=of_seed, over_seeds=so_far, more_settings=class_settings(task))
    if not job.random_weights:
        _tell_of_baseline(task, result)
    return result


def _tell_of_baseline(task: Task, result: LabelledResult) -> None:
    """Warn of a model that is no better than a constant answer."""
    constant, trivial = result.majority_baseline, "the most frequent label"
    if "rmse" in task.metrics:
        name, trivial, own, other = "rmse", "the mean of the training labels", result.metrics["rmse"], constant["rmse"]
        is_worse = own >= other
    else:
        name, own, other = " and ".join(result.scored), result.score, score_of(task, constant)
        is_worse = own <= other
    if is_worse:
        log.warning(
            f"{task.name}: the model is no better than always predicting {trivial} ({name} {own:.4g} and {other:.4g}). "
            "Train for more epochs, try several `learning_rates`, or give more examples."
        )


def score_of(task: Task, metrics: Mapping[str, float]) -> float:
    """Mean of the metrics that are scored."""
    scored = task.scored or task.metrics
    return sum(metrics[name] for name in scored) / len(scored)


def class_settings(task: Task) -> dict[str, Any]:
    """What `config.json` says of the classes: their names and the problem type."""
    labels = task.labels or ("LABEL_0",)
    settings: dict[str, Any] = {
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    if task.kind in _PROBLEM_TYPES:
        settings["problem_type"] = _PROBLEM_TYPES[task.kind]
    return settings


def _baseline(task: Task, job: FineTuneJob[LabelledSettings]) -> list[Any]:
    """The most frequent label of the training examples for every development example; the mean, in a regression."""
    learned, count = given_labels(job.train), len(job.dev)
    if task.kind == "regression":
        return [statistics.fmean(learned)] * count
    if task.kind == "tags":
        most = Counter(tag for tags in learned for tag in tags).most_common(1)[0][0]
        return [[most] * len(example.words) for example in job.dev]
    if task.kind == "multi-label":
        return [list(statistics.mode(learned))] * count
    return [statistics.mode(learned)] * count


def _tried(job: FineTuneJob[LabelledSettings], task: Task, rates: Sequence[float], seed: int) -> list[LearningRateTrial]:  # fmt: skip  # noqa: E501
    """Each rate on a tenth of the training examples, chosen by the hash of their text."""
    if not rates:
        return []
    train, held_out = hold_out(job.train, job.preset.texts, HELD_OUT_FRACTION)
    labels, trials = given_labels(held_out), []
    for rate, result in try_rates(job, rates, train, held_out, seed):
        score = None
        if not result.problem:
            score = score_of(task, compute_metrics(task, labels, result.predictions["labels"]))
        trials.append(LearningRateTrial(rate, score, result.problem))
        reached = result.problem or f"{score:.2f}"
        log.info(f"learning rate {rate:g}: {reached} on {len(held_out):,} held-out training examples")
    return trials
