"""How long a run takes on a cluster, and what it costs: phases as plain numbers in, hours out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from lambert.errors import UserError
from lambert.planner.cluster import Cluster
from lambert.planner.step_time import KINDS, Gradient, StepTime, step_time

MEMORY_SHARE = 0.9
"""Of a chip's memory that a micro-batch may fill."""
MEASURED_HIDDEN_SIZE = 1_024
"""Of the models that clusters were fitted to."""
NARROW_MODELS_SLOWER_BY = 2.0
"""What narrower models may take more: MosaicBERT's base, 70,000 steps of 4,096 × 128 on 8 A100, is said to have taken
11.5 hours (unconfirmed) where BERT-Large's rate makes it 5."""
ROUNDING = 1e-9
"""Of batches that were multiplied."""
MOMENT_BYTES_PER_PARAMETER = 8
"""Two in float32: what a sharded optimizer leaves to the other chips."""


@dataclass(frozen=True)
class PhaseWork:
    """Steps of one kind."""

    sequence_length: int
    """Tokens of a full row; padding counts as work."""
    batch_size: float
    """Sequences in a step, over all chips."""
    steps: float
    flops_per_sequence: float
    """Forward and backward of a full row."""
    memory_bytes: Callable[[int], float]
    """What a chip needs for a micro-batch of so many sequences."""


@dataclass(frozen=True)
class Work:
    """A run: its phases in order, and the gradient that all its steps sum."""

    phases: tuple[PhaseWork, ...]
    gradient: Gradient
    slower_by: float = 1.0
    """How many times longer it may take than rates that were measured on wider models say."""

    @property
    def step_count(self) -> int:
        """Steps of all phases."""
        return round(sum(phase.steps for phase in self.phases))


@dataclass(frozen=True)
class PhaseForecast:
    """One phase on so many chips."""

    steps: float
    sequences_per_chip: int
    """Of the chip that has most."""
    micro_batch_size: int
    step: StepTime


@dataclass(frozen=True)
class Forecast:
    """A run on so many chips."""

    chips: int
    phases: tuple[PhaseForecast, ...]
    price_per_chip_hour: float
    error_share: float
    """Relative error to expect of the hours; 0 where nobody knows."""
    slower_by: float = 1.0

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return sum(phase.steps * phase.step.total for phase in self.phases)

    @property
    def hours(self) -> float:
        """Of all steps."""
        return self.seconds / 3_600

    @property
    def hours_range(self) -> tuple[float, float] | None:
        """Between which the true time lies if the prediction is no further off than `error_share`, and too low by
        `slower_by` besides; None: unknown."""
        if not 0 < self.error_share < 1:
            return None
        return self.hours / (1 + self.error_share), self.slower_by * self.hours / (1 - self.error_share)

    @property
    def chip_hours(self) -> float:
        """Hours times chips."""
        return self.hours * self.chips

    @property
    def cost(self) -> float | None:
        """In the currency of the price; None without one."""
        return self.chip_hours * self.price_per_chip_hour or None

    @property
    def shares(self) -> dict[str, float]:
        """Kind of time → its share of the whole."""
        return {
            kind: sum(phase.steps * getattr(phase.step, kind) for phase in self.phases) / self.seconds for kind in KINDS
        }


def forecast(cluster: Cluster, work: Work, chips: int) -> Forecast:
    """The run on so many chips of a cluster.

    Raises:
        UserError: there are more chips than sequences in a batch, or not even one sequence fits.
    """
    phases = tuple(_phase_forecast(cluster, work.gradient, phase, chips) for phase in work.phases)
    return Forecast(chips, phases, cluster.price_per_chip_hour, cluster.error_share, work.slower_by)


def strong_scaling(base: Forecast, other: Forecast) -> float:
    """Speed-up at the same batch over the increase in chips."""
    return base.seconds * base.chips / (other.seconds * other.chips)


def weak_scaling(cluster: Cluster, work: Work, base: Forecast, chips: int) -> float:
    """The same at the same batch a chip: a batch that grows with the chips takes as many fewer steps."""
    factor = chips / base.chips
    grown = tuple(
        replace(phase, batch_size=phase.batch_size * factor, steps=phase.steps / factor) for phase in work.phases
    )
    return strong_scaling(base, forecast(cluster, replace(work, phases=grown), chips))


def micro_batch_size(cluster: Cluster, gradient: Gradient, phase: PhaseWork, chips: int) -> int:
    """Sequences at once on a chip: as many as memory holds, by halves of what it has to do.

    Raises:
        UserError: there are more chips than sequences, or not even one sequence fits.
    """
    if not 1 <= chips <= phase.batch_size * (1 + ROUNDING):
        raise UserError(
            f"{chips:,} chips for a batch of {phase.batch_size:,.0f} sequences",
            remedy="Give a number of chips from 1 to the batch size, or a larger --batch-size",
        )
    elsewhere = 0.0
    if cluster.optimizer_state == "sharded":
        elsewhere = MOMENT_BYTES_PER_PARAMETER * gradient.parameters * (1 - 1 / chips)
    size = _most_sequences(phase, chips)
    while phase.memory_bytes(size) - elsewhere > MEMORY_SHARE * cluster.chip_memory_bytes:
        if size == 1:
            raise UserError(
                f"one sequence of {phase.sequence_length} tokens needs {(phase.memory_bytes(1) - elsewhere) / 1e9:.1f} "
                f"GB, a chip of {cluster.name} has {cluster.chip_memory_bytes / 1e9:.1f} GB",
                remedy="Choose a smaller --model, or chips with more memory",
            )
        size = -(-size // 2)
    return size


def _most_sequences(phase: PhaseWork, chips: int) -> int:
    return math.ceil(phase.batch_size / chips * (1 - ROUNDING))


def _phase_forecast(cluster: Cluster, gradient: Gradient, phase: PhaseWork, chips: int) -> PhaseForecast:
    size, sequences = micro_batch_size(cluster, gradient, phase, chips), _most_sequences(phase, chips)
    time = step_time(
        cluster,
        chips,
        gradient,
        sequences_per_chip=sequences,
        flops_per_sequence=phase.flops_per_sequence,
        sequence_length=phase.sequence_length,
        micro_batches=-(-sequences // size),
    )
    return PhaseForecast(phase.steps, sequences, size, time)
