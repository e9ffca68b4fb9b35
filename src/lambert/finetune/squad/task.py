"""SQuAD as a fine-tuning task. The recipe is that of BERT's run_squad.py."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lambert.finetune.inputs import SequenceBatch
from lambert.finetune.loop import Rows, TaskPreset
from lambert.finetune.squad.answers import AnswerCollector
from lambert.finetune.squad.data import Question, Version
from lambert.finetune.squad.features import Window, make_windows
from lambert.finetune.squad.settings import SquadSettings
from lambert.model.heads import question_answering_model
from lambert.training.step.train_step import TaskOutput


def span_logits(model: nn.Module, batch: SequenceBatch) -> Tensor:
    """Start and end logits, [B, 2, S] float32.

    They are lowest at padding, which keeps it out of the softmax: the loss of a window does not depend on its padding.
    """
    logits = torch.stack(model(batch.token_ids, batch.segment_ids, batch.attention_mask), 1).float()
    return logits.masked_fill(~batch.attention_mask[:, None], torch.finfo(torch.float32).min)


def span_loss(logits: Tensor, batch: SequenceBatch) -> TaskOutput:
    """Mean of the start's and the end's cross-entropy, summed over the windows; correct when both are."""
    starts, ends = logits.unbind(1)
    start_positions, end_positions = batch.targets.unbind(1)
    start_loss = functional.cross_entropy(starts, start_positions, reduction="sum")
    end_loss = functional.cross_entropy(ends, end_positions, reduction="sum")
    correct = (starts.argmax(-1) == start_positions) & (ends.argmax(-1) == end_positions)
    return TaskOutput({"sequence": (start_loss + end_loss) / 2}, {"sequence": correct.sum()})


def best_answers(
    questions: Sequence[Question], windows: Sequence[Window], rows: Rows, settings: SquadSettings
) -> dict[str, Any]:
    """`spans`: question id → best span, in question order; `null_odds` and `probabilities`: → those of that span.

    The odds mean something for a model that was trained on questions without an answer.
    """
    collector = AnswerCollector(questions, n_best=settings.n_best, answer_length=settings.answer_length)
    for index, (starts, ends) in rows:
        collector.add(windows[index], starts, ends)
    spans, null_odds = collector.results()
    return {"spans": spans, "null_odds": null_odds, "probabilities": collector.probabilities()}


def squad_preset(version: Version = "1.1") -> TaskPreset:
    """The task of questions of a version."""
    name = f"SQuAD v{version}"
    texts = attrgetter("question", "context")
    return TaskPreset(name, question_answering_model, make_windows, span_logits, span_loss, best_answers, texts)
