"""Fine-tuning a BERT for questions, and its answers to a question set.

The recipe is that of BERT's run_squad.py: batches of 32, two passes, linear warm-up over a tenth of the
steps, linear decay, gradient clipped at 1.0. What a run computes depends on the questions, the settings and
the seed, which decides the order, the dropout and, where the head is new, its start (see `comparison.py`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from lambert.corpus.vocabulary import special_tokens
from lambert.errors import UserError
from lambert.finetune.loop import train_epochs
from lambert.finetune.squad.answers import AnswerCollector
from lambert.finetune.squad.data import Question
from lambert.finetune.squad.features import WindowBatch, make_batch, make_windows
from lambert.finetune.squad.settings import FineTuneProgress, FineTuneSettings, Progress, default_learning_rate
from lambert.model.heads import BertForQuestionAnswering
from lambert.training.optimizer import make_optimizer, named_groups
from lambert.training.step.train_step import TaskOutput
from lambert.utils.lr_schedule import LRSchedule

_BETAS, _EPSILON = (0.9, 0.999), 1e-6  # BERT's


@dataclass(frozen=True)
class FineTuneSummary:
    """What a fine-tuning did."""

    windows: int
    """Training windows of one epoch."""
    steps: int
    learning_rate: float
    """Peak."""
    train_loss: float
    """Mean over the windows of the last epoch, as they were met."""
    seconds: float


def span_task(model: nn.Module, batch: WindowBatch) -> TaskOutput:
    """Mean of the start's and the end's cross-entropy, summed over the windows; right when both are.

    Padding is kept out of the softmax, so the loss of a window does not depend on how far it was padded.
    """
    starts, ends = _span_scores(model, batch)
    start_loss = functional.cross_entropy(starts, batch.start_positions, reduction="sum")
    end_loss = functional.cross_entropy(ends, batch.end_positions, reduction="sum")
    right = (starts.argmax(-1) == batch.start_positions) & (ends.argmax(-1) == batch.end_positions)
    return TaskOutput(loss_sums={"span": (start_loss + end_loss) / 2}, correct={"span": right.sum()})


def fine_tune(
    model: BertForQuestionAnswering,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    settings: FineTuneSettings,
    *,
    seed: int,
    optimizer: Optimizer | None = None,
    progress: Progress | None = None,
) -> FineTuneSummary:
    """Train `model` in place, on the device where it lies.

    Args:
        questions: at least one; only the first answer of each is learned, and [CLS] where there is none.
        seed: decides order and dropout, a whole number from 0.
        optimizer: one already made, instead of the one `settings` names.
        progress: called after every step.

    Raises:
        UserError: the windows are longer than the model's positions or the tokenizer does not fit the model;
            `Diverged` where the loss stopped being a number.
    """
    check_fit(model, tokenizer, settings)
    assert questions
    windows = make_windows(questions, tokenizer, settings.shape)
    peak = settings.learning_rate or default_learning_rate(settings.optimizer, model.config.hidden_size)
    total_steps = settings.epochs * math.ceil(len(windows) / settings.batch_size)
    schedule = LRSchedule(peak, round(settings.warmup_ratio * total_steps), total_steps)
    if optimizer is None:
        groups, names = named_groups(model, weight_decay=settings.weight_decay)
        optimizer = make_optimizer(settings.optimizer, groups, names, betas=_BETAS, epsilon=_EPSILON)
    pad_id = special_tokens(tokenizer).pad
    began = time.monotonic()
    loss = train_epochs(
        model,
        optimizer,
        windows,
        settings,
        make_batch=partial(make_batch, pad_id=pad_id),
        task=span_task,
        schedule=schedule,
        max_grad_norm=settings.max_grad_norm,
        seed=seed,
        progress=progress,
    )
    return FineTuneSummary(len(windows), total_steps, peak, loss, time.monotonic() - began)


@dataclass(frozen=True)
class Predictions:
    """A model's answers to a question set."""

    answers: dict[str, str]
    """Question id → best span, in question order; "" where none was offered."""
    null_odds: dict[str, float]
    """Question id → `AnswerCollector.null_odds`; means something for a model that learned questions without answer."""
    windows: int
    seconds: float


@torch.no_grad()
def predict(
    model: BertForQuestionAnswering,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    settings: FineTuneSettings,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Predictions:
    """The model's best answer to every question.

    Windows of like length are scored together, longest first, so that little is padded and memory runs out at
    once or not at all; the answers do not depend on it. `seed` is only passed on to `progress`.

    Raises:
        UserError: the windows are longer than the model's positions or the tokenizer does not fit the model.
    """
    check_fit(model, tokenizer, settings)
    windows = make_windows(questions, tokenizer, settings.shape)
    by_length = sorted(windows, key=lambda window: -len(window.token_ids))
    collector = AnswerCollector(questions, best=settings.best, answer_length=settings.answer_length)
    device = next(model.parameters()).device
    pad_id = special_tokens(tokenizer).pad
    began = time.monotonic()
    model.eval()
    for first in range(0, len(by_length), settings.evaluation_batch_size):
        part = by_length[first : first + settings.evaluation_batch_size]
        with settings.precision.autocast(device):
            starts, ends = _span_scores(model, make_batch(part, pad_id=pad_id).to(device))
        for window, start, end in zip(part, starts.cpu().numpy(), ends.cpu().numpy(), strict=True):
            collector.add(window, start, end)
        if progress is not None:
            done = first + len(part)
            progress(FineTuneProgress(seed, "evaluating", done, len(windows), time.monotonic() - began))
    return Predictions(collector.predictions(), collector.null_odds(), len(windows), time.monotonic() - began)


def check_fit(model: BertForQuestionAnswering, tokenizer: Tokenizer, settings: FineTuneSettings) -> None:
    """Refuse windows that the model has no positions for and a vocabulary that it has no vectors for."""
    positions = model.config.maximum_positions
    if settings.shape.sequence_length > positions:
        raise UserError(
            f"windows of {settings.shape.sequence_length} tokens do not fit a model of {positions} positions",
            remedy=f"Set the sequence length to {positions} or less",
        )
    entries = tokenizer.get_vocab_size(with_added_tokens=True)
    if entries > model.config.vocabulary_size:
        raise UserError(
            f"the tokenizer has {entries} entries, the model {model.config.vocabulary_size}",
            remedy="Put the vocabulary that the model was trained with into its folder",
        )


def _span_scores(model: nn.Module, batch: WindowBatch) -> tuple[Tensor, Tensor]:
    """Start and end scores in float32, [B, S] each, lowest at padding."""
    starts, ends = model(batch.token_ids, batch.segment_ids, batch.attention_mask)
    padding = ~batch.attention_mask
    lowest = torch.finfo(torch.float32).min
    return starts.float().masked_fill(padding, lowest), ends.float().masked_fill(padding, lowest)
