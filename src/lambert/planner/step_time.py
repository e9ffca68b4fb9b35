"""The time of a synchronous training step on a cluster, from the few numbers that describe it.

    T = fixed + micro-batches · overhead + sequences · FLOP per sequence / rate + stragglers + optimizer
        + the part of the gradient all-reduce that the backward pass does not overlap

The all-reduce is that of the topology: bytes over links, and a latency per tensor and hop. For measured clusters only
fixed cost, rate and latency are fitted (`fit.py`); all other terms are 0 unless a description gives them. This form was
fixed before it was run on any V100, BERT-4B, TPU v2, P100 or ResNet-50 result, and kept after.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from lambert.errors import UserError
from lambert.planner.cluster import Cluster

BACKWARD_FRACTION = 2 / 3
"""Of the compute time: the backward pass has twice the matmuls of the forward pass."""


@dataclass(frozen=True)
class Gradient:
    """What all chips all-reduce in every step."""

    parameters: int
    tensors: int


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step, by kind."""

    compute: float
    fixed: float
    micro_batches: float
    optimizer: float
    stragglers: float
    bandwidth: float
    latency: float
    """The last two: what the backward pass does not overlap."""

    @property
    def total(self) -> float:
        """All of them."""
        return math.fsum(getattr(self, kind) for kind in KINDS)


KINDS = tuple(field.name for field in fields(StepTime))


def torus_sides(chips: int) -> tuple[int, int]:
    """The two sides of the most square torus: 32 chips are 4 × 8.

    Raises:
        UserError: not a positive number.
    """
    if chips < 1:
        raise UserError(f"{chips} chips", remedy="Give a whole number from 1")
    short = max(side for side in range(1, math.isqrt(chips) + 1) if chips % side == 0)
    return short, chips // short


def transfer_seconds(cluster: Cluster, chips: int, byte_count: float) -> float:
    """Seconds that an all-reduce needs for its bytes alone.

    A ring of p sends 2 (p − 1) / p times its bytes through every link; double binary trees send all bytes up and down.
    In a torus X × Y the second dimension reduces what the first has scattered into X parts (two-dimensional all-reduce,
    arXiv 1811.06992). In a hierarchy of m groups of g the links between groups carry each group's sum.
    """
    if chips == 1:
        return 0.0
    if cluster.topology == "tree":
        return 2 * byte_count / cluster.link_bytes_per_second
    if cluster.topology == "torus":
        x, y = torus_sides(chips)
        sent = 2 * (x - 1) / x + 2 * (y - 1) / y / x
        return sent * byte_count / cluster.link_bytes_per_second
    inside, groups = _groups(cluster, chips)
    within = 2 * (inside - 1) / inside * byte_count / cluster.link_bytes_per_second
    between = 2 * (groups - 1) / groups * byte_count / cluster.group_bytes_per_second if groups > 1 else 0.0
    return within + between


def hops(cluster: Cluster, chips: int) -> int:
    """Sequential messages of an all-reduce: 2 (p − 1) in a ring, 2 log₂ p in a tree, 2 (X + Y − 2) in a torus; in a
    hierarchy 2 (g − 1) within a group and 2 log₂ m between m groups.
    """
    if cluster.topology == "tree":
        return 2 * math.ceil(math.log2(chips))
    if cluster.topology == "torus":
        return 2 * (sum(torus_sides(chips)) - 2)
    inside, groups = _groups(cluster, chips)
    return 2 * (inside - 1) + 2 * math.ceil(math.log2(groups))


def _groups(cluster: Cluster, chips: int) -> tuple[int, int]:
    """Chips in a group, and groups; a ring is one group."""
    if cluster.topology == "ring":
        return chips, 1
    return min(chips, cluster.group_chips), math.ceil(chips / cluster.group_chips)


def optimizer_seconds(cluster: Cluster, chips: int, parameters: int) -> float:
    """Seconds of the optimizer's memory traffic; 0 where the fixed cost includes it."""
    if cluster.memory_bytes_per_second == 0:
        return 0.0
    owners = chips if cluster.optimizer_state == "sharded" else 1
    return parameters / owners * cluster.optimizer_bytes_per_parameter / cluster.memory_bytes_per_second


def lateness(cluster: Cluster, chips: int) -> float:
    """Delay of the slowest of p chips relative to the mean: σ √(2 ln p), the expected maximum of p normal numbers."""
    return cluster.straggler_ratio * math.sqrt(2 * math.log(chips))


def step_time(
    cluster: Cluster,
    chips: int,
    gradient: Gradient,
    *,
    sequences_per_chip: float,
    flops_per_sequence: float,
    sequence_length: int,
    micro_batches: int = 1,
) -> StepTime:
    """One optimizer step.

    Args:
        sequences_per_chip: of the global batch, over all micro-batches.
        flops_per_sequence: forward and backward.
        micro_batches: of a chip; the all-reduce overlaps the last one only.
    """
    compute = sequences_per_chip * flops_per_sequence / cluster.rate(sequence_length)
    bandwidth = transfer_seconds(cluster, chips, gradient.parameters * cluster.gradient_bytes_per_parameter)
    latency = gradient.tensors * hops(cluster, chips) * cluster.latency_seconds
    hidden = cluster.overlap_fraction * BACKWARD_FRACTION * compute / micro_batches
    seen = max(0.0, 1 - hidden / (bandwidth + latency)) if bandwidth + latency else 0.0
    return StepTime(
        compute=compute,
        fixed=cluster.fixed_seconds,
        micro_batches=micro_batches * cluster.micro_batch_seconds,
        optimizer=optimizer_seconds(cluster, chips, gradient.parameters),
        stragglers=compute * lateness(cluster, chips),
        bandwidth=seen * bandwidth,
        latency=seen * latency,
    )
