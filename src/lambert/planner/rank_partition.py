"""How global batches are cut to ranks: asked of the code of a real run, for every rank, without running it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lambert.data.dataloader import SampleStream
from lambert.training.config.phase import Phase
from lambert.training.distributed.process_group import ProcessGroup

CUT_STEPS = 32
"""How many steps of a phase are cut to all ranks, evenly spread, its first and last among them."""


@dataclass(frozen=True)
class Shares:
    """What the ranks get of a phase."""

    phase: int
    """1 for the first."""
    ranks: int
    """How many share each global batch."""
    steps: int
    """Steps of the phase; that each begins where the one before ended is checked for all."""
    cut_steps: tuple[int, ...]
    """Those whose global batch was cut to all ranks, counted through the run."""
    batch_size: int
    """Sequences in a global batch."""
    micro_batches: int
    """In a global batch."""
    least: int
    """Micro-batches of a step that fall to the rank with the fewest."""
    most: int
    """The same of the rank with the most, for which the others wait."""
    ranks_with_most: int
    """How many ranks have that many."""
    problems: tuple[str, ...]
    """What is wrong; empty where each sample of each of these batches goes to exactly one rank."""

    @property
    def idle_share(self) -> float:
        """Phase of all ranks' time that goes to waiting for those with the most micro-batches, 0 to 1."""
        return 1 - self.micro_batches / (self.ranks * self.most)


def shares_of(phase: Phase, ranks: int, stream: SampleStream | None = None) -> Shares:
    """Cut global batches of a phase to `ranks` ranks, which must be no more than its micro-batches.

    Args:
        stream: the samples of the phase, to check the examples themselves; without, their numbers in the run are.
    """
    counts = [len(ProcessGroup(rank, ranks).rank_range(phase.micro_batch_count)) for rank in range(ranks)]
    spread = np.linspace(phase.first_step, phase.last_step, CUT_STEPS).round().astype(int)
    steps = tuple(sorted({int(step) for step in spread}))
    problems = [problem for step in steps if (problem := _cut(phase, step, ranks, stream))]
    return Shares(
        phase=phase.number,
        ranks=ranks,
        steps=phase.config.step_count,
        cut_steps=steps,
        batch_size=phase.config.batch_size,
        micro_batches=phase.micro_batch_count,
        least=min(counts),
        most=max(counts),
        ranks_with_most=counts.count(max(counts)),
        problems=(*problems, *_gaps_between_steps(phase)),
    )


def _cut(phase: Phase, step: int, ranks: int, stream: SampleStream | None) -> str:
    """What is wrong with the global batch of a step, or nothing."""
    batch = phase.config.batch_size
    first = (step - phase.first_step) * batch
    samples: list[NDArray[np.int64]] = []
    examples: list[NDArray[np.int64]] = []
    for rank in range(ranks):
        for place in ProcessGroup(rank, ranks).rank_range(phase.micro_batch_count):
            begin, count = phase.samples_of(step, place)
            samples.append(np.arange(begin, begin + count))
            if stream is not None:
                examples += [number * len(stream.examples) + indices for number, indices in stream.order(begin, count)]
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
