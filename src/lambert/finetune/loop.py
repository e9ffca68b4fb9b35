"""The two loops of fine-tuning, for any task: training epochs and predictions.

Order, dropout and micro-batches depend on the seed and the sequences alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.optim import Optimizer

from lambert.corpus.vocabulary import special_tokens
from lambert.errors import UserError
from lambert.finetune.inputs import Encoded, SequenceBatch, make_batch
from lambert.finetune.seeds import shuffled
from lambert.finetune.settings import FineTuneProgress, FineTuneSettings, Progress, default_learning_rate
from lambert.training.config.lr_schedule import LRSchedule
from lambert.training.optimizer import make_optimizer, named_groups
from lambert.training.step.train_step import StepResult, Task, train_step

_BETAS, _EPSILON = (0.9, 0.999), 1e-6  # BERT's
_ORDER, _DROPOUT = 0, 1  # keep the random streams of one seed apart
Item = TypeVar("Item", bound=Encoded)


class Diverged(UserError):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class TrainSummary:
    """What a fine-tuning did."""

    sequences: int
    """Training sequences of one epoch."""
    steps: int
    learning_rate: float
    """Peak."""
    train_loss: float
    """Mean over the sequences of the last epoch, each before its own step."""
    seconds: float


def epoch_batches(items: int, batch_size: int, *, seed: int, epoch: int) -> Iterator[list[int]]:
    """Each item once in an order decided by (seed, epoch); the last batch may be smaller."""
    order = shuffled(items, (seed, _ORDER, epoch)).tolist()
    for first in range(0, items, batch_size):
        yield order[first : first + batch_size]


def train(
    model: nn.Module,
    tokenizer: Tokenizer,
    sequences: Sequence[Encoded],
    settings: FineTuneSettings,
    *,
    task: Task[SequenceBatch],
    seed: int,
    optimizer: Optimizer | None = None,
    progress: Progress | None = None,
) -> TrainSummary:
    """Train `model` in place, on its own device: linear warm-up, linear decay.

    Args:
        sequences: at least one.
        task: the loss, summed over a micro-batch.
        seed: decides order and dropout, a whole number from 0.
        optimizer: a ready one in place of the one that `settings` names.
        progress: called after every step.

    Raises:
        Diverged: the loss became NaN or infinite.
    """
    assert sequences
    config: Any = model.config
    peak = settings.learning_rate or default_learning_rate(settings.optimizer, config.hidden_size)
    total_steps = settings.epochs * math.ceil(len(sequences) / settings.batch_size)
    schedule = LRSchedule(peak, round(settings.warmup_ratio * total_steps), total_steps)
    if optimizer is None:
        groups, names = named_groups(model, weight_decay=settings.weight_decay)
        optimizer = make_optimizer(settings.optimizer, groups, names, betas=_BETAS, epsilon=_EPSILON)
    step_on = partial(
        _step, model, optimizer, settings=settings, task=task, seed=seed, pad=special_tokens(tokenizer).pad
    )
    began, step, loss_sum = time.monotonic(), 0, 0.0
    for epoch in range(settings.epochs):
        loss_sum = 0.0
        for batch in epoch_batches(len(sequences), settings.batch_size, seed=seed, epoch=epoch):
            step += 1
            rate = schedule.rate(step)
            loss = step_on([sequences[index] for index in batch], step=step, learning_rate=rate).loss
            if not math.isfinite(loss):
                raise Diverged(
                    f"the loss became {loss} at step {step} (learning rate {rate:.3g})",
                    remedy="Lower the learning rate",
                )
            loss_sum += loss * len(batch)
            if progress is not None:
                elapsed = time.monotonic() - began
                progress(FineTuneProgress(seed, "training", step, total_steps, elapsed, loss, rate))
    return TrainSummary(len(sequences), total_steps, peak, loss_sum / len(sequences), time.monotonic() - began)


def _step(
    model: nn.Module,
    optimizer: Optimizer,
    batch: list[Encoded],
    *,
    settings: FineTuneSettings,
    task: Task[SequenceBatch],
    seed: int,
    pad: int,
    step: int,
    learning_rate: float,
) -> StepResult:
    """One optimizer step, in micro-batches of similar length so that short sequences get little padding."""
    by_length = sorted(batch, key=lambda sequence: len(sequence.token_ids))
    size = settings.micro_batch_size
    parts = [by_length[first : first + size] for first in range(0, len(by_length), size)]
    keys = [np.random.SeedSequence((seed, _DROPOUT, step, index)) for index in range(len(parts))]
    return train_step(
        model,
        optimizer,
        [make_batch(part, pad_id=pad) for part in parts],
        task=task,
        learning_rate=learning_rate,
        max_grad_norm=settings.max_grad_norm,
        dropout_seeds=[int(key.generate_state(1)[0]) for key in keys],
        precision=settings.precision,
    )


@torch.no_grad()
def predict_sequences(
    model: nn.Module,
    tokenizer: Tokenizer,
    sequences: Sequence[Encoded],
    settings: FineTuneSettings,
    *,
    forward: Callable[[nn.Module, SequenceBatch], Tensor],
    batch_size: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(index of a sequence, its row of the float32 logits of `forward`), for every sequence once.

    The longest come first: batches of similar length need little padding, and memory runs out at once or not at all.
    `seed` is only passed on to `progress`.
    """
    order = sorted(range(len(sequences)), key=lambda index: -len(sequences[index].token_ids))
    device, pad_id = next(model.parameters()).device, special_tokens(tokenizer).pad
    began = time.monotonic()
    model.eval()
    for first in range(0, len(order), batch_size):
        indices = order[first : first + batch_size]
        batch = make_batch([sequences[index] for index in indices], pad_id=pad_id).to(device)
        with settings.precision.autocast(device):
            logits = forward(model, batch)
        yield from zip(indices, logits.float().cpu().numpy(), strict=True)
        if progress is not None:
            done, elapsed = first + len(indices), time.monotonic() - began
            progress(FineTuneProgress(seed, "evaluating", done, len(order), elapsed))
