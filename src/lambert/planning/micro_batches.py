"""Which micro-batch is fastest on this machine, by trying."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lambert.model.heads import BertForPreTraining
from lambert.planning.probe import random_batch
from lambert.training.config.training_config import TrainingConfig
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.step.pretraining_loss import pretraining_task
from lambert.training.step.timer import StepTimer
from lambert.training.step.train_state import TrainState
from lambert.training.step.train_step import OutOfMemory, train_step

_LEAST_TOKENS = 1_024
"""Token slots of the smallest micro-batch that is tried."""
_AS_FAST, _FALLING = 0.98, 0.9
"""Shares of the best rate: from the first on a size is as fast as the best, below the second no larger one is tried."""


@dataclass(frozen=True)
class MicroBatchTrial:
    """How fast micro-batches of one size go through the model."""

    size: int
    """Sequences."""
    sequences_per_second: float


def try_micro_batches(
    settings: TrainingConfig, phase_index: int, device: torch.device, *, largest: int, budget_seconds: float
) -> list[MicroBatchTrial]:
    """Times micro-batches of growing size on random ids, until they no longer gain, do not fit, or time is up.

    Args:
        phase_index: from 0.
        largest: sequences that memory has room for, as far as is known.
        budget_seconds: after the first size, whose time holds that of starting up, no other is tried beyond this.

    Returns:
        What was tried; nothing where the whole batch is small enough for one micro-batch.
    """
    phase = settings.phases[phase_index]
    trials: list[MicroBatchTrial] = []
    size = max(1, _LEAST_TOKENS // phase.sequence_length)
    if phase.batch_size <= size:
        return trials
    state = TrainState(BertForPreTraining(settings.model), settings, ProcessGroup(device=device))
    began = time.monotonic()
    while not trials or (size <= min(phase.batch_size, largest) and time.monotonic() - began < budget_seconds):
        try:
            seconds = _pass_seconds(state, settings, size, phase.sequence_length)
        except OutOfMemory:
            break
        if not trials:
            began = time.monotonic()
        trials.append(MicroBatchTrial(size, size / seconds))
        if trials[-1].sequences_per_second < _FALLING * max(trial.sequences_per_second for trial in trials):
            break
        size *= 2
    return trials


def fastest(trials: Sequence[MicroBatchTrial], default: int) -> int:
    """The largest size among those as fast as the fastest, but for noise; `default` where none fitted."""
    best = max((trial.sequences_per_second for trial in trials), default=0.0)
    return max((trial.size for trial in trials if trial.sequences_per_second >= _AS_FAST * best), default=default)


def _pass_seconds(state: TrainState, settings: TrainingConfig, size: int, length: int) -> float:
    """Forward and backward pass of one micro-batch, the faster of two after a first."""
    batch = random_batch(size, length, settings.model.vocabulary_size)
    timer = StepTimer(next(state.model.parameters()).device)
    seconds = []
    for _ in range(3):
        train_step(
            state.model,
            state.optimizer,
            [batch],
            task=pretraining_task,
            learning_rate=1e-6,
            max_grad_norm=settings.max_grad_norm or None,
            dropout_seeds=[0],
            precision=settings.precision,
            master=state.master,
            gradients=state.gradients,
            timer=timer,
        )
        parts = timer.read()
        seconds.append(parts["forward"] + parts["backward"])
    return min(seconds[1:])
