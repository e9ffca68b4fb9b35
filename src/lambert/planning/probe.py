"""Seconds of a real training step on this machine; the only part of planning that runs one."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from lambert.batches.loader import PretrainingBatch
from lambert.batches.masking import prediction_counts
from lambert.model.heads import BertForPreTraining
from lambert.training.settings import RunSettings
from lambert.training.state import TrainingState
from lambert.training.step import train_step
from lambert.training.tasks import pretraining_task

_WARMUP_STEPS = 1
_LEAST_STEPS = 2
_ONE, _MORE = 1, 3


@dataclass(frozen=True)
class StepCost:
    """What a step of a phase costs on one process."""

    micro_batch_seconds: float
    """Forward and backward pass of one micro-batch."""
    optimizer_seconds: float
    """The rest of a step: clipping and update."""

    def step_seconds(self, micro_batches: int) -> float:
        """Time of a step of so many micro-batches."""
        return micro_batches * self.micro_batch_seconds + self.optimizer_seconds


def measure_step(settings: RunSettings, phase_index: int, device: torch.device, *, budget_seconds: float) -> StepCost:
    """Time real steps of one and of three micro-batches of random ids, in turn; their difference tells the parts.

    Args:
        phase_index: 0 or 1.
        budget_seconds: measure until this much has passed, two steps of each kind at least.
    """
    phase = settings.phases[phase_index]
    size = settings.micro_batch_sizes[phase_index]
    state = TrainingState(BertForPreTraining(settings.model), settings, device)
    batch = _random_batch(size, phase.sequence_length, settings.model.vocabulary_size)
    times: dict[int, list[float]] = {_ONE: [], _MORE: []}
    began = time.monotonic()
    while len(times[_MORE]) < _WARMUP_STEPS + _LEAST_STEPS or time.monotonic() - began < budget_seconds:
        for count, measured in times.items():
            step_began = time.monotonic()
            train_step(
                state.model,
                state.optimizer,
                [batch] * count,
                task=pretraining_task,
                learning_rate=1e-6,
                clip_norm=settings.clip_norm,
                dropout_seeds=range(count),
                precision=settings.precision,
                master=state.master,
            )
            measured.append(time.monotonic() - step_began)
    one, more = (float(np.median(measured[_WARMUP_STEPS:])) for measured in times.values())
    micro_batch = max(0.0, more - one) / (_MORE - _ONE)
    return StepCost(micro_batch, max(0.0, one - micro_batch))


def _random_batch(sequences: int, length: int, vocabulary_size: int) -> PretrainingBatch:
    """A batch of full rows, as most rows of real text are."""
    random = torch.Generator().manual_seed(0)
    per_row = int(prediction_counts(np.array([length]), length)[0])
    places = torch.arange(1, per_row + 1) * (length // (per_row + 1))
    positions = (torch.arange(sequences)[:, None] * length + places).flatten()
    return PretrainingBatch(
        token_ids=torch.randint(0, vocabulary_size, (sequences, length), generator=random),
        segment_ids=torch.zeros(sequences, length, dtype=torch.int64),
        attention_mask=None,
        masked_positions=positions,
        masked_labels=torch.randint(0, vocabulary_size, (len(positions),), generator=random),
        next_sentence_labels=torch.zeros(sequences, dtype=torch.int64),
        real_tokens=sequences * length,
    )
