"""What fine-tunings on labelled examples found, and the files of it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lambert.finetune.files import result_fields, write_json
from lambert.finetune.labelled.details import label_names
from lambert.finetune.labelled.sequences import LabelledSettings
from lambert.finetune.labelled.task import Task
from lambert.finetune.runner import best_seed
from lambert.finetune.seeds import CONFIDENCE, mean_interval

Split = Literal["dev", "test"]


@dataclass(frozen=True)
class SeedResult:
    """One fine-tuning."""

    seed: int
    score: float
    """Mean of the metrics that are scored."""
    metrics: dict[str, float]
    train_loss: float | None
    seconds: float
    reused: bool
    """Whether it comes from the cache."""
    predictions: list[Any]
    """Class indices, numbers, or lists of indices, in the order of the development examples."""
    curve: list[list[float]] = field(default_factory=list)
    """Of the training loss: steps, and the mean of the steps since the point before."""

    def text(self) -> str:
        """The metrics as one line."""
        return "  ".join(f"{name} {value:.2f}" for name, value in self.metrics.items())


@dataclass(frozen=True)
class LearningRateTrial:
    """One learning rate, tried with the first seed."""

    learning_rate: float
    score: float | None
    """On the development examples; None after a divergence."""
    problem: str | None = None


@dataclass(frozen=True)
class PublishedScore:
    """What a published model scores on the task."""

    model: str
    split: Split
    """What it was measured on. Scores of different splits do not compare."""
    metrics: dict[str, float]
    how: str
    """What the figures are, such as "median of 5 seeds"."""
    source: str
    """Where they stand."""


@dataclass(frozen=True)
class LabelledResult:
    """The metrics over all seeds."""

    task: str
    kind: str
    """classification, multi-label, regression or tags."""
    labels: tuple[str, ...]
    score: float
    """Mean over the seeds of `SeedResult.score`."""
    score_interval: tuple[float, float] | None
    """Confidence interval of the mean (`seeds.mean_interval`); None for a single seed."""
    confidence: float
    scored: tuple[str, ...]
    """Metrics whose mean is the score."""
    metrics: dict[str, float]
    """Metric → mean over the seeds."""
    metric_intervals: dict[str, tuple[float, float] | None]
    """Metric → confidence interval of its mean; None for a single seed."""
    majority_baseline: dict[str, float]
    """The metrics of always predicting the most frequent label (the mean, in a regression) of the training examples."""
    train_examples: int
    dev_examples: int
    random_weights: bool
    settings: LabelledSettings
    """With the learning rate that was used."""
    seeds: tuple[SeedResult, ...]
    trials: tuple[LearningRateTrial, ...] = ()
    """Where several learning rates were given."""
    best_seed: int = 0
    """Whose model is in `model`."""
    model: str | None = None
    """The Hugging Face folder of the best seed; None where nothing was written."""
    details: dict[str, Any] = field(default_factory=dict)
    """Of the best seed: see `details_of`."""
    data: dict[str, Any] = field(default_factory=dict)
    """What was read: sources, columns, examples by label, texts with several labels."""
    published: tuple[PublishedScore, ...] = ()
    """Of a task of GLUE: those of the development set first."""

    file_name: str = "finetune.json"
    """Of the results, in their folder."""

    def to_dict(self) -> dict[str, Any]:
        """Everything but the predictions, ready for JSON."""
        fields = result_fields(self, left_out=("predictions",))
        del fields["file_name"]
        return fields

    def write(self, folder: Path) -> None:
        """Write the results, and for every seed `predictions-seed-N.json`, a list in the order of the examples.

        Raises:
            UserError: the folder cannot be written to.
        """
        for seed in self.seeds:
            labels = [label_names(self.kind, self.labels, label) for label in seed.predictions]
            write_json(folder / f"predictions-seed-{seed.seed}.json", labels)
        write_json(folder / self.file_name, self.to_dict())


def over_seeds(task: Task, seeds: Sequence[SeedResult], **fields: Any) -> LabelledResult:
    """Means over seeds.

    Args:
        fields: of `LabelledResult`.
    """
    scores = [one.score for one in seeds]
    values = {name: [one.metrics[name] for one in seeds] for name in task.metrics}
    return LabelledResult(
        task=task.name,
        kind=task.kind,
        labels=task.labels,
        scored=task.scored or task.metrics,
        score=statistics.fmean(scores),
        score_interval=mean_interval(scores),
        confidence=CONFIDENCE,
        metrics={name: statistics.fmean(several) for name, several in values.items()},
        metric_intervals={name: mean_interval(several) for name, several in values.items()},
        seeds=tuple(seeds),
        best_seed=best_seed(seeds),
        **fields,
    )
