"""Fine-tuning on a GLUE task from Python: the task's metrics with their confidence interval."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lambert.errors import UserError
from lambert.finetune.files import result_fields, write_json
from lambert.finetune.glue.metric import check_installed, compute_metrics
from lambert.finetune.glue.task import GlueSettings, glue_preset
from lambert.finetune.glue.tasks import Example, GlueTask, find_task, read_split
from lambert.finetune.job import FineTuneJob
from lambert.finetune.seeds import CONFIDENCE, checked_seeds, mean_interval
from lambert.finetune.settings import Progress
from lambert.model.config_file import read_config
from lambert.model.huggingface import model_folder

log = logging.getLogger("lambert")


@dataclass(frozen=True)
class GlueSeed:
    """One fine-tuning."""

    seed: int
    score: float
    """Mean of the metrics, 0 to 100."""
    metrics: dict[str, float]
    train_loss: float | None
    seconds: float
    reused: bool
    """Whether it comes from the cache."""
    predictions: list[float]
    """Class indices, or numbers, in the order of the examples."""


@dataclass(frozen=True)
class GlueResult:
    """A task's metrics over all seeds."""

    task: str
    score: float
    """Mean over the seeds of the mean of the task's metrics."""
    score_interval: tuple[float, float] | None
    """Confidence interval of the mean (`seeds.mean_interval`); None for a single seed."""
    confidence: float
    metrics: dict[str, float]
    """Metric → mean over the seeds."""
    majority_baseline: dict[str, float]
    """The metrics of always predicting the majority class (the mean, in a regression) of the training examples."""
    train_examples: int
    dev_examples: int
    random_weights: bool
    settings: GlueSettings
    """With the learning rate that was used."""
    seeds: tuple[GlueSeed, ...]

    def to_dict(self) -> dict[str, Any]:
        """The contents of `glue.json`: everything but the predictions, ready for JSON."""
        return result_fields(self, left_out=("predictions",))

    def write(self, folder: Path) -> None:
        """Write `glue.json` and for every seed `predictions-seed-N.json`, a list in the order of the dev file.

        Raises:
            UserError: the folder cannot be written to.
        """
        names = find_task(self.task).labels
        for seed in self.seeds:
            labels = [names[int(value)] for value in seed.predictions] if names else seed.predictions
            write_json(folder / f"predictions-seed-{seed.seed}.json", labels)
        write_json(folder / "glue.json", self.to_dict())


def finetune_glue(
    model: str | Path,
    task: str,
    *,
    data: str | Path | tuple[Sequence[Example], Sequence[Example]],
    out: str | Path | None = None,
    seeds: int | Sequence[int] = 1,
    train_examples: int | None = None,
    fresh: bool = False,
    settings: GlueSettings | None = None,
    random_weights: bool = False,
    cased: bool = False,
    device: torch.device | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> GlueResult:
    """Fine-tune a model on a task of GLUE, once for each seed, and measure it with the task's metrics::

        result = lambert.finetune_glue("runs/mine", "mrpc", data="glue/MRPC", seeds=5, out="runs/mrpc")
        result.score, result.score_interval, result.majority_baseline

    Args:
        model: a run, or a Hugging Face BERT folder.
        task: sst-2, mrpc, rte, cola or sts-b.
        data: GLUE's folder of the task, or the examples to train on and those to measure.
        out: folder for `glue.json`, the predictions and the finished seeds, which the same call does not repeat. It is
            written after every seed. None writes nothing.
        seeds: how many (0, 1, …) or which. A seed decides order, dropout and the initialisation of the classifier.
        train_examples: train on the first so many.
        fresh: repeat every seed.
        settings: everything else as one object; or give the fields of `GlueSettings` by name, such as `epochs`.
        random_weights, cased, device, progress: as in `FineTuneJob`.

    Raises:
        UserError: an argument, the model or a file is wrong, the loss diverged, the extra `glue` is not installed, or
            `out` holds results of other work.
    """
    check_installed()
    about, config = find_task(task), read_config(model_folder(Path(model)))
    seeds, settings = checked_seeds(seeds), GlueSettings.of(settings, **options).resolved(config.hidden_size)
    if train_examples is not None and train_examples < 1:
        raise UserError(f"`train_examples` = {train_examples}", remedy="Give a whole number from 1")
    if not isinstance(data, tuple):
        data = read_split(Path(data), about, "train"), read_split(Path(data), about, "dev")
    train, dev = data
    if not train or not dev:
        raise UserError(f"there are no examples of {about.name} to train on or to measure", remedy="Give both")
    train = train[:train_examples]
    _warn_of_one_label(about, train, dev)
    how: dict[str, Any] = {"random_weights": random_weights, "cased": cased, "device": device, "progress": progress}
    how["out"] = None if out is None else Path(out)
    job = FineTuneJob(Path(model), glue_preset(about), train, dev, settings, **how)
    job.prepare(fresh=fresh)
    return _run(job, about, seeds)


def _warn_of_one_label(task: GlueTask, train: Sequence[Example], dev: Sequence[Example]) -> None:
    mix = "Train on more of them, or mix the lines of the file"
    for name, examples, remedy in (("training", train, mix), ("dev", dev, "Measure others")):
        if len({example.label for example in examples}) == 1:
            what = f"all {len(examples):,} {name} examples of {task.name} have the same label"
            log.warning(f"{what}, so nothing can be told apart. {remedy}.")


def _run(job: FineTuneJob[GlueSettings], task: GlueTask, seeds: Sequence[int]) -> GlueResult:
    """All seeds; results are written after each, so that an interruption loses at most the next one."""
    labels, train_labels = ([example.label for example in examples] for examples in (job.dev, job.train))
    majority = statistics.mode(train_labels) if task.labels else statistics.fmean(train_labels)
    results: list[GlueSeed] = []
    for one, reused in job.run_seeds(seeds):
        predictions = one.predictions["labels"]
        metrics = compute_metrics(task.metrics, labels, predictions)
        score = statistics.fmean(metrics.values())
        results.append(GlueSeed(one.seed, score, metrics, one.train_loss, one.seconds, reused, predictions))
        scores = [result.score for result in results]
        so_far = GlueResult(
            task=task.name,
            score=statistics.fmean(scores),
            score_interval=mean_interval(scores),
            confidence=CONFIDENCE,
            metrics={name: statistics.fmean(result.metrics[name] for result in results) for name in task.metrics},
            majority_baseline=compute_metrics(task.metrics, labels, [majority] * len(labels)),
            train_examples=len(job.train),
            dev_examples=len(job.dev),
            random_weights=job.random_weights,
            settings=job.settings,
            seeds=tuple(results),
        )
        if job.out is not None:
            so_far.write(job.out)
        values = "  ".join(f"{name} {value:.2f}" for name, value in metrics.items())
        log.info(f"seed {one.seed}: {values}  ({'cached' if reused else f'{one.seconds:.0f} s'})")
    return so_far
