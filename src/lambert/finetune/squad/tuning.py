"""Choosing a learning rate on held-out training questions, never on the development set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lambert.errors import UserError
from lambert.finetune.job import FineTuneJob
from lambert.finetune.runner import best_rate, try_rates
from lambert.finetune.seeds import shuffled
from lambert.finetune.squad.data import Question, Version
from lambert.finetune.squad.results import RateTrial, Tuning, seed_result
from lambert.finetune.squad.settings import SquadSettings

HELD_OUT_FRACTION = 0.1
_MIN_ARTICLES = 10
_STREAM = (1618,)  # one shuffle for every seed, model and rate, apart from those of `select_questions`


@dataclass(frozen=True)
class Split:
    """Training questions in two parts that share no context."""

    train: tuple[Question, ...]
    held_out: tuple[Question, ...]
    unit: str
    """What was held out whole: "articles" or "paragraphs"."""
    units: int
    """How many were held out."""
    all_units: int

    def __str__(self) -> str:
        return (
            f"{self.units:,} of {self.all_units:,} {self.unit} of the training file, "
            f"{len(self.held_out):,} of {len(self.train) + len(self.held_out):,} questions"
        )


def tune(job: FineTuneJob[SquadSettings], rates: Sequence[float], *, version: Version, seed: int) -> Tuning:
    """Try each rate on a split of the job's training questions; that of the highest F1 there is chosen.

    Raises:
        UserError: all questions are about one paragraph, or every rate diverged.
    """
    split = hold_out(job.train)
    trials = []
    for rate, result in try_rates(job, rates, split.train, split.held_out, seed):
        if result.problem is not None:
            trials.append(RateTrial(rate, None, None, None, result.problem))
        else:
            metrics = seed_result(
                result, split.held_out, version, null_threshold=job.settings.null_threshold, reused=False
            )
            trials.append(RateTrial(rate, metrics.exact_match, metrics.f1, result.train_loss, None))
    return Tuning(
        seed,
        str(split),
        len(split.train),
        len(split.held_out),
        tuple(trials),
        best_rate(trials, lambda trial: trial.f1),
    )


def hold_out(questions: Sequence[Question]) -> Split:
    """Hold out a tenth of the questions by whole articles, or whole paragraphs where there are fewer than ten articles.

    The choice depends on the questions alone.

    Raises:
        UserError: all questions are about one paragraph.
    """
    articles = [question.article for question in questions]
    contexts = [question.context for question in questions]
    unit, keys = ("articles", articles) if len(set(articles)) >= _MIN_ARTICLES else ("paragraphs", contexts)
    distinct = list(dict.fromkeys(keys))
    if len(distinct) < 2:
        raise UserError(
            "all training questions are about one paragraph, so none can be held out to choose a learning rate",
            remedy="Give more training questions, or leave out `learning_rates`",
        )
    held, count = set(), 0
    for index in shuffled(len(distinct), _STREAM)[: len(distinct) - 1].tolist():
        held.add(distinct[index])
        count = sum(key in held for key in keys)
        if count >= HELD_OUT_FRACTION * len(questions):
            break
    train = tuple(question for question, key in zip(questions, keys, strict=True) if key not in held)
    held_out = tuple(question for question, key in zip(questions, keys, strict=True) if key in held)
    return Split(train, held_out, unit, len(held), len(distinct))
