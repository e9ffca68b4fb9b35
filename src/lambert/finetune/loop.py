"""Fine-tuning and predicting, for any task.

The trained weights depend on the model, the examples, the settings and the seed alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.optim import Optimizer

from lambert.corpus.vocabulary import special_tokens
from lambert.errors import UserError
from lambert.finetune.inputs import Encoded, SequenceBatch, make_batch
from lambert.finetune.model import check_fit
from lambert.finetune.seeds import shuffled
from lambert.finetune.settings import FineTuneProgress, FineTuneSettings, Progress, default_learning_rate
from lambert.model.bert import BertConfig
from lambert.training.optimizer import make_optimizer, named_groups
from lambert.training.step.download import Download
from lambert.training.step.train_step import OutOfMemory, PendingStep, TaskOutput, launch_step
from lambert.utils.lr_schedule import LRSchedule
from lambert.utils.memory import memory_words

_BETAS, _EPSILON = (0.9, 0.999), 1e-6  # BERT's
_CURVE_POINTS = 100
_ORDER, _DROPOUT = 0, 1  # keep the random streams of one seed apart


Rows = Iterator[tuple[int, NDArray[np.float32]]]
"""(index of a sequence, its logits), in any order."""


class Diverged(UserError):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class TaskPreset:
    """All that distinguishes one fine-tuning task from another."""

    name: str
    head: Callable[[BertConfig], Any]
    """Builds encoder and head."""
    encode: Callable[[Sequence[Any], Tokenizer, Any], Sequence[Encoded]]
    """(examples, tokenizer, settings) → sequences, one or more for each example."""
    logits: Callable[[nn.Module, SequenceBatch], Tensor]
    """float32, a row for each sequence."""
    loss: Callable[[Tensor, SequenceBatch], TaskOutput]
    """Of the logits, summed over the batch."""
    decode: Callable[[Sequence[Any], Sequence[Any], Rows, Any], dict[str, Any]]
    """(examples, sequences, rows of logits, settings) → predictions that JSON can hold."""
    texts: Callable[[Any], Sequence[str]]
    """The texts of an example."""
    finish: Callable[[nn.Module], None] | None = None
    """Changes a trained model that has predicted into the one that is kept."""
    made_from: Mapping[str, Any] = field(default_factory=dict)
    """What else decides the weights, ready for JSON."""

    def task(self, model: nn.Module, batch: SequenceBatch) -> TaskOutput:
        """The loss of a micro-batch."""
        return self.loss(self.logits(model, batch), batch)


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
    curve: list[list[float]]
    """Points of the training loss: a step, and the mean of the steps since the point before."""


@dataclass(frozen=True)
class Predictions:
    """What a model predicts for a list of examples."""

    values: dict[str, Any]
    """As `TaskPreset.decode` returns them."""
    sequences: int
    seconds: float


def epoch_batches(items: int, batch_size: int, *, seed: int, epoch: int) -> Iterator[list[int]]:
    """Each item once in an order decided by (seed, epoch); the last batch may be smaller."""
    order = shuffled(items, (seed, _ORDER, epoch)).tolist()
    for first in range(0, items, batch_size):
        yield order[first : first + batch_size]


def fine_tune(
    model: nn.Module,
    tokenizer: Tokenizer,
    preset: TaskPreset,
    examples: Sequence[Any],
    settings: FineTuneSettings,
    *,
    seed: int,
    optimizer: Optimizer | None = None,
    progress: Progress | None = None,
) -> TrainSummary:
    """Train `model` in place, on its own device, with linear warm-up and linear decay.

    Args:
        examples: at least one.
        seed: decides order and dropout, a whole number from 0.
        optimizer: used instead of the one that `settings` names.
        progress: called after every step.

    Raises:
        UserError: sequences or vocabulary do not fit the model, or a micro-batch the memory; `Diverged` where the loss
            became NaN or infinite.
    """
    assert examples
    check_fit(model, tokenizer, settings.sequence_length)
    sequences = preset.encode(examples, tokenizer, settings)
    config: Any = model.config
    peak = settings.resolved(config.hidden_size).learning_rate
    assert peak is not None
    total_steps = settings.epochs * math.ceil(len(sequences) / settings.batch_size)
    schedule = LRSchedule(peak, round(settings.warmup_ratio * total_steps), total_steps)
    if optimizer is None:
        groups, names = named_groups(model, weight_decay=settings.weight_decay)
        ratio = default_learning_rate("adamw", config.hidden_size)
        ratio /= default_learning_rate(settings.optimizer, config.hidden_size)
        optimizer = make_optimizer(
            settings.optimizer, groups, names, betas=_BETAS, epsilon=_EPSILON, adamw_lr_ratio=ratio
        )
    began, step, pad_id = time.monotonic(), 0, special_tokens(tokenizer).pad
    reader = _StepReader(FineTuneProgress(seed, "training", 0, total_steps, 0.0), began, progress)
    most_unread = int(next(model.parameters()).device.type == "cuda")  # it works on the next step meanwhile
    for epoch in range(settings.epochs):
        for batch in epoch_batches(len(sequences), settings.batch_size, seed=seed, epoch=epoch):
            step += 1
            rate = schedule.rate(step)
            micro_batches = _micro_batches([sequences[index] for index in batch], settings.micro_batch_size, pad_id)
            keys = [np.random.SeedSequence((seed, _DROPOUT, step, index)) for index in range(len(micro_batches))]
            how: dict[str, Any] = {
                "task": preset.task,
                "learning_rate": rate,
                "max_grad_norm": settings.max_grad_norm,
                "dropout_seeds": [int(key.generate_state(1)[0]) for key in keys],
                "precision": settings.precision,
            }
            try:
                pending = launch_step(model, optimizer, micro_batches, **how)
            except OutOfMemory as error:
                raise _too_large(settings, error) from None
            reader.unread.append(_Launched(step, epoch, len(batch), rate, pending))
            reader.read(most_unread)
    reader.read(0)
    seconds = time.monotonic() - began
    train_loss = reader.loss_sum / len(sequences)
    return TrainSummary(len(sequences), total_steps, peak, train_loss, seconds, loss_curve(reader.losses))


def loss_curve(losses: Sequence[float], most_points: int = _CURVE_POINTS) -> list[list[float]]:
    """Points [step, mean loss since the point before], at most so many.

    >>> loss_curve([4.0, 2.0, 1.0], 2)
    [[2, 3.0], [3, 1.0]]
    """
    size = max(1, math.ceil(len(losses) / most_points))
    parts = ((first, losses[first : first + size]) for first in range(0, len(losses), size))
    return [[first + len(part), sum(part) / len(part)] for first, part in parts]


def _too_large(settings: FineTuneSettings, error: OutOfMemory) -> UserError:
    size, length = settings.micro_batch_size, settings.sequence_length
    remedy = "Give a smaller `micro_batch_size`" if size > 1 else "Give a smaller `sequence_length`, or a smaller model"
    return UserError(
        f"a micro-batch of {size} sequences of up to {length} tokens: {memory_words(error)}", remedy=remedy
    )


@dataclass(frozen=True)
class _Launched:
    """A step of a fine-tuning."""

    number: int
    epoch: int
    sequences: int
    rate: float
    pending: PendingStep


class _StepReader:
    """Reads steps in their order, which waits for the device, and tells `progress` of each."""

    def __init__(self, empty: FineTuneProgress, began: float, progress: Progress | None) -> None:
        self._empty, self._began, self._progress = empty, began, progress
        self.unread: list[_Launched] = []
        self.losses: list[float] = []
        """Of every step."""
        self.loss_sum, self._epoch = 0.0, 0
        """Of the last epoch, over the sequences."""

    def read(self, most_unread: int) -> None:
        """Read all steps but the last `most_unread`.

        Raises:
            Diverged: the loss of a step is NaN or infinite.
        """
        while len(self.unread) > most_unread:
            step = self.unread.pop(0)
            loss = step.pending.result.loss
            if not math.isfinite(loss):
                what = f"the loss became {loss} at step {step.number} (learning rate {step.rate:.3g})"
                raise Diverged(what, remedy="Lower the learning rate")
            if step.epoch != self._epoch:
                self.loss_sum, self._epoch = 0.0, step.epoch
            self.losses.append(loss)
            self.loss_sum += loss * step.sequences
            if self._progress is not None:
                elapsed = time.monotonic() - self._began
                here = replace(self._empty, done=step.number, seconds=elapsed, loss=loss, learning_rate=step.rate)
                self._progress(here)


def predict(
    model: nn.Module,
    tokenizer: Tokenizer,
    preset: TaskPreset,
    examples: Sequence[Any],
    settings: FineTuneSettings,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Predictions:
    """The model's predictions for the examples. `seed` is only passed on to `progress`.

    Raises:
        UserError: sequences or vocabulary do not fit the model.
    """
    check_fit(model, tokenizer, settings.sequence_length)
    sequences = preset.encode(examples, tokenizer, settings)
    began = time.monotonic()

    unread: list[tuple[list[int], Download]] = []
    done = 0

    def read(most_unread: int) -> Rows:
        nonlocal done
        while len(unread) > most_unread:
            indices, logits = unread.pop(0)
            yield from zip(indices, logits.read().numpy(), strict=True)
            done += len(indices)
            if progress is not None:
                progress(FineTuneProgress(seed, "evaluating", done, len(sequences), time.monotonic() - began))

    @torch.no_grad()
    def rows() -> Rows:
        # The longest first: batches of similar length need little padding, and memory runs out at once or not at all.
        order = sorted(range(len(sequences)), key=lambda index: -len(sequences[index].token_ids))
        device, pad_id = next(model.parameters()).device, special_tokens(tokenizer).pad
        size = settings.evaluation_batch_size or settings.batch_size
        for first in range(0, len(order), size):
            indices = order[first : first + size]
            batch = make_batch([sequences[index] for index in indices], pad_id=pad_id).to(device)
            with settings.precision.autocast(device):
                unread.append((indices, Download(preset.logits(model, batch))))
            yield from read(int(device.type == "cuda"))  # it works on one batch while another is decoded
        yield from read(0)

    model.eval()
    values = preset.decode(examples, sequences, rows(), settings)
    return Predictions(values, len(sequences), time.monotonic() - began)


def _micro_batches(batch: Sequence[Encoded], size: int, pad_id: int) -> list[SequenceBatch]:
    """A batch in parts of similar length, so that short sequences get little padding."""
    by_length = sorted(batch, key=lambda sequence: len(sequence.token_ids))
    return [make_batch(by_length[first : first + size], pad_id=pad_id) for first in range(0, len(by_length), size)]
