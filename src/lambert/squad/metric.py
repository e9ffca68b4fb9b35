"""Exact match and F1 as SQuAD v1.1 defines them (Rajpurkar et al. 2016, arXiv 1606.05250, section 6.1).

Both compare a predicted text with each of the reference answers after the same normalisation, take the best
of them for a question, and average over all questions of the set. Figures run from 0 to 100.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.squad.data import Question, read_json

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_DELETE_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Score:
    """What a set of predictions is worth, with the ids that did not pair up."""

    exact_match: float  # 0 to 100
    f1: float  # 0 to 100
    questions: int
    missing: tuple[str, ...]  # questions without a prediction; each counts 0
    unknown: tuple[str, ...]  # predictions for ids that the set does not have; ignored


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
    """Average exact match and F1 of `predictions` ({question id: text}) over all `questions`."""
    exact_match_sum = f1_sum = 0.0
    missing = []
    for question in questions:
        prediction = predictions.get(question.id)
        if prediction is None:
            missing.append(question.id)
            continue
        exact_match_sum += max(exact_match(prediction, answer.text) for answer in question.answers)
        f1_sum += max(f1(prediction, answer.text) for answer in question.answers)
    known = {question.id for question in questions}
    count = max(1, len(questions))
    return Score(
        exact_match=100 * exact_match_sum / count,
        f1=100 * f1_sum / count,
        questions=len(questions),
        missing=tuple(missing),
        unknown=tuple(identifier for identifier in predictions if identifier not in known),
    )


def read_predictions(path: Path) -> dict[str, str]:
    """Predictions in the official format: one JSON object, question id -> answer text.

    Raises:
        UserError: the file cannot be read, is not such an object, or has an id twice.
    """
    value = read_json(path, what="predictions", object_pairs_hook=_refuse_repeated_ids(path))
    remedy = 'Give one JSON object that maps each question id to its answer, such as {"56be4db0": "Denver"}'
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a JSON {type(value).__name__}, not an object of predictions", remedy=remedy)
    for identifier, text in value.items():
        if not isinstance(text, str):
            raise UserError(
                f"{path}: the prediction for question {identifier!r} is {json.dumps(text)[:60]}, not a text",
                remedy=remedy,
            )
    return value


def score_file(path: Path, questions: Sequence[Question]) -> Score:
    """Score a predictions file.

    Raises:
        UserError: as `read_predictions`, or when the file shares no id with the questions (then the two
            files do not belong together, and a score of 0 would mislead).
    """
    predictions = read_predictions(path)
    result = score(questions, predictions)
    if predictions and len(result.missing) == len(questions):
        raise UserError(
            f"{path} answers none of the {len(questions)} questions (first id: {next(iter(predictions))!r})",
            remedy="Give the development file that these predictions were made from",
        )
    return result


def _refuse_repeated_ids(path: Path) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for identifier, value in pairs:
            if identifier in built:
                raise UserError(f"{path} has two predictions for question {identifier!r}", remedy="Keep one of the two")
            built[identifier] = value
        return built

    return build
