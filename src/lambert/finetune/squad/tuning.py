"""Choosing a learning rate on training questions that are kept from training, never on the development set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lambert.errors import UserError
from lambert.finetune.squad.data import Question, shuffled

HELD_OUT_SHARE = 0.1
_FEWEST_ARTICLES = 10
_DRAW = (1618,)  # one draw for every seed, model and rate, apart from those of `select_questions`


@dataclass(frozen=True)
class Division:
    """Training questions in two parts that share no context."""

    learned: tuple[Question, ...]
    held_out: tuple[Question, ...]
    unit: str
    """What was held out whole: "articles" or "paragraphs"."""
    units: int
    """How many were held out."""
    all_units: int


@dataclass(frozen=True)
class RateTrial:
    """One learning rate on the held-out questions."""

    learning_rate: float
    exact_match: float | None  # 0 to 100; None where the loss stopped being a number
    f1: float | None
    train_loss: float | None
    problem: str | None


@dataclass(frozen=True)
class Tuning:
    """How the learning rate was chosen."""

    seed: int
    """Of all the trials."""
    held_out: str
    """Which part of the training questions the trials were measured on, in words."""
    learned_questions: int
    held_out_questions: int
    trials: tuple[RateTrial, ...]
    learning_rate: float
    """The one with the highest F1; of equals, the lowest."""


def divide(questions: Sequence[Question]) -> Division:
    """A tenth of the questions by whole articles, or by whole paragraphs where there are fewer than ten articles.

    Which articles these are depends on the questions alone.

    Raises:
        UserError: all questions are about one paragraph.
    """
    articles = [question.article for question in questions]
    contexts = [question.context for question in questions]
    unit, keys = ("articles", articles) if len(set(articles)) >= _FEWEST_ARTICLES else ("paragraphs", contexts)
    distinct = list(dict.fromkeys(keys))
    if len(distinct) < 2:
        raise UserError(
            "all training questions are about one paragraph, so none can be held out to choose a learning rate",
            remedy="Give more training questions, or one --learning-rate",
        )
    held, count = set(), 0
    for place in shuffled(len(distinct), _DRAW)[: len(distinct) - 1].tolist():
        held.add(distinct[place])
        count = sum(key in held for key in keys)
        if count >= HELD_OUT_SHARE * len(questions):
            break
    learned = tuple(question for question, key in zip(questions, keys, strict=True) if key not in held)
    held_out = tuple(question for question, key in zip(questions, keys, strict=True) if key in held)
    return Division(learned, held_out, unit, len(held), len(distinct))


def choose(trials: Sequence[RateTrial]) -> float:
    """The rate with the highest F1 on the held-out questions; of equals, the lowest.

    Raises:
        UserError: no rate came to an end.
    """
    finished = [(trial.f1, -trial.learning_rate) for trial in trials if trial.f1 is not None]
    if not finished:
        raise UserError(f"no learning rate came to an end ({trials[0].problem})", remedy="Try lower learning rates")
    return -max(finished)[1]


def described(division: Division, *, questions: int) -> str:
    """The held-out part in words."""
    return (
        f"{division.units:,} of {division.all_units:,} {division.unit} of the training file, "
        f"{len(division.held_out):,} of {questions:,} questions"
    )
