"""Exact match and F1 as SQuAD v2.0 defines them (Rajpurkar, Jia and Liang 2018, arXiv 1806.03822).

The definitions are those of the official evaluation script, evaluate-v2.0.py. What differs from v1.1: a question
without answer has the empty text for its answer, two texts without a word left are equal, and odds of no answer can
empty a prediction afterwards. Where a prediction is missing it counts 0, as in v1.1; the official script would leave
the question out of the average and then stop with an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lambert.finetune.squad import metric
from lambert.finetune.squad.data import Question
from lambert.finetune.squad.metric import BestThreshold, Part, Score, exact_match, normalise, unknown_ids

SCRIPT_THRESHOLD = 1.0
"""The official script's default: probabilities of no answer never lie above it."""


def f1(prediction: str, answer: str) -> float:
    """v1.1's F1 (0 to 1), but 1 for two texts without a word left.

    >>> f1("", ""), f1("the", ""), f1("", "gold")
    (1.0, 1.0, 0.0)
    """
    if not normalise(prediction) and not normalise(answer):
        return 1.0
    return metric.f1(prediction, answer)


def score_v2(
    questions: Sequence[Question],
    predictions: Mapping[str, str],
    *,
    null_odds: Mapping[str, float] | None = None,
    threshold: float = SCRIPT_THRESHOLD,
) -> Score:
    """Average exact match and F1 of `predictions` ({question id: text}, "" for no answer) over all `questions`.

    Args:
        null_odds: {question id: odds or probability of no answer}, for every prediction; with them, predictions whose
            odds are above `threshold` count as "", and the best threshold is looked for among the given predictions.
    """
    exact_matches: dict[str, float] = {}
    f1s: dict[str, float] = {}
    for question in questions:
        prediction = predictions.get(question.id)
        if prediction is None:
            continue
        answers = [answer.text for answer in question.answers if normalise(answer.text)] or [""]
        exact_matches[question.id] = max(exact_match(prediction, answer) for answer in answers)
        f1s[question.id] = max(f1(prediction, answer) for answer in answers)
    best = None
    if null_odds is not None:
        best = BestThreshold(
            *_best_threshold(questions, predictions, exact_matches, null_odds),
            *_best_threshold(questions, predictions, f1s, null_odds),
        )
        for question in questions:
            if null_odds.get(question.id, threshold) > threshold and question.id in f1s:
                exact_matches[question.id] = f1s[question.id] = float(not question.answers)
    every = _part(questions, exact_matches, f1s)
    has_answer = _part([question for question in questions if question.answers], exact_matches, f1s)
    no_answer = _part([question for question in questions if not question.answers], exact_matches, f1s)
    return Score(
        exact_match=every.exact_match,
        f1=every.f1,
        questions=len(questions),
        missing=tuple(question.id for question in questions if question.id not in f1s),
        unknown=unknown_ids(questions, predictions),
        has_answer=has_answer if has_answer.questions else None,
        no_answer=no_answer if no_answer.questions else None,
        best=best,
    )


def _part(questions: Sequence[Question], exact_matches: Mapping[str, float], f1s: Mapping[str, float]) -> Part:
    count = max(1, len(questions))
    return Part(
        exact_match=100 * sum(exact_matches.get(question.id, 0.0) for question in questions) / count,
        f1=100 * sum(f1s.get(question.id, 0.0) for question in questions) / count,
        questions=len(questions),
    )


def _best_threshold(
    questions: Sequence[Question],
    predictions: Mapping[str, str],
    figures: Mapping[str, float],
    null_odds: Mapping[str, float],
) -> tuple[float, float]:
    """The best average (0 to 100) that a threshold gives, and the threshold; the official script's search.

    It begins with no answer to anything, which is right for the questions without, and lets the predictions in one
    after the other, the most certain first. A threshold of 0 stands for no answer to anything.
    """
    by_id = {question.id: question for question in questions}
    current = best = float(sum(not question.answers for question in questions))
    threshold = 0.0
    for identifier in sorted(null_odds, key=lambda one: null_odds[one]):
        if identifier not in figures:
            continue
        if by_id[identifier].answers:
            current += figures[identifier]
        elif predictions[identifier]:
            current -= 1
        if current > best:
            best, threshold = current, null_odds[identifier]
    return 100 * best / max(1, len(questions)), threshold
