"""What a run will take on this machine, from about a minute of its real steps: seconds, and peak memory.

    seconds = Σ phases: steps · (micro-batches · seconds of one + seconds of the rest) + evaluations + opening the text

On several processes all of them take the same steps together, sums of gradients included.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lambert.corpus.store import Corpus
from lambert.data.dataloader import PretrainingBatch
from lambert.data.masking import prediction_counts
from lambert.model.heads import BertForPreTraining
from lambert.planning.peak import peak_memory_bytes, reset_peak_memory
from lambert.training.config.phase import Phase, dropout_seed, phases_of, training_stream
from lambert.training.config.trainer_options import TrainerOptions
from lambert.training.config.training_config import TrainingConfig
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.step.evaluation import Validator
from lambert.training.step.pretraining_loss import pretraining_task
from lambert.training.step.train_state import TrainState
from lambert.training.step.train_step import train_step

_WARMUP_ROUNDS = 1
_LEAST_ROUNDS = 3
"""Counted after the warm-up."""
_FEW = 4
"""Steps of at most so many micro-batches are taken whole; of longer ones, one and so many tell the parts."""
_LARGEST_SHARE = 0.02
"""Of what a phase is seen to take, the probe takes at most this, however long it may take."""
_STRIDE = 104_729
"""Between the steps whose samples are taken, so that they lie all over the phase; a prime."""
_TRIED_TOKENS = 8_192
"""Of held-out text, to tell what an evaluation costs: one of its batches."""


@dataclass(frozen=True)
class PhaseCost:
    """What a phase costs on each of the processes."""

    micro_batch_seconds: float
    """Data, forward and backward pass of one micro-batch."""
    rest_seconds: float
    """The rest of a step: what is left of the sums of gradients, clipping, update."""
    micro_batches: int
    """Of a step, in the process that has most."""
    steps: int
    opening_seconds: float = 0.0
    """Once: cutting the text into examples, evaluations' own text included, and what the first step takes longer
    than others, most of it for compiling."""
    evaluation_seconds: float = 0.0
    """All evaluations of the phase."""

    @property
    def step_seconds(self) -> float:
        """One step."""
        return self.micro_batches * self.micro_batch_seconds + self.rest_seconds

    @property
    def seconds(self) -> float:
        """The phase."""
        return self.steps * self.step_seconds + self.opening_seconds + self.evaluation_seconds


@dataclass(frozen=True)
class Forecast:
    """What a run is expected to take."""

    phases: tuple[PhaseCost, ...]
    memory_bytes: int
    """Peak of each process: all of it that is resident, or what is taken of a GPU; 0 where the system does not tell."""

    @property
    def seconds(self) -> float:
        """From the first step to the last checkpoint."""
        return sum(phase.seconds for phase in self.phases)

    def facts(self) -> dict[str, Any]:
        """Plain numbers for journal and JSON."""
        return {
            "seconds": self.seconds,
            "phase_seconds": [phase.seconds for phase in self.phases],
            "step_seconds": [phase.step_seconds for phase in self.phases],
            "memory_bytes": self.memory_bytes,
        }


def measure_run(
    settings: TrainingConfig,
    corpus: Corpus | None,
    *,
    processes: ProcessGroup | None = None,
    trainer_options: TrainerOptions | None = None,
    budget_seconds: float,
) -> Forecast:
    """Take real steps of every phase, an evaluation of a few samples, and a copy as for a checkpoint.

    Args:
        corpus: whose text the steps are taken on; None takes full rows of random ids.
        processes: all of them must call this at once.
        budget_seconds: for each phase; three steps are taken in any case, and no more than a fiftieth of the phase.
    """
    processes, trainer_options = processes or ProcessGroup(), trainer_options or TrainerOptions()
    reset_peak_memory(processes.device)
    model = BertForPreTraining(settings.model)
    model.encoder.checkpoint_activations(trainer_options.activation_checkpointing)
    state = TrainState(model, settings, processes, shards=trainer_options.shard)
    costs = []
    for phase in phases_of(settings):
        batch_of, opening = _opened(corpus, settings, phase)
        micro_batch, rest, count, longer = _step_cost(state, settings, phase, processes, batch_of, budget_seconds)
        held_opening, evaluation = _evaluation_cost(corpus, state, phase, settings, trainer_options)
        once = opening + longer + held_opening
        costs.append(PhaseCost(micro_batch, rest, count, phase.config.step_count, once, evaluation))
    copy = state.checkpoint({})
    _timed_step(state, settings, phase, processes, batch_of, 0, _FEW)  # while a checkpoint is written
    del copy
    return Forecast(tuple(costs), peak_memory_bytes(processes.device))


BatchMaker = Callable[[int, int], PretrainingBatch]
"""First sample and number of samples → a batch."""


def _opened(corpus: Corpus | None, settings: TrainingConfig, phase: Phase) -> tuple[BatchMaker, float]:
    """How batches of the phase are made, and how long it took to begin."""
    began = time.monotonic()
    length, words = phase.config.sequence_length, settings.model.vocabulary_size
    if corpus is None:
        return lambda first, count: random_batch(count, length, words), 0.0
    stream = training_stream(corpus, settings, phase)
    stream.batch(0, 1)
    return stream.batch, time.monotonic() - began


def _step_cost(
    state: TrainState,
    settings: TrainingConfig,
    phase: Phase,
    processes: ProcessGroup,
    batch_of: BatchMaker,
    budget_seconds: float,
) -> tuple[float, float, int, float]:
    """Seconds of a micro-batch and of the rest of a step, how many micro-batches the busiest process has, and by how
    many seconds the first step takes longer.
    """
    micro_batches = -(-phase.micro_batch_count // processes.world_size)
    counts = (micro_batches,) if micro_batches <= _FEW else (1, _FEW)
    times: list[list[float]] = [[] for _ in counts]
    began, number = time.monotonic(), 0
    while True:
        for count, measured in zip(counts, times, strict=True):
            measured.append(_timed_step(state, settings, phase, processes, batch_of, number, count))
        number += 1
        whole = micro_batches / counts[-1] * times[-1][-1] * phase.config.step_count
        spent = time.monotonic() - began
        is_enough = number >= _WARMUP_ROUNDS + _LEAST_ROUNDS and spent > min(budget_seconds, _LARGEST_SHARE * whole)
        if processes.all_reduce_max([int(is_enough)])[0]:
            break
    middle = [float(np.median(measured[_WARMUP_ROUNDS:])) for measured in times]
    longer = sum(max(0.0, measured[0] - usual) for measured, usual in zip(times, middle, strict=True))
    if len(middle) == 1:
        return middle[0] / micro_batches, 0.0, micro_batches, longer
    micro_batch = max(0.0, middle[1] - middle[0]) / (_FEW - 1)
    return micro_batch, max(0.0, middle[0] - micro_batch), micro_batches, longer


def _timed_step(
    state: TrainState,
    settings: TrainingConfig,
    phase: Phase,
    processes: ProcessGroup,
    batch_of: BatchMaker,
    number: int,
    count: int,
) -> float:
    """Seconds of a step of at most `count` micro-batches a process, with everything that waits for other processes."""
    step = phase.first_step + number * _STRIDE % phase.config.step_count
    places = list(processes.rank_range(phase.micro_batch_count))[:count]
    began = time.monotonic()
    train_step(
        state.model,
        state.optimizer,
        [batch_of(*phase.samples_of(step, place)) for place in places],
        task=pretraining_task,
        learning_rate=1e-6,
        max_grad_norm=settings.max_grad_norm or None,
        dropout_seeds=[dropout_seed(settings.seed, step, place) for place in places],
        precision=settings.precision,
        processes=processes,
        master=state.master,
        gradients=state.gradients,
    )
    processes.all_reduce_max([0])
    return time.monotonic() - began


def _evaluation_cost(
    corpus: Corpus | None, state: TrainState, phase: Phase, settings: TrainingConfig, trainer_options: TrainerOptions
) -> tuple[float, float]:
    """Seconds to open the held-out text of a length, and of all evaluations of the phase."""
    if corpus is None or not trainer_options.evaluations_per_phase:
        return 0.0, 0.0
    length, most = phase.config.sequence_length, trainer_options.evaluation_samples
    tried = min(most, max(1, _TRIED_TOKENS // length))
    held_out = Validator(corpus, settings.examples, samples=tried)
    seconds, figures = [], None
    for _ in range(2):
        began = time.monotonic()
        figures = held_out.measure(state.model, length, settings.precision)
        seconds.append(time.monotonic() - began)
    if figures is None:
        return 0.0, 0.0
    whole = seconds[1] * held_out.sample_count(length, most) / held_out.sample_count(length, tried)
    return max(0.0, seconds[0] - seconds[1]), trainer_options.evaluations_per_phase * whole


def random_batch(sequences: int, length: int, vocabulary_size: int) -> PretrainingBatch:
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
