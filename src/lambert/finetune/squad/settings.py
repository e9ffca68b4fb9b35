"""SQuAD's settings: BERT's run_squad.py."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from lambert.errors import UserError
from lambert.finetune.settings import FineTuneSettings

SPECIALS_IN_A_WINDOW = 3  # [CLS] and two [SEP]
LONGEST_QUESTION = 64  # of BERT's script


@dataclass(frozen=True, kw_only=True)
class SquadSettings(FineTuneSettings):
    """How a model is fine-tuned on questions and answers them. A sequence is a window: question and context."""

    APPLIED_AFTERWARDS: ClassVar[tuple[str, ...]] = ("null_threshold",)

    epochs: int = 2
    sequence_length: int = 384
    document_stride: int = 128
    """Tokens from the start of one window's context to the start of the next."""
    question_length: int = 0
    """Longest question in tokens; a longer one is truncated. 0 takes 64, or half of what a shorter sequence holds."""
    n_best: int = 20
    """Starts, ends and answers kept for a question."""
    answer_length: int = 30
    """Longest answer in tokens."""
    evaluation_batch_size: int | None = 32
    null_threshold: float = 0.0
    """SQuAD v2.0: the answer is "" where the null odds (`AnswerCollector.results`) are above this."""

    def __post_init__(self) -> None:
        if self.question_length == 0:
            half = (self.sequence_length - SPECIALS_IN_A_WINDOW) // 2
            object.__setattr__(self, "question_length", min(LONGEST_QUESTION, max(1, half)))
        super().__post_init__()
        if not math.isfinite(self.null_threshold):
            raise UserError(f"`null_threshold` = {self.null_threshold}", remedy="Give a finite number")
        least = self.question_length + SPECIALS_IN_A_WINDOW + 1
        if self.sequence_length < least:
            raise UserError(
                f"`sequence_length` {self.sequence_length} leaves no room for a context beside a question of "
                f"{self.question_length} tokens and {SPECIALS_IN_A_WINDOW} special ones",
                remedy=f"Leave out `question_length`, or give a `sequence_length` from {least}",
            )
