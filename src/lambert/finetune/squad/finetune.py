"""Fine-tuning a BERT on questions, and predicting answers. The recipe is that of BERT's run_squad.py."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from lambert.finetune.inputs import SequenceBatch
from lambert.finetune.job import Predictions
from lambert.finetune.loop import TrainSummary, predict_sequences, train
from lambert.finetune.model import check_fit
from lambert.finetune.settings import Progress
from lambert.finetune.squad.answers import AnswerCollector
from lambert.finetune.squad.data import Question
from lambert.finetune.squad.features import make_windows
from lambert.finetune.squad.settings import SquadSettings
from lambert.model.heads import BertForQuestionAnswering
from lambert.training.step.train_step import TaskOutput


def span_task(model: nn.Module, batch: SequenceBatch) -> TaskOutput:
    """Mean of the start's and the end's cross-entropy, summed over the windows; correct when both are."""
    starts, ends = span_logits(model, batch).unbind(1)
    start_positions, end_positions = batch.targets.unbind(1)
    start_loss = functional.cross_entropy(starts, start_positions, reduction="sum")
    end_loss = functional.cross_entropy(ends, end_positions, reduction="sum")
    correct = (starts.argmax(-1) == start_positions) & (ends.argmax(-1) == end_positions)
    return TaskOutput({"sequence": (start_loss + end_loss) / 2}, {"sequence": correct.sum()})


def span_logits(model: nn.Module, batch: SequenceBatch) -> Tensor:
    """Start and end logits, [B, 2, S] float32.

    They are lowest at padding, which keeps it out of the softmax: the loss of a window does not depend on its padding.
    """
    logits = torch.stack(model(batch.token_ids, batch.segment_ids, batch.attention_mask), 1).float()
    return logits.masked_fill(~batch.attention_mask[:, None], torch.finfo(torch.float32).min)


def fine_tune(
    model: BertForQuestionAnswering,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    settings: SquadSettings,
    *,
    seed: int,
    optimizer: Optimizer | None = None,
    progress: Progress | None = None,
) -> TrainSummary:
    """Train `model` in place, on its own device.

    Args:
        questions: at least one; the first answer of each is the target, and [CLS] where there is none.
        seed: decides order and dropout, a whole number from 0.
        optimizer: a ready one in place of the one that `settings` names.
        progress: called after every step.

    Raises:
        UserError: windows or vocabulary do not fit the model; `Diverged` where the loss became NaN or infinite.
    """
    check_fit(model, tokenizer, settings.sequence_length)
    windows = make_windows(questions, tokenizer, settings)
    return train(model, tokenizer, windows, settings, task=span_task, seed=seed, optimizer=optimizer, progress=progress)


def predict(
    model: BertForQuestionAnswering,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    settings: SquadSettings,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Predictions:
    """The model's best answer to every question, which does not depend on the batches.

    Returns:
        `spans`: question id → best span, in question order; `null_odds`: question id → `AnswerCollector.null_odds`,
        meaningful for a model that was trained on questions without an answer.

    Raises:
        UserError: windows or vocabulary do not fit the model.
    """
    check_fit(model, tokenizer, settings.sequence_length)
    windows = make_windows(questions, tokenizer, settings)
    collector = AnswerCollector(questions, n_best=settings.n_best, answer_length=settings.answer_length)
    began = time.monotonic()
    for index, (starts, ends) in predict_sequences(
        model,
        tokenizer,
        windows,
        settings,
        forward=span_logits,
        batch_size=settings.evaluation_batch_size,
        seed=seed,
        progress=progress,
    ):
        collector.add(windows[index], starts, ends)
    values = {"spans": collector.predictions(), "null_odds": collector.null_odds()}
    return Predictions(values, len(windows), time.monotonic() - began)
