"""Time and cost of a run on a cluster: its phases as plain numbers, the steps on a number of chips, scaling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from lambert.data.masking import max_predictions
from lambert.errors import UserError
from lambert.model.flops import training_flops
from lambert.model.heads import pretraining_model
from lambert.model.parameter_count import parameter_count
from lambert.planner.cluster import Cluster
from lambert.planner.step_time import KINDS, Gradient, StepTime, step_time
from lambert.planning.memory import estimate_memory
from lambert.training.config.phase_config import PhaseConfig
from lambert.training.config.training_config import TrainingConfig

MEMORY_FRACTION = 0.9
"""Of a chip's memory that a micro-batch may fill."""
MEASURED_HIDDEN_SIZE = 1_024
"""Of the models that clusters were fitted to."""
NARROW_MODELS_SLOWER_BY = 2.0
"""How much longer narrower models may take: MosaicBERT's base, 70,000 steps of 4,096 × 128 on 8 A100, is said to have
taken 11.5 hours (unconfirmed) where BERT-Large's rate makes it 5."""
ROUNDING = 1e-9
"""Of batches that were multiplied."""
MOMENT_BYTES_PER_PARAMETER = 8
"""Two in float32: what a sharded optimizer leaves to the other chips."""


@dataclass(frozen=True)
class PhaseWorkload:
    """Steps of one kind."""

    sequence_length: int
    """Tokens of a full row; padding counts as work."""
    batch_size: float
    """Sequences in a step, over all chips."""
    steps: float
    flops_per_sequence: float
    """Forward and backward of a full row."""
    memory_bytes: Callable[[int], float]
    """Memory of a chip for a micro-batch of so many sequences."""


@dataclass(frozen=True)
class Workload:
    """A run: its phases in order, and the gradient that every step reduces."""

    phases: tuple[PhaseWorkload, ...]
    gradient: Gradient
    slower_by: float = 1.0
    """How many times longer it may take than rates measured on wider models say."""

    @property
    def step_count(self) -> int:
        """Steps of all phases."""
        return round(sum(phase.steps for phase in self.phases))


def workload_of(config: TrainingConfig) -> Workload:
    """A resolved run in plain numbers."""
    with torch.device("meta"):
        tensors = sum(1 for _ in pretraining_model(config.model).parameters())
    # Query, key and value are one tensor here; on the clusters that were measured they were three.
    gradient = Gradient(parameter_count(config.model), tensors + 4 * config.model.layers)
    is_narrow = config.model.hidden_size < MEASURED_HIDDEN_SIZE
    phases = tuple(_phase_workload(config, phase) for phase in config.phases)
    return Workload(phases, gradient, NARROW_MODELS_SLOWER_BY if is_narrow else 1.0)


def _phase_workload(config: TrainingConfig, phase: PhaseConfig) -> PhaseWorkload:
    length = phase.sequence_length
    masked = max_predictions(length, config.examples.largest_mlm_probability)
    flops = training_flops(config.model, tokens=length, sequences=1, masked_tokens=masked)
    return PhaseWorkload(
        sequence_length=length,
        batch_size=phase.batch_size,
        steps=phase.step_count,
        flops_per_sequence=flops,
        memory_bytes=lambda size: estimate_memory(config, phase, size).total_bytes,
    )


@dataclass(frozen=True)
class PhaseForecast:
    """One phase on so many chips."""

    steps: float
    sequences_per_chip: int
    """Of the chip that has most."""
    micro_batch_size: int
    step: StepTime


