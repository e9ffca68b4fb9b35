"""The metric of v2.0 against cases worked out by hand from the official script's definition, and a search of every
threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambert.finetune.squad.data import Answer, Question
from lambert.finetune.squad.metric import BestThreshold, Score, SubsetScore, f1_v2, score


def score_v2(questions: Sequence[Question], predictions: dict[str, str], **odds: Any) -> Score:
    return score(questions, predictions, "2.0", **odds)


def _question(identifier: str, *answers: str) -> Question:
    return Question(identifier, "?", " ".join(answers), tuple(Answer(text, 0) for text in answers))


QUESTIONS = [
    _question("team", "Denver Broncos", "the Broncos of Denver"),
    _question("colour", "gold"),
    _question("year", "1843"),
    _question("none"),
    _question("nothing"),
]
# F1:      2/3 of "Denver Broncos", 1, 0, 1 (rightly nothing), 0
ANSWERED = {"team": "Broncos", "colour": "gold", "year": "", "none": "", "nothing": "red"}
ODDS = {"team": 0.2, "colour": 0.6, "year": 0.1, "none": 0.9, "nothing": 0.4}


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [("", "", 1.0), ("the", "", 1.0), ("", "gold", 0.0), ("gold", "", 0.0), ("Denver", "Denver Broncos", 2 / 3)],
)
def test_f1_of_nothing(prediction: str, answer: str, expected: float) -> None:
    assert f1_v2(prediction, answer) == pytest.approx(expected)


def test_the_metrics_and_their_two_subsets() -> None:
    result = score_v2(QUESTIONS, ANSWERED)
    assert (result.exact_match, result.f1) == (pytest.approx(40.0), pytest.approx(100 * (2 / 3 + 1 + 1) / 5))
    assert result.has_answer == SubsetScore(pytest.approx(100 / 3), pytest.approx(100 * (5 / 3) / 3), 3)  # type: ignore[arg-type]
    assert result.no_answer == SubsetScore(50.0, 50.0, 2)
    assert result.best is None and not result.missing and not result.unknown


def test_odds_above_the_threshold_empty_an_answer() -> None:
    # the script's own threshold, 1, changes nothing for probabilities
    assert score_v2(QUESTIONS, ANSWERED, null_odds=ODDS).f1 == score_v2(QUESTIONS, ANSWERED).f1
    # .5: "gold" is lost, "none" stays right
    assert score_v2(QUESTIONS, ANSWERED, null_odds=ODDS, threshold=0.5).f1 == pytest.approx(100 * (2 / 3 + 1) / 5)
    # .4 is not above .4; .39 saves "nothing"
    assert score_v2(QUESTIONS, ANSWERED, null_odds=ODDS, threshold=0.4).f1 == pytest.approx(100 * (2 / 3 + 1) / 5)
    result = score_v2(QUESTIONS, ANSWERED, null_odds=ODDS, threshold=0.39)
    assert result.f1 == pytest.approx(100 * (2 / 3 + 1 + 1) / 5)
    assert result.no_answer == SubsetScore(100.0, 100.0, 2)


def test_the_best_threshold() -> None:
    # 2 right with no answer at all; year (.1) + 0, team (.2) + 2/3 or 0, nothing (.4) − 1, colour (.6) + 1, none (.9) 0
    best = score_v2(QUESTIONS, ANSWERED, null_odds=ODDS).best
    assert best == BestThreshold(40.0, 0.0, pytest.approx(100 * (2 + 2 / 3) / 5), 0.2)  # type: ignore[arg-type]


def test_an_answer_without_words_does_not_count() -> None:
    # The official script leaves out references that are empty once normalised; "the" is then right to be empty.
    assert score_v2([_question("q", "the")], {"q": ""}).exact_match == 100
    assert score_v2([_question("q", "the", "gold")], {"q": ""}).exact_match == 0


def test_missing_predictions_count_zero_and_unknown_ones_are_listed() -> None:
    answered = {name: text for name, text in ANSWERED.items() if name != "colour"} | {"other": "x"}
    result = score_v2(QUESTIONS, answered)
    assert result.f1 == pytest.approx(100 * (2 / 3 + 1) / 5)
    assert (result.missing, result.unknown) == (("colour",), ("other",))
    only = score_v2(QUESTIONS[:3], ANSWERED)
    assert only.no_answer is None and only.has_answer is not None


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(["", "gold", "red gold", "red"])), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_no_threshold_is_better_than_the_best(cases: list[tuple[bool, str]], random: object) -> None:
    questions = [_question(f"q{index}", *(["gold"] if answered else [])) for index, (answered, _) in enumerate(cases)]
    predictions = {f"q{index}": text for index, (_, text) in enumerate(cases)}
    ranks = list(range(1, len(cases) + 1))
    random.shuffle(ranks)  # type: ignore[attr-defined]
    odds = {f"q{index}": float(rank) for index, rank in enumerate(ranks)}
    best = score_v2(questions, predictions, null_odds=odds).best
    every = [score_v2(questions, predictions, null_odds=odds, threshold=float(t)) for t in range(len(cases) + 1)]
    assert best is not None
    assert best.exact_match == pytest.approx(max(one.exact_match for one in every))
    assert best.f1 == pytest.approx(max(one.f1 for one in every))
    at_best = score_v2(questions, predictions, null_odds=odds, threshold=best.f1_threshold)
    assert at_best.f1 == pytest.approx(best.f1)
