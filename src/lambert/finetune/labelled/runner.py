"""Fine-tunings on labelled examples: learning rates, seeds, the best model, and what it got wrong."""

from __future__ import annotations

import logging
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from tokenizers import Tokenizer
from torch import nn

from lambert.errors import UserError
from lambert.finetune.cache import FineTuneResult
from lambert.finetune.job import FineTuneJob
from lambert.finetune.labelled.best_model import BestModel, finished_model, score_of
from lambert.finetune.labelled.details import details_of, given_labels
from lambert.finetune.labelled.metrics import compute_metrics
from lambert.finetune.labelled.results import (
    MODEL_FOLDER,
    LabelledResult,
    LearningRateTrial,
    PublishedScore,
    SeedResult,
    over_seeds,
)
from lambert.finetune.labelled.sequences import LabelledSettings, sequence_preset
from lambert.finetune.labelled.split import hold_out
from lambert.finetune.labelled.tagging import tag_preset
from lambert.finetune.labelled.task import Task
from lambert.finetune.loop import TaskPreset

log = logging.getLogger("lambert")
HELD_OUT_FRACTION = 0.1


def preset_of(task: Task) -> TaskPreset:
    """How a task is fine-tuned."""
    return tag_preset(task) if task.kind == "tags" else sequence_preset(task)


def run_labelled(
    job: FineTuneJob[LabelledSettings],
    task: Task,
    seeds: Sequence[int],
    *,
    file_name: str,
    learning_rates: Sequence[float] = (),
    data: dict[str, Any] | None = None,
    published: Sequence[PublishedScore] = (),
) -> LabelledResult:
    """All seeds; results are written after each, so that an interruption loses at most the next one.

    Args:
        file_name: of the results, in the job's folder.
        learning_rates: peaks to choose from on held-out training examples, with the first seed.
        data, published: fields of `LabelledResult`.
    """
    trials = _tried(job, task, learning_rates, seeds[0])
    if trials:
        job = replace(job, settings=replace(job.settings, learning_rate=_best_rate(trials)))
    best = None if job.out is None else BestModel(job.out / MODEL_FOLDER, task, list(job.dev))
    if best is not None:
        job = replace(job, trained=partial(_kept, best, job))
    labels = given_labels(job.dev)
    fields: dict[str, Any] = {
        "majority_baseline": compute_metrics(task, labels, _baseline(task, job)),
        "train_examples": len(job.train),
        "dev_examples": len(job.dev),
        "random_weights": job.random_weights,
        "settings": job.settings,
        "trials": tuple(trials),
        "data": data or {},
        "published": tuple(published),
        "model": None if best is None else str(best.folder),
    }
    results: list[SeedResult] = []
    found: dict[int, FineTuneResult] = {}
    for one, reused in job.run_seeds(seeds):
        results.append(_seed_result(task, job, one, reused=reused))
        found[one.seed] = one
        if best is not None:
            best.score = max(best.score, results[-1].score)
        so_far = over_seeds(task, results, **fields)
        so_far = replace(so_far, details=details_of(task, job.dev, found[so_far.best_seed].predictions))
        if job.out is not None:
            so_far.write(job.out, file_name, task)
        values = "  ".join(f"{name} {value:.2f}" for name, value in results[-1].metrics.items())
        log.info(f"seed {one.seed}: {values}  ({'cached' if reused else f'{one.seconds:.0f} s'})")
    if best is not None:
        finished_model(job, best, so_far.best_seed)
    return so_far


def _kept(
    best: BestModel, job: FineTuneJob[LabelledSettings], model: nn.Module, tokenizer: Tokenizer, result: FineTuneResult
) -> None:
    best.offer(model, tokenizer, result, job.made_from(result.seed))


def _seed_result(task: Task, job: FineTuneJob[LabelledSettings], one: FineTuneResult, *, reused: bool) -> SeedResult:
    metrics = compute_metrics(task, given_labels(job.dev), one.predictions["labels"])
    score = score_of(task, list(job.dev), one)
    return SeedResult(one.seed, score, metrics, one.train_loss, one.seconds, reused, one.predictions["labels"])


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


def _tried(
    job: FineTuneJob[LabelledSettings], task: Task, rates: Sequence[float], seed: int
) -> list[LearningRateTrial]:  # fmt: skip
    """Each rate on a tenth of the training examples, chosen by the hash of their text."""
    if not rates:
        return []
    train, held_out = hold_out(job.train, job.preset.texts, HELD_OUT_FRACTION)
    trials = []
    for number, rate in enumerate(rates, start=1):
        trial = replace(
            job, train=train, dev=held_out, settings=replace(job.settings, learning_rate=rate), trained=None
        )
        title = f"learning rate {rate:g} ({number} of {len(rates)})"
        result, _ = trial.run(f"rate-{rate:g}", seed, title, may_diverge=True)
        score = None if result.problem else score_of(task, held_out, result)
        trials.append(LearningRateTrial(rate, score, result.problem))
        reached = result.problem or f"{score:.2f}"
        log.info(f"learning rate {rate:g}: {reached} on {len(held_out):,} held-out training examples")
    return trials


def _best_rate(trials: Sequence[LearningRateTrial]) -> float:
    """The rate of the highest score; of equals, the lowest."""
    finished = [(trial.score, -trial.learning_rate) for trial in trials if trial.score is not None]
    if not finished:
        raise UserError(f"every learning rate diverged ({trials[0].problem})", remedy="Try lower learning rates")
    return -max(finished)[1]
