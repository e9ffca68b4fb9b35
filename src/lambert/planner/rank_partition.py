"""Batch partitioning: which samples of a global batch each rank gets, by the code of a real run, without running it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lambert.data.dataloader import SampleStream
from lambert.training.config.phase import Phase
from lambert.training.distributed.process_group import ProcessGroup

CHECKED_STEPS = 32
"""Steps of a phase that are checked in all ranks, evenly spaced, its first and last among them."""


@dataclass(frozen=True)
class RankPartition:
    """How the global batches of a phase are partitioned over the ranks."""

    phase: int
    """From 1."""
    ranks: int
    steps: int
    """Of the phase; that each begins where the one before ended is checked for all."""
    checked_steps: tuple[int, ...]
    """Steps whose global batch was partitioned over all ranks, counted through the run."""
    batch_size: int
    """Sequences in a global batch."""
    micro_batches: int
    """In a global batch."""
    least: int
    """Micro-batches of a step in the rank with the fewest."""
    most: int
    """Micro-batches of a step in the rank with the most, for which the others wait."""
    ranks_with_most: int
    problems: tuple[str, ...]
    """What is wrong; empty where each sample of each of these batches goes to exactly one rank."""

    @property
    def idle_fraction(self) -> float:
        """Of all ranks' time, spent waiting for the ranks with the most micro-batches, 0 to 1."""
        return 1 - self.micro_batches / (self.ranks * self.most)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON (docs/json.md)."""
        return {**asdict(self), "idle_fraction": self.idle_fraction}


def partition_of(phase: Phase, ranks: int, stream: SampleStream | None = None) -> RankPartition:
    """Partition global batches of a phase over `ranks` ranks, at most one per micro-batch.

    Args:
        stream: the samples of the phase, to check the examples themselves; without it, sample numbers are checked.
    """
    counts = [len(ProcessGroup(rank, ranks).rank_range(phase.micro_batch_count)) for rank in range(ranks)]
    spread = np.linspace(phase.first_step, phase.last_step, CHECKED_STEPS).round().astype(int)
    steps = tuple(sorted({int(step) for step in spread}))
    problems = [problem for step in steps if (problem := _check_step(phase, step, ranks, stream))]
    return RankPartition(
        phase=phase.number,
        ranks=ranks,
        steps=phase.config.step_count,
        checked_steps=steps,
        batch_size=phase.config.batch_size,
        micro_batches=phase.micro_batch_count,
        least=min(counts),
        most=max(counts),
        ranks_with_most=counts.count(max(counts)),
        problems=(*problems, *_gaps_between_steps(phase)),
    )


def _check_step(phase: Phase, step: int, ranks: int, stream: SampleStream | None) -> str:
    """What is wrong with the partition of a step's global batch, or nothing."""
    batch = phase.config.batch_size
    first = (step - phase.first_step) * batch
    samples: list[NDArray[np.int64]] = []
    examples: list[NDArray[np.int64]] = []
    for rank in range(ranks):
        for index in ProcessGroup(rank, ranks).rank_range(phase.micro_batch_count):
            begin, count = phase.samples_of(step, index)
            samples.append(np.arange(begin, begin + count))
            if stream is not None:
                examples += [epoch * len(stream.examples) + indices for epoch, indices in stream.order(begin, count)]
    if not np.array_equal(np.sort(np.concatenate(samples)), np.arange(first, first + batch)):
        return f"step {step}: the ranks' samples are not {first:,} to {first + batch - 1:,}, each once"
    if stream is not None and len(np.unique(np.concatenate(examples))) != batch:
        return f"step {step}: an example occurs more than once in the global batch"
    return ""


def _gaps_between_steps(phase: Phase) -> list[str]:
    """Steps that do not begin where the one before ended."""
    problems, expected = [], 0
    for step in range(phase.first_step, phase.last_step + 1):
        begin, _ = phase.samples_of(step, 0)
        if begin != expected:
            problems.append(f"step {step} begins with sample {begin:,}, the one before ended with {expected - 1:,}")
        last, count = phase.samples_of(step, phase.micro_batch_count - 1)
        expected = last + count
    return problems
