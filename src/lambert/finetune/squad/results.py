"""The figures of a model over its seeds, and the files that hold them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lambert.finetune.cache import Outcome, write_json
from lambert.finetune.seeds import CONFIDENCE, mean_interval
from lambert.finetune.squad.data import Question, Version
from lambert.finetune.squad.metric import BestThreshold, Part, score
from lambert.finetune.squad.metric_v2 import score_v2
from lambert.finetune.squad.settings import FineTuneSettings
from lambert.finetune.squad.tuning import Tuning

_BULKY = ("predictions", "spans", "null_odds")


@dataclass(frozen=True)
class SeedResult:
    """One fine-tuning and its figures on the development questions."""

    seed: int
    exact_match: float  # 0 to 100
    f1: float  # 0 to 100
    has_answer: Part | None
    """v2.0: over the questions with an answer."""
    no_answer: Part | None
    """v2.0: over those without."""
    best: BestThreshold | None
    """v2.0: the best spans with the best threshold for the odds of no answer, chosen on these very questions."""
    train_loss: float | None
    steps: int
    train_windows: int
    dev_windows: int
    seconds: float
    """Training and evaluation together."""
    reused: bool
    """Whether the fine-tuning is from an earlier command."""
    predictions: dict[str, str]
    """Question id → answer; in v2.0 "" where the odds of no answer are above the threshold."""
    spans: dict[str, str]
    """Question id → the best span, whatever the odds; in v1.1 the same as the predictions."""
    null_odds: dict[str, float] | None


@dataclass(frozen=True)
class SquadResult:
    """The figures of a model over all its seeds."""

    version: Version
    exact_match: float
    """Mean over the seeds, 0 to 100."""
    f1: float
    exact_match_interval: tuple[float, float] | None
    """Where the mean of all seeds lies with this confidence (`spread.mean_interval`); None for a single seed."""
    f1_interval: tuple[float, float] | None
    confidence: float
    exact_match_deviation: float | None
    """Standard deviation between the seeds (n − 1); None for a single seed."""
    f1_deviation: float | None
    has_answer: Part | None
    """v2.0: means over the seeds, over the questions with an answer; None in v1.1 or where there are none."""
    no_answer: Part | None
    best_exact_match: float | None
    """v2.0: mean of each seed's best; see `SeedResult.best`."""
    best_f1: float | None
    train_questions: int
    dev_questions: int
    learning_rate: float
    tuning: Tuning | None
    """How the learning rate was chosen; None where it was given or by default."""
    new_head: bool
    """Whether the span head started from random weights."""
    random_weights: bool
    """Whether the encoder did too."""
    settings: FineTuneSettings
    seeds: tuple[SeedResult, ...]


def seed_result(
    outcome: Outcome, dev: Sequence[Question], version: Version, *, null_threshold: float, reused: bool
) -> SeedResult:
    """A fine-tuning's figures by the definition of the questions' version."""
    predictions, best = outcome.spans, None
    if version == "2.0":
        odds = outcome.null_odds or {}
        predictions = {
            identifier: "" if odds[identifier] > null_threshold else span for identifier, span in outcome.spans.items()
        }
        figures = score_v2(dev, predictions)
        best = score_v2(dev, outcome.spans, null_odds=odds).best
    else:
        figures = score(dev, predictions)
    return SeedResult(
        seed=outcome.seed,
        exact_match=figures.exact_match,
        f1=figures.f1,
        has_answer=figures.has_answer,
        no_answer=figures.no_answer,
        best=best,
        train_loss=outcome.train_loss,
        steps=outcome.steps,
        train_windows=outcome.train_windows,
        dev_windows=outcome.dev_windows,
        seconds=outcome.seconds,
        reused=reused,
        predictions=predictions,
        spans=outcome.spans,
        null_odds=outcome.null_odds,
    )


def over_seeds(seeds: Sequence[SeedResult], *, questions: tuple[int, int], **others: Any) -> SquadResult:
    """The seeds' means and how far they can be trusted.

    Args:
        questions: how many to learn and to be scored on.
        others: the remaining fields of `SquadResult`.
    """
    exact_matches, f1s = [seed.exact_match for seed in seeds], [seed.f1 for seed in seeds]
    bests = [seed.best for seed in seeds if seed.best is not None]
    return SquadResult(
        exact_match=statistics.fmean(exact_matches),
        f1=statistics.fmean(f1s),
        exact_match_interval=mean_interval(exact_matches),
        f1_interval=mean_interval(f1s),
        confidence=CONFIDENCE,
        exact_match_deviation=_deviation(exact_matches),
        f1_deviation=_deviation(f1s),
        has_answer=_mean_part([seed.has_answer for seed in seeds if seed.has_answer is not None]),
        no_answer=_mean_part([seed.no_answer for seed in seeds if seed.no_answer is not None]),
        best_exact_match=statistics.fmean(best.exact_match for best in bests) if bests else None,
        best_f1=statistics.fmean(best.f1 for best in bests) if bests else None,
        train_questions=questions[0],
        dev_questions=questions[1],
        seeds=tuple(seeds),
        **others,
    )


def result_fields(result: SquadResult) -> dict[str, Any]:
    """What `squad.json` holds: the whole result but the answers themselves, ready for JSON."""
    fields = asdict(result)
    fields["settings"]["precision"] = result.settings.precision.value
    fields["settings"]["learning_rate"] = fields.pop("learning_rate")
    for seed_fields in fields["seeds"]:
        for name in _BULKY:
            del seed_fields[name]
    return fields


def write_result(result: SquadResult, folder: Path) -> None:
    """Write `squad.json` and, in the official format, what every seed answered.

    `predictions.json` holds the predictions of the first seed, `predictions-seed-N.json` those of each further one. For
    v2.0 there are likewise `null_odds.json`, the odds of no answer, and `spans.json`, the best spans whatever the odds:
    the official script gives the seed's figures for the predictions, and its best ones for the spans with the odds.
    Each file is written aside and renamed.

    Raises:
        UserError: the folder cannot be written to.
    """
    for place, seed in enumerate(result.seeds):
        suffix = f"-seed-{seed.seed}" if place else ""
        write_json(folder / f"predictions{suffix}.json", seed.predictions)
        if seed.null_odds is not None:
            write_json(folder / f"null_odds{suffix}.json", seed.null_odds)
            write_json(folder / f"spans{suffix}.json", seed.spans)
    write_json(folder / "squad.json", result_fields(result))


def _mean_part(parts: Sequence[Part]) -> Part | None:
    if not parts:
        return None
    exact_match = statistics.fmean(part.exact_match for part in parts)
    return Part(exact_match, statistics.fmean(part.f1 for part in parts), parts[0].questions)


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
