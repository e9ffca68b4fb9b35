"""One model, one task, several seeds: the task's figures with their spread, and the files that hold them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from lambert.corpus.vocabulary import load_vocabulary
from lambert.errors import UserError
from lambert.finetune.cache import write_json
from lambert.finetune.glue.finetune import GlueSettings, fine_tune, predict
from lambert.finetune.glue.metric import check_installed, figures
from lambert.finetune.glue.tasks import Example, GlueTask
from lambert.finetune.seeds import CONFIDENCE, mean_interval
from lambert.finetune.squad.settings import Progress
from lambert.model.heads import BertForClassification
from lambert.model.huggingface import load_model, model_folder, read_config


@dataclass(frozen=True)
class GlueSeed:
    """One fine-tuning."""

    seed: int
    score: float
    """Mean of the figures, 0 to 100."""
    figures: dict[str, float]
    train_loss: float
    seconds: float
    predictions: list[float]
    """Class numbers, or numbers, in the order of the examples."""


@dataclass(frozen=True)
class GlueResult:
    """A task's figures over all seeds."""

    task: str
    score: float
    """Mean over the seeds of the mean of the task's figures."""
    score_interval: tuple[float, float] | None
    """Where the mean of all seeds lies with this confidence; None for a single seed."""
    confidence: float
    figures: dict[str, float]
    """Metric → mean over the seeds."""
    commonest: dict[str, float]
    """The same of always giving the commonest label (the mean, for a number) of the training examples."""
    train_examples: int
    dev_examples: int
    random_weights: bool
    settings: GlueSettings
    seeds: tuple[GlueSeed, ...]


def load_for_task(
    path: Path, task: GlueTask, *, seed: int, random_weights: bool = False
) -> tuple[BertForClassification, Tokenizer]:
    """A folder's encoder with a new classifier, and its tokenizer.

    Raises:
        UserError: the folder or something in it is missing, damaged or not a BERT.
    """
    folder = model_folder(path)
    tokenizer = load_vocabulary(folder, cased=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if random_weights:
            return BertForClassification(read_config(folder), task.classes), tokenizer
        model, _ = load_model(folder, partial(BertForClassification, classes=task.classes))
    return model, tokenizer


def fine_tune_and_score(
    path: Path,
    task: GlueTask,
    train: Sequence[Example],
    dev: Sequence[Example],
    settings: GlueSettings,
    *,
    seeds: Sequence[int] = (0,),
    device: torch.device | None = None,
    random_weights: bool = False,
    progress: Progress | None = None,
    finished: Callable[[GlueResult], None] | None = None,
) -> GlueResult:
    """Fine-tune the model of a folder once for each seed and score it on the development examples.

    Args:
        seeds: whole numbers from 0; each decides the order, the dropout and the start of the classifier.
        finished: called after every seed with the figures over the seeds so far.

    Raises:
        UserError: from loading, from settings that do not fit, from a loss that is no number, or without the extra.
    """
    check_installed()
    if not train or not dev:
        raise UserError(f"{task.name} has no examples to learn or none to measure on", remedy="Give both")
    results: list[GlueSeed] = []
    labels = [example.label for example in dev]
    for seed in seeds:
        began = time.monotonic()
        model, tokenizer = load_for_task(path, task, seed=seed, random_weights=random_weights)
        model.to(device or torch.device("cpu"))
        loss = fine_tune(model, tokenizer, train, settings, seed=seed, progress=progress)
        said = predict(model, tokenizer, dev, settings)
        one = figures(task.metrics, labels, said)
        results.append(GlueSeed(seed, statistics.fmean(one.values()), one, loss, time.monotonic() - began, said))
        scores = [result.score for result in results]
        so_far = GlueResult(
            task=task.name,
            score=statistics.fmean(scores),
            score_interval=mean_interval(scores),
            confidence=CONFIDENCE,
            figures={name: statistics.fmean(result.figures[name] for result in results) for name in task.metrics},
            commonest=figures(task.metrics, labels, [_commonest(task, train)] * len(dev)),
            train_examples=len(train),
            dev_examples=len(dev),
            random_weights=random_weights,
            settings=settings,
            seeds=tuple(results),
        )
        if finished is not None:
            finished(so_far)
    return so_far


def result_fields(result: GlueResult) -> dict[str, Any]:
    """What `glue.json` holds: the whole result but the predictions, ready for JSON."""
    fields = asdict(result)
    fields["settings"]["precision"] = result.settings.precision.value
    for seed_fields in fields["seeds"]:
        del seed_fields["predictions"]
    return fields


def write_result(result: GlueResult, task: GlueTask, folder: Path) -> None:
    """Write `glue.json` and for every seed `predictions-seed-N.json`, a list in the order of the dev file.

    Raises:
        UserError: the folder cannot be written to.
    """
    for seed in result.seeds:
        said: list[Any] = [task.labels[int(value)] for value in seed.predictions] if task.labels else seed.predictions
        write_json(folder / f"predictions-seed-{seed.seed}.json", said)
    write_json(folder / "glue.json", result_fields(result))


def _commonest(task: GlueTask, train: Sequence[Example]) -> float:
    labels = [example.label for example in train]
    return statistics.mode(labels) if task.labels else statistics.fmean(labels)
