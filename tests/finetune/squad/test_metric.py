"""The metric against cases worked out by hand from the definition."""

from __future__ import annotations

import pytest

from lambert.finetune.squad.data import Answer, Question
from lambert.finetune.squad.metric import exact_match, f1, normalise, score


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("The Cat", "cat"),
        ("  a   cat\tand\nAN  owl ", "cat and owl"),
        ("theatre ananas", "theatre ananas"),  # articles go as whole words only
        ("well-known", "wellknown"),  # punctuation is deleted, not replaced by a space
        ("a-b c.", "ab c"),  # and before the articles are looked for
        ("U.S.A.", "usa"),
        ("$1,000.50", "100050"),
        ("“quoted” – dash", "“quoted” – dash"),  # only ASCII punctuation counts
        ("ÉCOLE DES BEAUX-ARTS", "école des beauxarts"),
        ("一 the 二", "一 二"),
        ("The", ""),
        ("", ""),
    ],
)
def test_normalise(text: str, normalised: str) -> None:
    assert normalise(text) == normalised


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("Denver Broncos", "the denver broncos!", 1.0),
        ("Denver", "Denver Broncos", 2 / 3),  # precision 1, recall 1/2
        ("big red red dog", "red red red", 4 / 7),  # 2 shared with repetition: 2/4 and 2/3
        ("Marlowe Edna", "Edna Marlowe", 1.0),  # order does not matter
        ("cat", "dog", 0.0),
        ("", "dog", 0.0),
        ("the", "a", 0.0),  # nothing left on either side
    ],
)
def test_f1(prediction: str, answer: str, expected: float) -> None:
    assert f1(prediction, answer) == pytest.approx(expected)


def test_exact_match() -> None:
    assert exact_match("The  tower.", "tower") == 1
    assert exact_match("tall tower", "tower") == 0
    assert exact_match("the", "a") == 1  # both are empty once normalised
    assert exact_match("cafe", "café") == 0


def _question(identifier: str, *answers: str) -> Question:
    return Question(identifier, "?", " ".join(answers), tuple(Answer(text, 0) for text in answers))


def test_score_takes_the_best_answer_and_counts_missing_as_zero() -> None:
    questions = [
        _question("one", "Santa Clara, California", "Levi's Stadium"),
        _question("two", "Denver Broncos"),
        _question("three", "gold"),
        _question("four", "1843"),
    ]
    result = score(questions, {"one": "levis stadium", "two": "Broncos", "three": "", "nine": "x"})
    # exact: 1 + 0 + 0 + missing; F1: 1 + 2/3 + 0 + missing
    assert result.exact_match == pytest.approx(25.0)
    assert result.f1 == pytest.approx(100 * (1 + 2 / 3) / 4)
    assert (result.questions, result.missing, result.unknown) == (4, ("four",), ("nine",))


def test_the_two_metrics_may_come_from_different_answers() -> None:
    result = score([_question("one", "the", "a b c")], {"one": "the"})
    assert (result.exact_match, result.f1) == (100.0, 0.0)
