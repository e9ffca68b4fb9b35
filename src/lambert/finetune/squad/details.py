"""What one fine-tuning answered rightly and wrongly: by question word, by length of the answer, the worst errors."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lambert.finetune.squad.data import Question, Version
from lambert.finetune.squad.metric import question_scores

NO_ANSWER = "no answer"
_MOST_ERRORS = 50
_MOST_ANSWERS = 4
_CHARACTERS_AROUND = 150
_WORDS = re.compile(r"\b(how many|how much|how|whom|whose|who|what|which|when|where|why)\b", re.IGNORECASE)
_SAME = {"whom": "who", "whose": "who", "how many": "how many, how much", "how much": "how many, how much"}
_LENGTHS = ((1, "1 word"), (2, "2 words"), (3, "3 words"), (5, "4 to 5 words"), (10, "6 to 10 words"))
_LONGEST = "over 10 words"


def details_of(
    questions: Sequence[Question],
    answers: Mapping[str, str],
    probabilities: Mapping[str, float],
    version: Version,
) -> dict[str, Any]:
    """Ready for JSON.

    Args:
        answers: question id → the predicted answer.
        probabilities: question id → that of the best span among the best ones; empty where it was not kept.

    Returns:
        `by_question_word` and `by_answer_length` (of the first reference answer): groups, each `label`, `questions`,
        `exact_match` and `f1` (0 to 100); `errors`: wrong answers of lowest F1, the most probable first, with
        `question`, `passage`, `given` (reference answers), `predicted`, `f1` and `probability` (null: not kept).
    """
    scores = question_scores(questions, answers, version)
    wrong = [question for question in questions if question.id in scores and scores[question.id][0] == 0]
    wrong.sort(key=lambda question: (scores[question.id][1], -probabilities.get(question.id, 0.0)))
    return {
        "by_question_word": _groups(((question_word(one.question), one.id) for one in questions), scores),
        "by_answer_length": _groups(((answer_length(one), one.id) for one in questions), scores, _length_labels()),
        "errors": [
            {
                "question": one.question,
                "passage": _passage(one, answers[one.id]),
                "given": list(dict.fromkeys(answer.text for answer in one.answers))[:_MOST_ANSWERS],
                "predicted": answers[one.id],
                "f1": 100 * scores[one.id][1],
                "probability": probabilities.get(one.id),
            }
            for one in wrong[:_MOST_ERRORS]
        ],
    }


def question_word(question: str) -> str:
    """The first of the question words in a question, or "other".

    >>> question_word("In which year, and how, did it end?"), question_word("Name the town.")
    ('which', 'other')
    """
    found = _WORDS.search(question)
    word = found.group().lower() if found else "other"
    return _SAME.get(word, word)


def answer_length(question: Question) -> str:
    """The words of the first reference answer, as the label of a group."""
    if not question.answers:
        return NO_ANSWER
    words = len(question.answers[0].text.split())
    return next((label for most, label in _LENGTHS if words <= most), _LONGEST)


def _length_labels() -> list[str]:
    return [*(label for _, label in _LENGTHS), _LONGEST, NO_ANSWER]


def _groups(
    members: Iterable[tuple[str, str]], scores: Mapping[str, tuple[float, float]], order: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Groups in an order of labels; without one, the largest first."""
    groups: dict[str, list[str]] = {}
    for label, identifier in members:
        groups.setdefault(label, []).append(identifier)
    rows = []
    for label in order or sorted(groups, key=lambda one: (-len(groups[one]), one)):
        values = [scores.get(identifier, (0.0, 0.0)) for identifier in groups.get(label, ())]
        if values:
            exact_match, f1 = (100 * statistics.fmean(column) for column in zip(*values, strict=True))
            rows.append({"label": label, "questions": len(values), "exact_match": exact_match, "f1": f1})
    return rows


def _passage(question: Question, predicted: str) -> str:
    """The context around the first reference answer, or around the predicted one where there is none."""
    context = question.context
    answer = question.answers[0] if question.answers else None
    start = max(0, context.find(predicted)) if answer is None else answer.start
    first = start - _CHARACTERS_AROUND
    last = start + len(predicted if answer is None else answer.text) + _CHARACTERS_AROUND
    return f"{'…' * (first > 0)}{context[max(0, first) : last]}{'…' * (last < len(context))}"
