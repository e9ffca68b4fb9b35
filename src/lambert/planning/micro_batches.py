"""The micro-batch size of each phase: by a rule of model, length and memory, or found by timing steps.

The rule gives the same answer every time, so that one command twice ends in the same bits. Timing is for those who ask
for it (`tune`): it depends on what else the machine does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from lambert.model.heads import pretraining_model
from lambert.planning.hardware import Hardware
from lambert.planning.memory import estimate_memory
from lambert.planning.probe import probe_step, random_batch
from lambert.training.config.phase_config import PhaseConfig
from lambert.training.config.training_config import TrainingConfig
from lambert.training.distributed.env import local_process_count
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.step.timer import StepTimer
from lambert.training.step.train_state import TrainState
from lambert.training.step.train_step import OutOfMemory

TRIAL_SECONDS = 6.0
"""How long the sizes of a phase are tried."""
MEMORY_FRACTION = 0.6
"""Of the memory of a rank that a micro-batch is expected to need at most."""
_MIN_TOKENS = 1_024
"""Tokens of the smallest micro-batch that is tried, padding included."""
_AS_FAST, _FALLING = 0.98, 0.9
"""Fractions of the best rate: sizes above the first count as equally fast; below the second the trials end."""


@dataclass(frozen=True)
class MicroBatchTrial:
    """The measured rate of one micro-batch size."""

    size: int
    """Sequences."""
    sequences_per_second: float


def micro_batches_by_rule(config: TrainingConfig, processes: ProcessGroup, hardware: Hardware) -> TrainingConfig:
    """The config with the rule's micro-batches, halved until they fit the memory that this machine has.

    The rule is `MICRO_BATCH_TOKENS` of them in each (training/config/resolve.py), at most a rank's part of the batch.
    Memory in use by others does not count: it would make the choice depend on the hour.
    """
    memory = _memory_of_a_rank(processes, hardware)
    sizes = (
        min(size, _largest(config, phase, processes.world_size, memory))
        for phase, size in zip(config.phases, config.micro_batch_sizes, strict=True)
    )
    return replace(config, micro_batch_sizes=tuple(sizes))


def tune_micro_batches(
    config: TrainingConfig, processes: ProcessGroup, hardware: Hardware
) -> tuple[TrainingConfig, tuple[list[MicroBatchTrial], ...]]:
    """The same config with the micro-batch sizes that are fastest here.

    Every rank must call this at once. All ranks take the choice of the main process.

    Returns:
        The config, and what this rank tried for each phase (nothing where a phase leaves no choice).
    """
    memory = _memory_of_a_rank(processes, hardware)
    if processes.device.type == "cuda":  # a trial that does not fit would disturb what others do on this GPU
        free, _ = torch.cuda.mem_get_info(processes.device)
        memory = free if memory is None else min(memory, free)
    sizes, tried = [], []
    for index, phase in enumerate(config.phases):
        largest = _largest(config, phase, processes.world_size, memory)
        trials = try_micro_batches(config, index, processes.device, largest=largest, budget_seconds=TRIAL_SECONDS)
        own = fastest(trials, default=min(largest, config.micro_batch_sizes[index]))
        sizes.append(processes.all_reduce_ints([own if processes.is_main_process else 0])[0])
        tried.append(trials)
    return replace(config, micro_batch_sizes=tuple(sizes)), tuple(tried)


def _memory_of_a_rank(processes: ProcessGroup, hardware: Hardware) -> int | None:
    """Bytes that a rank may count on; None where unknown. Ranks of one machine share its memory, each has its GPU."""
    if processes.device.type == "cuda":
        return min(device.memory_bytes for device in hardware.torch.devices)
    return None if hardware.memory_bytes is None else hardware.memory_bytes // local_process_count()


def _largest(config: TrainingConfig, phase: PhaseConfig, world_size: int, memory_bytes: int | None) -> int:
    """Sequences of the largest micro-batch: a rank's part of the batch, halved until it fits."""
    largest = max(1, phase.batch_size // world_size)
    if memory_bytes is not None:
        while largest > 1 and estimate_memory(config, phase, largest).total_bytes > MEMORY_FRACTION * memory_bytes:
            largest //= 2
    return largest


def try_micro_batches(
    config: TrainingConfig, phase_index: int, device: torch.device, *, largest: int, budget_seconds: float
) -> list[MicroBatchTrial]:
    """Time micro-batches of doubling size on random ids, until they get slower, do not fit, or time is up.

    Args:
        phase_index: from 0.
        largest: sequences that fit into memory, as far as is known.
        budget_seconds: no further size is tried after that; the first one, which includes start-up, does not count.

    Returns:
        What was tried; nothing where the whole batch is small enough for one micro-batch.
    """
    phase = config.phases[phase_index]
    trials: list[MicroBatchTrial] = []
    size = max(1, _MIN_TOKENS // phase.sequence_length)
    if phase.batch_size <= size:
        return trials
    state = TrainState(pretraining_model(config.model), config, ProcessGroup(device=device))
    began = time.monotonic()
    while not trials or (size <= min(phase.batch_size, largest) and time.monotonic() - began < budget_seconds):
        try:
            seconds = _step_seconds(state, config, size, phase.sequence_length)
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
    """The largest size among those as fast as the fastest, within noise; `default` where nothing was tried."""
    best = max((trial.sequences_per_second for trial in trials), default=0.0)
    return max((trial.size for trial in trials if trial.sequences_per_second >= _AS_FAST * best), default=default)


def _step_seconds(state: TrainState, config: TrainingConfig, size: int, length: int) -> float:
    """Forward and backward pass of one micro-batch, the faster of two after a first."""
    masked, pairs = config.examples.largest_mlm_probability, config.examples.has_pairs
    batch = random_batch(size, length, config.model.vocabulary_size, masked, pairs=pairs)
    timer = StepTimer(next(state.model.parameters()).device)
    seconds = []
    for _ in range(3):
        probe_step(state, config, [batch], [0], timer=timer)
        parts = timer.lap()()
        seconds.append(parts["forward"] + parts["backward"])
    return min(seconds[1:])
