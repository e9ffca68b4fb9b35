"""Seconds of a real training step on this machine; the only part of planning that runs one."""

from __future__ import annotations

import time

import numpy as np
import torch

from lambert.batches.loader import PretrainingBatch
from lambert.batches.masking import prediction_count
from lambert.model.heads import BertForPreTraining
from lambert.training.settings import RunSettings
from lambert.training.state import TrainingState
from lambert.training.step import train_step
from lambert.training.tasks import pretraining_task

_WARMUP_STEPS = 1
_LEAST_STEPS = 2


def seconds_per_sequence(
    settings: RunSettings, phase_index: int, device: torch.device, *, budget_seconds: float
) -> float:
    """Time of one sequence of a phase, from steps of one micro-batch of random ids.

    The optimizer's share is that of a step with a single micro-batch, so long accumulation is predicted a little
    too slow.

    Args:
        phase_index: 0 or 1.
        budget_seconds: measure until this much has passed, two steps at least.
    """
    phase = settings.phases[phase_index]
    size = settings.micro_batch_sizes[phase_index]
    state = TrainingState(BertForPreTraining(settings.model), settings, device)
    batch = _random_batch(size, phase.sequence_length, settings.model.vocabulary_size)
    times: list[float] = []
    began = time.monotonic()
    while len(times) < _WARMUP_STEPS + _LEAST_STEPS or time.monotonic() - began < budget_seconds:
        step_began = time.monotonic()
        train_step(
            state.model,
            state.optimizer,
            [batch],
            task=pretraining_task,
            learning_rate=1e-6,
            clip_norm=settings.clip_norm,
            dropout_seeds=[0],
            precision=settings.precision,
            master=state.master,
        )
        times.append(time.monotonic() - step_began)
    return float(np.median(times[_WARMUP_STEPS:])) / size


def _random_batch(sequences: int, length: int, vocabulary_size: int) -> PretrainingBatch:
    """A batch of full rows, as most rows of real text are."""
    random = torch.Generator().manual_seed(0)
    per_row = prediction_count(length, length)
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
