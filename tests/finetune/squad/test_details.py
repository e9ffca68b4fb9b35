"""Kinds of questions by hand, the order of errors, and what of a passage is shown."""

from __future__ import annotations

import pytest

from lambert.finetune.squad.data import Answer, Question
from lambert.finetune.squad.details import answer_length, details_of, question_word
from lambert.finetune.squad.metric import score

CONTEXT = f"{'x ' * 200}Edna Marlowe built the old northern pier in 1843. {'y ' * 200}"


def ask(name: str, question: str, *answers: str) -> Question:
    return Question(name, question, CONTEXT, tuple(Answer(text, CONTEXT.index(text)) for text in answers))


QUESTIONS = [
    ask("a", "Who built it?", "Edna Marlowe", "Marlowe"),
    ask("b", "Whose pier was it?", "Edna Marlowe"),
    ask("c", "What did she build?", "the old northern pier"),
    ask("d", "How much was it?", "1843"),
    ask("e", "Name the year.", "1843"),
]
SAID = {"a": "Marlowe", "b": "1843", "c": "old pier", "d": "pier", "e": "pier"}
PROBABILITIES = {"a": 0.9, "b": 0.2, "c": 0.99, "d": 0.5, "e": 0.1}


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("In what year did it end, and how?", "what"),
        ("To whom was it sold?", "who"),
        ("How many piers?", "how many, how much"),
        ("HOW MUCH was paid?", "how many, how much"),
        ("How did it end?", "how"),
        ("Show the towhead.", "other"),
        ("誰が建てたか。", "other"),
    ],
)
def test_the_first_question_word(question: str, word: str) -> None:
    assert question_word(question) == word


def test_words_of_the_first_answer() -> None:
    assert [answer_length(one) for one in QUESTIONS] == ["2 words", "2 words", "4 to 5 words", "1 word", "1 word"]
    assert answer_length(ask("f", "Why?")) == "no answer"
    assert answer_length(ask("g", "Why?", CONTEXT[300:340])) == "over 10 words"


def test_scores_of_groups() -> None:
    found = details_of(QUESTIONS, SAID, PROBABILITIES, "1.1")
    two_thirds = 100 * 2 * (2 / 2) * (2 / 3) / (2 / 2 + 2 / 3)  # "the" does not count: 2 of 2 words, of 3
    assert found["by_question_word"] == [
        {"label": "who", "questions": 2, "exact_match": 50.0, "f1": 50.0},
        {"label": "how many, how much", "questions": 1, "exact_match": 0.0, "f1": 0.0},
        {"label": "other", "questions": 1, "exact_match": 0.0, "f1": 0.0},
        {"label": "what", "questions": 1, "exact_match": 0.0, "f1": pytest.approx(two_thirds)},
    ]
    assert [group["label"] for group in found["by_answer_length"]] == ["1 word", "2 words", "4 to 5 words"]
    for name in ("by_question_word", "by_answer_length"):
        total = sum(group["questions"] * group["f1"] for group in found[name]) / len(QUESTIONS)
        assert total == pytest.approx(score(QUESTIONS, SAID).f1)


def test_errors_of_lowest_f1_and_then_the_most_probable() -> None:
    errors = details_of(QUESTIONS, SAID, PROBABILITIES, "1.1")["errors"]
    assert [(one["question"], one["predicted"], one["probability"]) for one in errors] == [
        ("How much was it?", "pier", 0.5),
        ("Whose pier was it?", "1843", 0.2),
        ("Name the year.", "pier", 0.1),
        ("What did she build?", "old pier", 0.99),
    ]
    assert errors[1]["given"] == ["Edna Marlowe"] and errors[0]["f1"] == 0 < errors[3]["f1"]
    passage = errors[0]["passage"]
    assert passage.startswith("…x") and passage.endswith("…") and "pier in 1843. y" in passage and len(passage) == 306
    assert [one["probability"] for one in details_of(QUESTIONS, SAID, {}, "1.1")["errors"]] == [None] * 4


def test_questions_without_an_answer() -> None:
    unanswered = ask("f", "Who sold it?")
    (error,) = details_of([unanswered], {"f": "Edna"}, {"f": 0.3}, "2.0")["errors"]
    assert error["given"] == [] and error["passage"].count("Edna Marlowe") == 1
    right = details_of([unanswered], {"f": ""}, {"f": 0.3}, "2.0")
    assert right["errors"] == [] and right["by_answer_length"][0] == {
        "label": "no answer", "questions": 1, "exact_match": 100.0, "f1": 100.0
    }  # fmt: skip
