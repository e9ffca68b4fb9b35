"""Spans and texts against an exhaustive search and cases worked out by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from finetune.squad.articles import CAFE, HARBOUR
from lambert.finetune.squad.answers import NO_SPAN_ODDS, AnswerCollector, Logits, best_spans
from lambert.finetune.squad.data import Answer, Question
from lambert.finetune.squad.features import Window, make_windows
from lambert.finetune.squad.settings import SquadSettings

SHORT = SquadSettings(sequence_length=40, document_stride=12, question_length=10)


def _peaks(size: int, peaks: dict[int, float]) -> np.ndarray:
    scores = np.zeros(size, dtype=np.float32)
    for index, score in peaks.items():
        scores[index] = score
    return scores


@given(
    seed=st.integers(0, 10_000),
    tokens=st.integers(1, 25),
    answer_length=st.integers(1, 8),
    best=st.integers(1, 6),
)
def test_best_spans_equal_an_exhaustive_search(seed: int, tokens: int, answer_length: int, best: int) -> None:
    random = np.random.default_rng(seed)
    start, end = random.permutation(tokens) * 1.0, random.permutation(tokens) * 1.37
    may_start = random.random(tokens) < 0.7
    starts = sorted(np.flatnonzero(may_start), key=lambda index: -start[index])[:best]
    ends = sorted(range(tokens), key=lambda index: -end[index])[:best]
    every = [
        (first, last, start[first] + end[last])
        for first, last in itertools.product(starts, ends)
        if first <= last < first + answer_length
    ]
    expected = sorted(every, key=lambda span: (-span[2], span[0], span[1]))[:best]
    assert best_spans(start, end, may_start, n_best=best, answer_length=answer_length) == expected


def test_an_answer_has_at_most_thirty_tokens_and_does_not_run_backwards() -> None:
    anywhere = np.ones(60, dtype=bool)
    start, end = _peaks(60, {10: 9.0, 20: 5.0}), _peaks(60, {40: 9.0, 39: 6.0, 5: 9.5})
    # 10 … 40 has 31 tokens and 10 … 5 runs backwards; next is 10 … 39 with 30
    assert best_spans(start, end, anywhere)[0] == (10, 39, 15.0)
    assert best_spans(start, end, anywhere, answer_length=31)[0] == (10, 40, 18.0)
    assert best_spans(start, end, anywhere, answer_length=29)[0] == (20, 40, 14.0)


def test_equal_scores_go_to_the_first_place() -> None:
    anywhere = np.ones(380, dtype=bool)
    high = np.random.default_rng(0).random(380) < 0.5
    start = np.where(high, 1.0, 0.0)
    first, *rest = (int(index) for index in np.flatnonzero(high)[:20])
    expected = [(first, index, 2.0) for index in (first, *rest) if index < first + 30]
    assert best_spans(start, start, anywhere)[: len(expected)] == expected[:20]


def test_no_span_where_none_may_start_or_every_end_is_before_it() -> None:
    scores = np.arange(6.0)
    assert best_spans(scores, scores, np.zeros(6, dtype=bool)) == []
    assert best_spans(scores, -scores, np.arange(6) == 5, n_best=2) == []
    assert best_spans(scores[:0], scores[:0], np.zeros(0, dtype=bool)) == []


def _collect(questions: list[Question], logits: Iterable[tuple[Window, Logits, Logits]]) -> dict[str, str]:
    collector = AnswerCollector(questions)
    for window, start_logits, end_logits in logits:
        collector.add(window, start_logits, end_logits)
    return collector.results()[0]


def _perfect(window: Window) -> tuple[Window, np.ndarray, np.ndarray]:
    """The logits of a model sure of the training positions; a window without the answer says [CLS]."""
    size = len(window.token_ids) + 5  # as if padded
    return window, _peaks(size, {window.target[0]: 9.0}), _peaks(size, {window.target[1]: 9.0})


@pytest.mark.parametrize(
    ("context", "text"),
    [
        (HARBOUR, "Edna Marlowe"),
        (HARBOUR, "12,500 pounds"),
        (HARBOUR, "its lamp is lit each evening."),
        (HARBOUR, "The harbour of Brightsea was built in 1843 by the engineer Edna"),
        (CAFE, "“Zürich” in São Paulo"),
        (CAFE, "İstanbul’s naïve coöperation"),
        (CAFE, "日本銀行 lent ¥5,000"),
        (CAFE, "e\u0301tude"),
        (CAFE, "🎹"),
    ],
)
def test_the_text_is_the_contexts_own(tokenizer: Tokenizer, context: str, text: str) -> None:
    question = Question("id", "Which?", context, (Answer(text, context.index(text)),))
    windows = make_windows([question], tokenizer, SHORT)
    assert len(windows) > 1
    for order in (windows, windows[::-1]):
        assert _collect([question], map(_perfect, order)) == {"id": text}


def test_a_span_counts_only_where_its_first_token_has_most_context(tokenizer: Tokenizer) -> None:
    question = Question("id", "Which?", HARBOUR, ())
    windows = make_windows([question], tokenizer, SHORT)
    index = int(np.flatnonzero(~windows[0].most_context)[0])
    position = windows[0].second_start + index
    size = len(windows[0].token_ids)
    collector = AnswerCollector([question])
    collector.add(windows[0], _peaks(size, {position: 9.0}), _peaks(size, {position: 9.0}))
    best = collector.candidates(0)[0]
    assert best.start != windows[0].spans[index, 0] and best.score == 9.0  # the end may be there, the start not
    # A span that begins inside and ends past the border stays reachable.
    start = position - 1
    assert windows[0].most_context[index - 1]
    collector = AnswerCollector([question])
    collector.add(windows[0], _peaks(size, {start: 9.0}), _peaks(size, {position: 9.0}))
    best = collector.candidates(0)[0]
    assert (best.start, best.stop, best.score) == (*_span(windows[0], index - 1, index), 18.0)


def _span(window: Window, first: int, last: int) -> tuple[int, int]:
    return int(window.spans[first, 0]), int(window.spans[last, 1])


def test_windows_are_joined_by_score_and_texts_named_once(tokenizer: Tokenizer) -> None:
    context = "pier one. " * 30
    question = Question("id", "Which?", context, ())
    windows = make_windows([question], tokenizer, SHORT)
    collector = AnswerCollector([question], n_best=4)
    for rank, window in enumerate(windows):
        index = window.second_start + int(np.flatnonzero(window.most_context)[0])
        size = len(window.token_ids)
        collector.add(window, _peaks(size, {index: rank + 1.0}), _peaks(size, {index: 1.0}))
    candidates = collector.candidates(0)
    assert candidates[0].score == len(windows) + 1.0
    assert [c.score for c in candidates] == sorted((c.score for c in candidates), reverse=True)
    texts = [candidate.text for candidate in candidates]
    assert len(texts) == 4 == len(set(texts))
    assert all(context[c.start : c.stop] == c.text for c in candidates)


def test_scores_outside_the_context_do_not_count(tokenizer: Tokenizer) -> None:
    question = Question("id", "Who built the pier?", "Edna built it", ())
    (window,) = make_windows([question], tokenizer, SquadSettings())
    size = len(window.token_ids)
    start = _peaks(size + 3, dict.fromkeys([0, 1, 2, size - 1, size, size + 2], 50.0))
    end = start.copy()
    start[window.second_start] = end[window.second_start] = 1.0
    (text,) = _collect([question], [(window, start, end)]).values()
    assert text == question.context[: window.spans[0, 1]]


def test_every_question_has_a_prediction(tokenizer: Tokenizer) -> None:
    questions = [
        Question("a", "Who?", "", ()),
        Question("b", "Who?", "word", ()),
        Question("c", "?", HARBOUR, ()),
    ]
    windows = make_windows(questions, tokenizer, SHORT)
    scored = [(w, np.zeros(len(w.token_ids)), np.zeros(len(w.token_ids))) for w in windows if w.question != 2]
    assert list(_collect(questions, scored).items()) == [
        ("a", ""),
        ("b", _collect(questions, scored)["b"]),
        ("c", ""),
    ]
    assert _collect(questions, scored)["b"] != ""


def test_odds_of_no_answer_by_hand(tokenizer: Tokenizer) -> None:
    """run_squad.py: the least [CLS] score of all windows, minus the score of the best span of any."""
    question = Question("id", "Which?", HARBOUR, ())
    windows = make_windows([question], tokenizer, SHORT)[:2]
    collector = AnswerCollector([question, Question("empty", "Who?", "", ())])
    for window, null, span in zip(windows, (7.0, 4.0), (1.0, 3.0), strict=True):
        index = window.second_start + int(np.flatnonzero(window.most_context)[0])
        size = len(window.token_ids)
        collector.add(window, _peaks(size, {0: null, index: span}), _peaks(size, {0: 0.5, index: 2.0}))
    assert collector.results()[1] == {"id": (4.0 + 0.5) - (3.0 + 2.0), "empty": NO_SPAN_ODDS}
    scores = [candidate.score for candidate in collector.candidates(0)]
    assert max(scores) == 5.0 and len(scores) == 20
    probability = math.exp(5.0) / sum(map(math.exp, scores))
    assert collector.probabilities() == {"id": pytest.approx(probability, abs=1e-4), "empty": 0.0}
