"""A phase within its run: its steps, and the samples and learning rate of each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lambert.corpus.store import Corpus
from lambert.data.dataloader import SampleStream, example_source
from lambert.data.mask_schedule import MaskSchedule
from lambert.errors import UserError
from lambert.training.config.phase_config import PhaseConfig
from lambert.training.config.training_config import TrainingConfig
from lambert.utils.lr_schedule import LRSchedule

_DROPOUT = 2
"""Separates the dropout stream from that of the sample order."""


@dataclass(frozen=True)
class Phase:
    """One phase of a run; steps are counted from 1 through the whole run."""

    number: int
    """1 for the first phase."""
    config: PhaseConfig
    first_step: int
    micro_batch_size: int
    """Sequences in one forward pass."""
    schedule: LRSchedule
    schedule_first_step: int
    """First step of the schedule, which may span earlier phases."""

    @property
    def last_step(self) -> int:
        """The phase's last step."""
        return self.first_step + self.config.step_count - 1

    @property
    def micro_batch_count(self) -> int:
        """Micro-batches in a global batch; the last one may be smaller."""
        return math.ceil(self.config.batch_size / self.micro_batch_size)

    def samples_of(self, step: int, index: int) -> tuple[int, int]:
        """First sample and number of samples of micro-batch `index` (from 0) of `step`."""
        batch, size = self.config.batch_size, self.micro_batch_size
        return (step - self.first_step) * batch + index * size, min(size, batch - index * size)

    def learning_rate(self, step: int) -> float:
        """Learning rate of `step`."""
        return self.schedule.rate(step - self.schedule_first_step + 1)

    def is_due(self, step: int, *times: int) -> bool:
        """True at n evenly spaced steps of the phase, including the last, for any n of `times`."""
        done, count = step - self.first_step + 1, self.config.step_count
        return any(done * n // count > (done - 1) * n // count for n in times)

    def padded_tokens_left(self, step: int) -> int:
        """Tokens including padding after `step`."""
        steps = min(self.config.step_count, max(0, self.last_step - step))
        return steps * self.config.batch_size * self.config.sequence_length

    def halved(self, problem: str, *, deterministic: bool) -> Phase:
        """The phase with half the micro-batch size, after running out of memory.

        Raises:
            UserError: the size is already 1, or the run is deterministic.
        """
        if self.micro_batch_size > 1 and not deterministic:
            return replace(self, micro_batch_size=self.micro_batch_size // 2)
        remedy = "Choose a smaller `model` or shorter `sequence_lengths`, or `activation_checkpointing` full"
        if self.micro_batch_size > 1:
            remedy += "; a deterministic run cannot change its `micro_batch_size`, start over with a smaller one"
        what = f"a micro-batch of {self.micro_batch_size} sequences" if self.micro_batch_size > 1 else "one sequence"
        raise UserError(
            f"{what} of {self.config.sequence_length} tokens does not fit into memory: {problem}", remedy=remedy
        )

    def facts(self) -> dict[str, Any]:
        """Fields of the journal's `phase` event."""
        return {
            "phase": self.number,
            "sequence_length": self.config.sequence_length,
            "batch_size": self.config.batch_size,
            "first_step": self.first_step,
            "steps": self.config.step_count,
            "peak_learning_rate": self.config.peak_learning_rate.value,
            "warmup_steps": self.config.warmup_steps.value,
            "continues": self.config.continues,
        }


def phases_of(settings: TrainingConfig) -> list[Phase]:
    """The phases of a run in order."""
    phases: list[Phase] = []
    first_step = 1
    for index, (config, size) in enumerate(zip(settings.phases, settings.micro_batch_sizes, strict=True)):
        if config.continues:
            schedule, began = phases[-1].schedule, phases[-1].schedule_first_step
        else:
            schedule, began = schedule_of(settings.phases[index:]), first_step
        phases.append(Phase(index + 1, config, first_step, min(size, config.batch_size), schedule, began))
        first_step += config.step_count
    return phases


def schedule_of(phases: Sequence[PhaseConfig]) -> LRSchedule:
    """Schedule of the first of these phases, spanning those that continue it."""
    first = phases[0]
    continued = itertools.takewhile(lambda phase: phase.continues, phases[1:])
    return LRSchedule(
        first.peak_learning_rate.value,
        int(first.warmup_steps.value),
        first.step_count + sum(phase.step_count for phase in continued),
        stable_steps=first.stable_steps,
        decay=first.decay,
        decay_power=first.decay_power,
        decays_from_start=first.decays_from_start,
        min_lr_ratio=first.min_lr_ratio,
        cooldown_steps=first.cooldown_steps,
    )


def training_stream(
    corpus: Corpus, settings: TrainingConfig, phase: Phase, *, fixed_shapes: bool = False
) -> SampleStream:
    """Training samples of a phase; `fixed_shapes` as in `SampleStream`."""
    source = example_source(
        corpus,
        "train",
        sequence_length=phase.config.sequence_length,
        seed=settings.seed,
        phase=phase.number,
        objective=settings.examples,
    )
    schedule = mask_schedule(settings, phase)
    return SampleStream(source, packs=settings.packs, fixed_shapes=fixed_shapes, mask_schedule=schedule)


def mask_schedule(settings: TrainingConfig, phase: Phase) -> MaskSchedule | None:
    """The masked fraction of each sample of the phase; None where all have the objective's."""
    objective = settings.examples
    if objective.mlm_probability_end is None:
        return None
    return MaskSchedule(
        objective.mlm_probability,
        objective.mlm_probability_end,
        settings.total_steps,
        phase.first_step,
        phase.last_step,
        phase.config.batch_size,
    )


def dropout_seed(seed: int, step: int, index: int) -> int:
    """A seed in [0, 2^63) derived from (run seed, step, micro-batch index in the global batch).

    So dropout does not depend on which rank computes the micro-batch.
    """
    name = (_DROPOUT, seed, step, index)
    return int(np.random.SeedSequence(name).generate_state(1, np.uint64)[0] >> np.uint64(1))
