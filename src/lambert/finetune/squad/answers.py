"""Start and end logits of windows → the best answer texts, as they stand in the original context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lambert.finetune.squad.data import Question
from lambert.finetune.squad.features import Window

Logits = NDArray[np.floating]

NO_SPAN_ODDS = 1e6
"""Null odds where no window has a candidate: above every threshold, and still finite for JSON."""


@dataclass(frozen=True)
class Candidate:
    """One possible answer to a question."""

    text: str
    score: float
    """Start logit + end logit; comparable between the windows of one question."""
    start: int
    """First character in the context."""
    stop: int
    """One past the last character."""


class AnswerCollector:
    """Collects the candidate answers of every question, window by window in any order.

    A span is a candidate when its start and its end are among the `n_best` highest logits of the window's context
    tokens, the end is not before the start, it has at most `answer_length` tokens, and its first token has its most
    context in this window (BERT's rule: every span starts in exactly one window).

    Args:
        questions: those the windows were made from.
        n_best: starts, ends and answers that are kept.
        answer_length: longest answer in tokens.
    """

    def __init__(self, questions: Sequence[Question], *, n_best: int = 20, answer_length: int = 30) -> None:
        assert n_best >= 1 and answer_length >= 1
        self._questions = questions
        self._n_best = n_best
        self._answer_length = answer_length
        self._candidates: dict[int, list[Candidate]] = {}
        self._null_scores: dict[int, float] = {}

    def add(self, window: Window, start_logits: Logits, end_logits: Logits) -> None:
        """Add one window's logits, each [tokens of the window] or longer (padding is ignored)."""
        null_score = float(start_logits[0]) + float(end_logits[0])  # [CLS] stands for "no answer here"
        self._null_scores[window.question] = min(null_score, self._null_scores.get(window.question, np.inf))
        context = slice(window.second_start, window.second_start + len(window.spans))
        found = best_spans(
            start_logits[context],
            end_logits[context],
            window.most_context,
            n_best=self._n_best,
            answer_length=self._answer_length,
        )
        text = self._questions[window.question].context
        kept = self._candidates.setdefault(window.question, [])
        for first, last, score in found:
            start, stop = int(window.spans[first, 0]), int(window.spans[last, 1])
            kept.append(Candidate(text[start:stop], score, start, stop))

    def candidates(self, question: int) -> list[Candidate]:
        """The best answers to a question over all its windows, best first, each text once."""
        ranked = sorted(self._candidates.get(question, ()), key=lambda each: (-each.score, each.start, each.stop))
        by_text: dict[str, Candidate] = {}
        for candidate in ranked:
            by_text.setdefault(candidate.text, candidate)
        return list(by_text.values())[: self._n_best]

    def results(self) -> tuple[dict[str, str], dict[str, float]]:
        """(question id → best answer, question id → null odds), in question order; "" where there is no candidate.

        The null odds are BERT's null score difference (run_squad.py with version_2_with_negative): the score of [CLS]
        as start and end, minimum over the question's windows, minus that of its best span.
        """
        spans, odds = {}, {}
        for index, question in enumerate(self._questions):
            best = next(iter(self.candidates(index)), None)
            spans[question.id] = "" if best is None else best.text
            odds[question.id] = NO_SPAN_ODDS if best is None else self._null_scores[index] - best.score
        return spans, odds

    def probabilities(self) -> dict[str, float]:
        """Question id → the probability of its best answer among its `n_best`, the softmax of their scores."""
        found = {}
        for index, question in enumerate(self._questions):
            scores = np.array([candidate.score for candidate in self.candidates(index)])
            found[question.id] = round(float(1 / np.exp(scores - scores[0]).sum()), 4) if len(scores) else 0.0
        return found


def best_spans(
    start_logits: Logits,
    end_logits: Logits,
    may_start: NDArray[np.bool_],
    *,
    n_best: int = 20,
    answer_length: int = 30,
) -> list[tuple[int, int, float]]:
    """The `n_best` spans of one window, best first: (first token, last token, score).

    Args:
        start_logits, end_logits: [tokens] each.
        may_start: [tokens], where a span may begin.
        n_best: starts and ends tried, and spans returned.
        answer_length: longest span in tokens.
    """
    starts = _highest(np.where(may_start, start_logits, -np.inf), n_best)
    starts = starts[may_start[starts]]
    ends = _highest(end_logits, n_best)
    lengths = ends[None, :] - starts[:, None] + 1
    allowed = (lengths >= 1) & (lengths <= answer_length)
    scores = start_logits[starts].astype(np.float64)[:, None] + end_logits[ends].astype(np.float64)[None, :]
    rows, columns = np.nonzero(allowed)
    order = np.lexsort((ends[columns], starts[rows], -scores[rows, columns]))[:n_best]
    return [
        (int(starts[row]), int(ends[column]), float(scores[row, column]))
        for row, column in zip(rows[order], columns[order], strict=True)
    ]


def _highest(logits: Logits, count: int) -> NDArray[np.intp]:
    """Indices of the `count` highest logits, highest first; of equals, the lowest index first."""
    return np.argsort(-logits, kind="stable")[:count]
