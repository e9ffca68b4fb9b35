"""The metrics of a model over its seeds, and the files that hold them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lambert.finetune.cache import FineTuneResult
from lambert.finetune.files import result_fields, write_json
from lambert.finetune.runner import best_seed
from lambert.finetune.seeds import CONFIDENCE, mean_interval
from lambert.finetune.squad.data import Question, Version
from lambert.finetune.squad.metric import BestThreshold, SubsetScore, score
from lambert.finetune.squad.settings import SquadSettings


@dataclass(frozen=True)
class RateTrial:
    """One learning rate on the held-out questions."""

    learning_rate: float
    exact_match: float | None  # 0 to 100; None where the loss diverged
    f1: float | None
    train_loss: float | None
    problem: str | None


@dataclass(frozen=True)
class Tuning:
    """How the learning rate was chosen."""

    seed: int
    """Of all trials."""
    held_out: str
    """Which part of the training questions the trials were measured on, as text."""
    train_questions: int
    held_out_questions: int
    trials: tuple[RateTrial, ...]
    learning_rate: float
    """The one with the highest F1; of equals, the lowest."""


@dataclass(frozen=True)
class SeedResult:
    """One fine-tuning and its metrics on the development questions."""

    seed: int
    exact_match: float  # 0 to 100
    f1: float  # 0 to 100
    has_answer: SubsetScore | None
    """v2.0: over the questions with an answer."""
    no_answer: SubsetScore | None
    """v2.0: over those without."""
    best: BestThreshold | None
    """v2.0: the best spans with the best threshold for the null odds, tuned on these very questions."""
    train_loss: float | None
    steps: int
    train_windows: int
    dev_windows: int
    seconds: float
    """Training and evaluation together."""
    reused: bool
    """Whether it comes from the cache."""
    predictions: dict[str, str]
    """Question id → answer; in v2.0 "" where the null odds are above the threshold."""
    spans: dict[str, str]
    """Question id → the best span, whatever the odds; in v1.1 the same as the predictions."""
    null_odds: dict[str, float] | None
    """v2.0: question id → null odds."""
    curve: list[list[float]]
    """Of the training loss: steps, and the mean of the steps since the point before."""

    @property
    def score(self) -> float:
        """What decides which seed is the best: F1, in v2.0 with the best threshold, so that none that is chosen later
        changes it."""
        return self.f1 if self.best is None else self.best.f1

    def text(self) -> str:
        """The metrics as one line."""
        return f"exact match {self.exact_match:.2f}  F1 {self.f1:.2f}"


@dataclass(frozen=True)
class SquadResult:
    """The metrics of a model over all its seeds."""

    version: Version
    exact_match: float
    """Mean over the seeds, 0 to 100."""
    f1: float
    exact_match_interval: tuple[float, float] | None
    """Confidence interval of the mean (`seeds.mean_interval`); None for a single seed."""
    f1_interval: tuple[float, float] | None
    confidence: float
    exact_match_deviation: float | None
    """Standard deviation between the seeds (n − 1); None for a single seed."""
    f1_deviation: float | None
    has_answer: SubsetScore | None
    """v2.0: means over the seeds, over the questions with an answer; None in v1.1 or where there are none."""
    no_answer: SubsetScore | None
    best_exact_match: float | None
    """v2.0: mean of each seed's best; see `SeedResult.best`."""
    best_f1: float | None
    train_questions: int
    dev_questions: int
    tuning: Tuning | None
    """How the learning rate was chosen; None where it was given or by default."""
    new_head: bool
    """Whether the span head had no pre-trained weights."""
    random_weights: bool
    """Whether the encoder had none either."""
    settings: SquadSettings
    """With the learning rate that was used."""
    seeds: tuple[SeedResult, ...]
    best_seed: int
    """Of the highest `SeedResult.score`."""
    model: str | None
    """Its model, a Hugging Face folder; None where nothing was written."""
    details: dict[str, Any]
    """Of its answers: see `details_of`."""

    def to_dict(self) -> dict[str, Any]:
        """The contents of `squad.json`: everything but the predictions, ready for JSON."""
        return result_fields(self, left_out=("predictions", "spans", "null_odds"))

    def write(self, folder: Path) -> None:
        """Write `squad.json` and, in the official format, the predictions of every seed.

        `predictions.json` holds those of the first seed, `predictions-seed-N.json` those of each other one. v2.0 adds
        `null_odds.json`, and `spans.json`, the best spans whatever the odds. The official script computes the seed's
        metrics from the predictions, and its best ones from the spans with the odds.

        Raises:
            UserError: the folder cannot be written to.
        """
        for index, seed in enumerate(self.seeds):
            suffix = f"-seed-{seed.seed}" if index else ""
            write_json(folder / f"predictions{suffix}.json", seed.predictions)
            if seed.null_odds is not None:
                write_json(folder / f"null_odds{suffix}.json", seed.null_odds)
                write_json(folder / f"spans{suffix}.json", seed.spans)
        write_json(folder / "squad.json", self.to_dict())


def seed_result(
    result: FineTuneResult, dev: Sequence[Question], version: Version, *, null_threshold: float, reused: bool
) -> SeedResult:
    """A fine-tuning's metrics, as the questions' version defines them."""
    spans = predictions = result.predictions["spans"]
    null_odds, best = None, None
    if version == "2.0":
        null_odds = result.predictions["null_odds"]
        predictions = {name: "" if null_odds[name] > null_threshold else span for name, span in spans.items()}
        best = score(dev, spans, version, null_odds=null_odds).best
    metrics = score(dev, predictions, version)
    return SeedResult(
        seed=result.seed,
        exact_match=metrics.exact_match,
        f1=metrics.f1,
        has_answer=metrics.has_answer,
        no_answer=metrics.no_answer,
        best=best,
        train_loss=result.train_loss,
        steps=result.steps,
        train_windows=result.train_sequences,
        dev_windows=result.dev_sequences,
        seconds=result.seconds,
        reused=reused,
        predictions=predictions,
        spans=spans,
        null_odds=null_odds,
        curve=result.curve,
    )


def over_seeds(seeds: Sequence[SeedResult], **others: Any) -> SquadResult:
    """The seeds' means and confidence intervals; `others` are the remaining fields of `SquadResult`."""
    exact_matches, f1s = [seed.exact_match for seed in seeds], [seed.f1 for seed in seeds]
    bests = [seed.best for seed in seeds if seed.best is not None]
    several = len(seeds) > 1
    return SquadResult(
        exact_match=statistics.fmean(exact_matches),
        f1=statistics.fmean(f1s),
        exact_match_interval=mean_interval(exact_matches),
        f1_interval=mean_interval(f1s),
        confidence=CONFIDENCE,
        exact_match_deviation=statistics.stdev(exact_matches) if several else None,
        f1_deviation=statistics.stdev(f1s) if several else None,
        has_answer=_mean([seed.has_answer for seed in seeds if seed.has_answer is not None]),
        no_answer=_mean([seed.no_answer for seed in seeds if seed.no_answer is not None]),
        best_exact_match=statistics.fmean(best.exact_match for best in bests) if bests else None,
        best_f1=statistics.fmean(best.f1 for best in bests) if bests else None,
        seeds=tuple(seeds),
        best_seed=best_seed(seeds),
        **others,
    )


def _mean(scores: Sequence[SubsetScore]) -> SubsetScore | None:
    if not scores:
        return None
    exact_match = statistics.fmean(one.exact_match for one in scores)
    return SubsetScore(exact_match, statistics.fmean(one.f1 for one in scores), scores[0].questions)
