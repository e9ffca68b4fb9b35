"""Exact match and F1 as SQuAD v1.1 defines them (Rajpurkar et al. 2016, arXiv 1606.05250, section 6.1).

What v2.0 adds is in `metric_v2.py`.

Both compare a predicted text with each of the reference answers after the same normalisation, take the best
of them for a question, and average over all questions of the set. Figures run from 0 to 100.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lambert.finetune.squad.data import Question

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_DELETE_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Part:
    """The figures over some of the questions."""

    exact_match: float  # 0 to 100
    f1: float  # 0 to 100
    questions: int


@dataclass(frozen=True)
class BestThreshold:
    """The best figures that any threshold for the odds of no answer gives, each with its own threshold.

    The threshold is chosen on the very questions that are measured, so these figures are a little too good.
    """

    exact_match: float
    exact_match_threshold: float
    f1: float
    f1_threshold: float


@dataclass(frozen=True)
class Score:
    """What a set of predictions is worth, with the ids that did not pair up."""

    exact_match: float  # 0 to 100
    f1: float  # 0 to 100
    questions: int
    missing: tuple[str, ...]  # questions without a prediction; each counts 0
    unknown: tuple[str, ...]  # predictions for ids that the set does not have; ignored
    has_answer: Part | None = None  # v2.0: the questions with an answer; None where there are none
    no_answer: Part | None = None  # v2.0: those without
    best: BestThreshold | None = None  # v2.0, where odds of no answer are known


def normalise(text: str) -> str:
    """Lower case, no ASCII punctuation, no English articles, single spaces.

    The order matters: punctuation goes before the articles, so "a-b" becomes "ab" and keeps its "a".

    >>> normalise("The  Norman's (a) castle.")
    'normans castle'
    """
    without_punctuation = text.lower().translate(_DELETE_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", without_punctuation).split())


def exact_match(prediction: str, answer: str) -> float:
    """1.0 when the two texts are equal once normalised, else 0.0."""
    return float(normalise(prediction) == normalise(answer))


def f1(prediction: str, answer: str) -> float:
    """Harmonic mean of precision and recall over the words of two texts, counted with repetition (0 to 1).

    Two texts without a word left have no word in common: 0, as v1.1 scores them.

    >>> round(f1("the tall black tower", "black tower of London"), 4)
    0.5714
    """
    predicted_words = normalise(prediction).split()
    answer_words = normalise(answer).split()
    shared = (Counter(predicted_words) & Counter(answer_words)).total()
    if shared == 0:
        return 0.0
    precision = shared / len(predicted_words)
    recall = shared / len(answer_words)
    return 2 * precision * recall / (precision + recall)


def score(questions: Sequence[Question], predictions: Mapping[str, str]) -> Score:
    """Average exact match and F1 of `predictions` ({question id: text}) over all `questions`, each with an answer."""
    exact_match_sum = f1_sum = 0.0
    missing = []
    for question in questions:
        prediction = predictions.get(question.id)
        if prediction is None:
            missing.append(question.id)
            continue
        exact_match_sum += max(exact_match(prediction, answer.text) for answer in question.answers)
        f1_sum += max(f1(prediction, answer.text) for answer in question.answers)
    count = max(1, len(questions))
    return Score(
        exact_match=100 * exact_match_sum / count,
        f1=100 * f1_sum / count,
        questions=len(questions),
        missing=tuple(missing),
        unknown=unknown_ids(questions, predictions),
    )


def unknown_ids(questions: Sequence[Question], predictions: Mapping[str, str]) -> tuple[str, ...]:
    """The ids of predictions that no question has."""
    known = {question.id for question in questions}
    return tuple(identifier for identifier in predictions if identifier not in known)
