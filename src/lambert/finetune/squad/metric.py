"""Exact match and F1 of SQuAD v1.1 (Rajpurkar et al. 2016, 1606.05250, section 6.1) and v2.0 (Rajpurkar, Jia and Liang
2018, 1806.03822), as the official scripts evaluate-v1.1.py and evaluate-v2.0.py define them.

Both compare a prediction with each reference answer after the same normalisation, take the best, and average over all
questions, 0 to 100. In v2.0 a question without an answer has the answer "", two texts without a word are equal, and
null odds (of no answer) can empty a prediction. A question without a prediction counts 0 in both; the official v2.0
script would leave it out of the average and then stop with an error.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lambert.finetune.squad.data import Question, Version

OFFICIAL_THRESHOLD = 1.0
"""The official v2.0 script's default: probabilities of no answer never lie above it."""
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_DELETE_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class SubsetScore:
    """The metrics over some of the questions."""

    exact_match: float  # 0 to 100
    f1: float  # 0 to 100
    questions: int


@dataclass(frozen=True)
class BestThreshold:
    """The best metrics over all thresholds for the null odds, each with its own threshold.

    The threshold is tuned on the questions that are measured, so these metrics are slightly too high.
    """

    exact_match: float
    exact_match_threshold: float
    f1: float
    f1_threshold: float


@dataclass(frozen=True)
class Score:
    """The metrics of a set of predictions, with the ids that did not match."""

    exact_match: float  # 0 to 100
    f1: float  # 0 to 100
    questions: int
    missing: tuple[str, ...]  # questions without a prediction; each counts 0
    unknown: tuple[str, ...]  # predictions for ids that the set does not have; ignored
    has_answer: SubsetScore | None = None  # v2.0: the questions with an answer; None where there are none
    no_answer: SubsetScore | None = None  # v2.0: those without
    best: BestThreshold | None = None  # v2.0, where null odds are known


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

    Two texts without a word have none in common: 0, as v1.1 scores them.

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


def f1_v2(prediction: str, answer: str) -> float:
    """v1.1's F1 (0 to 1), but 1 for two texts without a word.

    >>> f1_v2("", ""), f1_v2("the", ""), f1_v2("", "gold")
    (1.0, 1.0, 0.0)
    """
    return f1(prediction, answer) if normalise(prediction) or normalise(answer) else 1.0


def question_scores(
    questions: Sequence[Question], predictions: Mapping[str, str], version: Version
) -> dict[str, tuple[float, float]]:
    """Question id → exact match and F1 (0 to 1) with the best reference answer, of questions with a prediction."""
    f1_of = f1 if version == "1.1" else f1_v2
    found = {}
    for question in questions:
        prediction = predictions.get(question.id)
        if prediction is None:
            continue
        answers = [answer.text for answer in question.answers]
        if version == "2.0":
            answers = [answer for answer in answers if normalise(answer)] or [""]
        exact = max(exact_match(prediction, answer) for answer in answers)
        found[question.id] = exact, max(f1_of(prediction, answer) for answer in answers)
    return found


def score(
    questions: Sequence[Question],
    predictions: Mapping[str, str],
    version: Version = "1.1",
    *,
    null_odds: Mapping[str, float] | None = None,
    threshold: float = OFFICIAL_THRESHOLD,
) -> Score:
    """Average exact match and F1 of `predictions` ({question id: text}, in v2.0 "" for no answer) over `questions`.

    Args:
        version: of the questions; in v1.1 each has an answer.
        null_odds: v2.0: {question id: odds or probability of no answer}, for every prediction. Predictions whose odds
            are above `threshold` then count as "", and the best threshold is searched among the given predictions.
    """
    scores = question_scores(questions, predictions, version)
    exact_matches = {identifier: exact for identifier, (exact, _) in scores.items()}
    f1s = {identifier: value for identifier, (_, value) in scores.items()}
    best = None
    if null_odds is not None:
        best = BestThreshold(
            *_best_threshold(questions, predictions, exact_matches, null_odds),
            *_best_threshold(questions, predictions, f1s, null_odds),
        )
        for question in questions:
            if null_odds.get(question.id, threshold) > threshold and question.id in f1s:
                exact_matches[question.id] = f1s[question.id] = float(not question.answers)

    def over(some: Sequence[Question]) -> SubsetScore | None:
        if not some:
            return None
        exact_match_sum = sum(exact_matches.get(question.id, 0.0) for question in some)
        f1_sum = sum(f1s.get(question.id, 0.0) for question in some)
        return SubsetScore(100 * exact_match_sum / len(some), 100 * f1_sum / len(some), len(some))

    every, known = over(questions) or SubsetScore(0.0, 0.0, 0), {question.id for question in questions}
    return Score(
        exact_match=every.exact_match,
        f1=every.f1,
        questions=every.questions,
        missing=tuple(question.id for question in questions if question.id not in f1s),
        unknown=tuple(identifier for identifier in predictions if identifier not in known),
        has_answer=over([question for question in questions if question.answers]) if version == "2.0" else None,
        no_answer=over([question for question in questions if not question.answers]) if version == "2.0" else None,
        best=best,
    )


def _best_threshold(
    questions: Sequence[Question],
    predictions: Mapping[str, str],
    values: Mapping[str, float],
    null_odds: Mapping[str, float],
) -> tuple[float, float]:
    """The best average (0 to 100) over all thresholds, and its threshold; the official script's search.

    It starts by answering nothing, which is right for the questions without an answer, and admits the predictions one
    by one, the most certain first. A threshold of 0 stands for answering nothing.
    """
    by_id = {question.id: question for question in questions}
    current = best = float(sum(not question.answers for question in questions))
    threshold = 0.0
    for identifier in sorted(null_odds, key=lambda one: null_odds[one]):
        if identifier not in values:
            continue
        if by_id[identifier].answers:
            current += values[identifier]
        elif predictions[identifier]:
            current -= 1
        if current > best:
            best, threshold = current, null_odds[identifier]
    return 100 * best / max(1, len(questions)), threshold
