"""The passes of a fine-tuning over its examples, of whatever task: order, micro-batches, dropout, rate, refusal."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Protocol, TypeVar

import numpy as np
from torch import nn
from torch.optim import Optimizer

from lambert.errors import UserError
from lambert.finetune.squad.data import shuffled
from lambert.finetune.squad.settings import FineTuneProgress, Progress
from lambert.training.config.precision import Precision
from lambert.training.step.train_step import MicroBatch, Task, train_step
from lambert.utils.lr_schedule import LRSchedule

_ORDER, _DROPOUT = 0, 1  # keep the random streams of one seed apart


class Diverged(UserError):
    """The loss stopped being a number."""


class Sequenced(Protocol):
    """What is learned from: it has a length."""

    @property
    def token_ids(self) -> Sized:
        """Of its sequence."""
        ...


class LoopSettings(Protocol):
    """What a fine-tuning's settings say of its passes."""

    @property
    def epochs(self) -> int:
        """Passes."""
        ...

    @property
    def batch_size(self) -> int:
        """Items in a step."""
        ...

    @property
    def micro_batch_size(self) -> int:
        """Items that go through the model at once."""
        ...

    @property
    def precision(self) -> Precision:
        """Number format."""
        ...


Item = TypeVar("Item", bound=Sequenced)
Batch = TypeVar("Batch", bound=MicroBatch)


def epoch_batches(items: int, batch_size: int, *, seed: int, epoch: int) -> Iterator[list[int]]:
    """Each item once in an order decided by (seed, epoch); the last batch may be smaller."""
    order = shuffled(items, (seed, _ORDER, epoch)).tolist()
    for first in range(0, items, batch_size):
        yield order[first : first + batch_size]


def train_epochs(
    model: nn.Module,
    optimizer: Optimizer,
    items: Sequence[Item],
    settings: LoopSettings,
    *,
    make_batch: Callable[[Sequence[Item]], Batch],
    task: Task[Batch],
    schedule: LRSchedule,
    max_grad_norm: float | None,
    seed: int,
    progress: Progress | None = None,
) -> float:
    """Train `model` in place; gives the mean loss over the last pass.

    A batch goes through the model in parts of like length, so that short sequences are not padded to its longest.

    Args:
        make_batch: a micro-batch of some items.
        schedule: over all steps of all passes.
        seed: decides order and dropout, a whole number from 0.
        progress: called after every step.

    Raises:
        Diverged: the loss stopped being a number.
    """
    began, step, loss_sum = time.monotonic(), 0, 0.0
    for epoch in range(settings.epochs):
        loss_sum = 0.0
        for batch in epoch_batches(len(items), settings.batch_size, seed=seed, epoch=epoch):
            step += 1
            rate = schedule.rate(step)
            by_length = sorted((items[index] for index in batch), key=lambda item: len(item.token_ids))
            cuts = range(0, len(by_length), settings.micro_batch_size)
            keys = [np.random.SeedSequence((seed, _DROPOUT, step, place)) for place in range(len(cuts))]
            result = train_step(
                model,
                optimizer,
                [make_batch(by_length[cut : cut + settings.micro_batch_size]) for cut in cuts],
                task=task,
                learning_rate=rate,
                max_grad_norm=max_grad_norm,
                dropout_seeds=[int(key.generate_state(1)[0]) for key in keys],
                precision=settings.precision,
            )
            if not math.isfinite(result.loss):
                raise Diverged(
                    f"the loss became {result.loss} at step {step} (learning rate {rate:.3g})",
                    remedy="Lower the learning rate",
                )
            loss_sum += result.loss * len(batch)
            if progress is not None:
                elapsed = time.monotonic() - began
                progress(FineTuneProgress(seed, "training", step, schedule.total_steps, elapsed, result.loss, rate))
    return loss_sum / len(items)
