"""Files of predictions and of null odds: read, refused with the position, scored by the questions' version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lambert.errors import UserError
from lambert.finetune.squad.data import Answer, Question, QuestionFile
from lambert.finetune.squad.prediction_files import read_null_odds, read_predictions, score_file

Write = Callable[..., Path]


def _question(identifier: str, *answers: str) -> Question:
    return Question(identifier, "?", " ".join(answers), tuple(Answer(text, 0) for text in answers))


V1 = QuestionFile(Path("dev.json"), (_question("one", "gold"), _question("two", "red")), 0)
V2 = QuestionFile(Path("dev.json"), (_question("one", "gold"), _question("two")), 0, "2.0")


def test_score_file(write: Write) -> None:
    assert score_file(write({"one": "Gold"}), V1).exact_match == 50
    assert score_file(write({}), V1).missing == ("one", "two")
    with pytest.raises(UserError, match=r"answers none of the 2 questions.*'other'.*development file"):
        score_file(write({"other": "gold"}), V1)


def test_the_version_of_the_questions_decides(write: Write) -> None:
    predictions = write({"one": "gold", "two": ""})
    result = score_file(predictions, V2)
    assert result.exact_match == 100 and result.best is None
    odds = write({"one": 2.5, "two": -1}, "odds.json")
    result = score_file(predictions, V2, null_odds=odds)
    assert result.exact_match == 50  # 2.5 is above the script's 1
    assert result.best is not None and (result.best.f1, result.best.f1_threshold) == (100, 2.5)
    assert score_file(predictions, V2, null_odds=odds, threshold=3).exact_match == 100
    with pytest.raises(UserError, match=r"odds of no answer beside dev.json, in which every question has one"):
        score_file(predictions, V1, null_odds=odds)
    with pytest.raises(UserError, match=r"has no odds for 1 predictions, such as that for 'two'"):
        score_file(predictions, V2, null_odds=write({"one": 2.5}, "odds.json"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[1]", "holds a JSON list, not an object of predictions"),
        (b'{"q1": 5}', "prediction for question 'q1' is 5, not a text"),
        (b'{"q1": null}', "prediction for question 'q1' is null"),
        (b'{"q1": "a", "q1": "b"}', "two predictions for question 'q1'"),
        (b'{"q1": ', "is not JSON .line 1, column 8"),
        (b"", "is empty"),
    ],
)
def test_malformed_predictions(write: Write, content: bytes, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_predictions(write(content))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[1]", "holds a JSON list, not an object of numbers"),
        (b'{"q1": "a"}', "number for question 'q1' is \"a\", not a number"),
        (b'{"q1": true}', "number for question 'q1' is true"),
        (b'{"q1": 1' + b"0" * 400 + b"}", "number for question 'q1' is 1000"),
        (b'{"q1": NaN}', "number for question 'q1' is NaN"),
        (b'{"q1": 1, "q1": 2}', "two numbers for question 'q1'"),
    ],
)
def test_malformed_odds(write: Write, content: bytes, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_null_odds(write(content))