@dataclass(frozen=True)
class ClusterForecast:
    """A run on so many chips."""

    chips: int
    phases: tuple[PhaseForecast, ...]
    price_per_chip_hour: float
    relative_error: float
    """Expected error of the hours; 0 where unknown."""
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
        """The true hours if the prediction is off by at most `relative_error`, and too low by `slower_by` besides;
        None where unknown."""
        if not 0 < self.relative_error < 1:
            return None
        return self.hours / (1 + self.relative_error), self.slower_by * self.hours / (1 - self.relative_error)

    @property
    def chip_hours(self) -> float:
        """Hours times chips."""
        return self.hours * self.chips

    @property
    def cost(self) -> float | None:
        """In the currency of the price; None without one."""
        return self.chip_hours * self.price_per_chip_hour or None

    @property
    def time_fractions(self) -> dict[str, float]:
        """Kind of time → its fraction of the whole."""
        return {
            kind: sum(phase.steps * getattr(phase.step, kind) for phase in self.phases) / self.seconds for kind in KINDS
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON (docs/json.md)."""
        return {
            "chips": self.chips,
            "sequences_per_chip": [phase.sequences_per_chip for phase in self.phases],
            "micro_batch_sizes": [phase.micro_batch_size for phase in self.phases],
            "hours": self.hours,
            "hours_range": self.hours_range,
            "step_seconds": [asdict(phase.step) for phase in self.phases],
            "time_fractions": self.time_fractions,
            "cost": self.cost,
        }


def forecast(cluster: Cluster, workload: Workload, chips: int) -> ClusterForecast:
    """The run on so many chips of a cluster.

    Raises:
        UserError: there are more chips than sequences in a batch, or not even one sequence fits into memory.
    """
    phases = tuple(_phase_forecast(cluster, workload.gradient, phase, chips) for phase in workload.phases)
    return ClusterForecast(chips, phases, cluster.price_per_chip_hour, cluster.relative_error, workload.slower_by)


@dataclass(frozen=True)
class ClusterPlan:
    """A run on several numbers of chips of a cluster."""

    cluster: Cluster
    forecasts: tuple[ClusterForecast, ...]
    scaling: tuple[tuple[float, float], ...]
    """Strong and weak scaling efficiency of each forecast; the first one is the base."""
    memory_bytes: int
    """Of the fullest chip."""
    problems: tuple[UserError, ...]
    """Why other numbers of chips are left out."""

    def to_dict(self) -> list[dict[str, Any]]:
        """Plain values for JSON (docs/json.md)."""
        return [
            {**one.to_dict(), "strong_scaling": strong, "weak_scaling": weak}
            for one, (strong, weak) in zip(self.forecasts, self.scaling, strict=True)
        ]


def forecast_on_cluster(cluster: Cluster, config: TrainingConfig, chip_counts: Sequence[int]) -> ClusterPlan:
    """The run on each number of chips; those it cannot be done on are left out.

    Raises:
        UserError: it cannot be done on any of them.
    """
    workload, forecasts, problems = workload_of(config), [], []
    for chips in chip_counts:
        try:
            forecasts.append(forecast(cluster, workload, chips))
        except UserError as error:
            problems.append(error)
    if not forecasts:
        raise problems[0]
    base = forecasts[0]
    scaling = [(strong_scaling(base, other), weak_scaling(cluster, workload, base, other.chips)) for other in forecasts]
    memory = max(
        estimate_memory(config, phase, part.micro_batch_size).total_bytes
        for one in forecasts
        for phase, part in zip(config.phases, one.phases, strict=True)
    )
    return ClusterPlan(cluster, tuple(forecasts), tuple(scaling), memory, tuple(problems))


def strong_scaling(base: ClusterForecast, other: ClusterForecast) -> float:
    """Speed-up at the same batch over the increase in chips."""
    return base.seconds * base.chips / (other.seconds * other.chips)


def weak_scaling(cluster: Cluster, workload: Workload, base: ClusterForecast, chips: int) -> float:
    """The same at the same batch per chip: a batch that grows with the chips takes as many fewer steps."""
    factor = chips / base.chips
    grown = tuple(
        replace(phase, batch_size=phase.batch_size * factor, steps=phase.steps / factor) for phase in workload.phases
    )
    return strong_scaling(base, forecast(cluster, replace(workload, phases=grown), chips))


def micro_batch_size(cluster: Cluster, gradient: Gradient, phase: PhaseWorkload, chips: int) -> int:
    """Sequences at once on a chip: all that it has to do, halved until they fit into memory.

    Raises:
        UserError: there are more chips than sequences, or not even one sequence fits.
    """
    if not 1 <= chips <= phase.batch_size * (1 + ROUNDING):
        raise UserError(
            f"{chips:,} chips for a batch of {phase.batch_size:,.0f} sequences",
            remedy=f"Give `chips` from 1 to {phase.batch_size:,.0f}, or a `batch_size` from {chips:,}",
        )
    elsewhere = 0.0
    if cluster.optimizer_state == "sharded":
        elsewhere = MOMENT_BYTES_PER_PARAMETER * gradient.parameters * (1 - 1 / chips)
    size = _sequences_per_chip(phase, chips)
    while phase.memory_bytes(size) - elsewhere > MEMORY_FRACTION * cluster.chip_memory_bytes:
        if size == 1:
            raise UserError(
                f"one sequence of {phase.sequence_length} tokens needs {(phase.memory_bytes(1) - elsewhere) / 1e9:.1f} "
                f"GB, a chip of {cluster.name} has {cluster.chip_memory_bytes / 1e9:.1f} GB",
                remedy="Choose a smaller `model`, or chips with more memory",
            )
        size = -(-size // 2)
    return size


def _sequences_per_chip(phase: PhaseWorkload, chips: int) -> int:
    """Of the chip that has most."""
    return math.ceil(phase.batch_size / chips * (1 - ROUNDING))


def _phase_forecast(cluster: Cluster, gradient: Gradient, phase: PhaseWorkload, chips: int) -> PhaseForecast:
    size, sequences = micro_batch_size(cluster, gradient, phase, chips), _sequences_per_chip(phase, chips)
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
