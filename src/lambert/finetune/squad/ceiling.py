"""The best score that tokens allow: answers are spans of whole tokens, and a reference answer may begin inside one."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from lambert.finetune.squad.answers import AnswerCollector
from lambert.finetune.squad.data import Question
from lambert.finetune.squad.features import make_windows
from lambert.finetune.squad.metric import Score, score
from lambert.finetune.squad.settings import SquadSettings

log = logging.getLogger("lambert")

_QUESTIONS = 500
_USUAL = 95.0
"""Exact match in per cent: English SQuAD has 99.7."""


def best_score(questions: Sequence[Question], tokenizer: Tokenizer, settings: SquadSettings) -> Score:
    """The score of a model that knows the first reference answer of every question, of which each has one.

    Every window gets a high logit at the first and the last token of that answer where it holds it, and 0 elsewhere.
    """
    collector = AnswerCollector(questions, n_best=settings.n_best, answer_length=settings.answer_length)
    for window in make_windows(questions, tokenizer, settings):
        starts, ends = np.zeros((2, len(window.token_ids)), np.float32)
        assert isinstance(window.target, tuple)
        first, last = map(int, window.target)
        if first:  # 0 is [CLS]: the answer is not in this window
            starts[first] = ends[last] = 10.0
        collector.add(window, starts, ends)
    return score(questions, collector.results()[0])


def warn_of_tokens(questions: Sequence[Question], tokenizer: Tokenizer, settings: SquadSettings) -> None:
    """Warn where whole tokens cannot give the reference answers of the first questions."""
    answered = [question for question in questions if question.answers][:_QUESTIONS]
    if not answered:
        return
    best = best_score(answered, tokenizer, settings)
    if best.exact_match < _USUAL:
        log.warning(
            f"the best spans of whole tokens reach exact match {best.exact_match:.1f} and F1 {best.f1:.1f} on the "
            f"first {len(answered):,} questions with an answer: reference answers begin or end inside tokens, do not "
            "fit the window, or are longer than `answer_length`. Spaces between words and a larger vocabulary help"
        )
