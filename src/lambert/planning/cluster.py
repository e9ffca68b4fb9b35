"""The time of a synchronous training step on a cluster that is not here, from a few numbers that describe it.

    T = fixed + micro-batches · sequences · FLOP a sequence / rate + all-reduce of the gradients

The all-reduce is that of the topology: bytes over links, and a latency for every tensor and hop. Three numbers of a
cluster cannot be read off a data sheet (the fixed cost, the rate, the latency); `fit.py` gets them from published runs.
Nothing overlaps in this form: what is hidden behind the backward pass shows as a smaller latency.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from lambert.bounded import SETTINGS_BYTES, read_bytes
from lambert.errors import UserError, unknown_name

LONGEST_SHORT_SEQUENCE = 256
TOPOLOGIES = ("torus", "hierarchical")


@dataclass(frozen=True)
class Cluster:
    """Chips, and the links between them."""

    name: str
    most_chips: int
    """The largest that was built or measured."""
    chip_memory_bytes: float
    flops_per_second: float
    """What a chip reaches on BERT's products, in the training format."""
    fixed_seconds: float
    """Of every step, whatever its batch: input, optimizer, launches."""
    topology: str
    """`torus`: chips in two dimensions, rings along both. `hierarchical`: groups with fast links, slower ones between
    them."""
    link_bytes_per_second: float
    """Of a chip to its neighbours, each way: in a torus along one dimension, in a hierarchy within the group."""
    latency_seconds: float
    """For every tensor and hop."""
    group_chips: int = 1
    """Chips in a group of a hierarchy."""
    group_bytes_per_second: float = 0.0
    """From a group of a hierarchy to the others, each way."""
    gradient_bytes_per_parameter: int = 4
    flops_per_second_long: float = 0.0
    """The rate for sequences of more than 256 tokens, where it is another one; 0 where it is not."""
    price_per_chip_hour: float = 0.0
    """In any currency; 0 where nobody asks."""
    error: str = ""
    """How far this description was from runs that were published, for people."""

    def __post_init__(self) -> None:
        if self.topology not in TOPOLOGIES:
            raise UserError(
                f"cluster {self.name}: topology {self.topology!r}", remedy=f"Give one of {', '.join(TOPOLOGIES)}"
            )
        wanted = ["most_chips", "chip_memory_bytes", "flops_per_second", "link_bytes_per_second", "group_chips"]
        wanted += ["group_bytes_per_second"] * (self.topology == "hierarchical")
        for name in wanted:
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UserError(f"cluster {self.name}: {name} = {value}", remedy="Give a number above 0")
        for name in ("fixed_seconds", "latency_seconds", "flops_per_second_long", "price_per_chip_hour"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UserError(f"cluster {self.name}: {name} = {value}", remedy="Give a number from 0")

    def rate(self, sequence_length: int) -> float:
        """FLOP/s of a chip at this length."""
        is_long = sequence_length > LONGEST_SHORT_SEQUENCE
        return (is_long and self.flops_per_second_long) or self.flops_per_second


@dataclass(frozen=True)
class Gradient:
    """What is summed over all chips after every step."""

    parameters: int
    tensors: int


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step, by what they are for."""

    fixed: float
    compute: float
    bandwidth: float
    latency: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.fixed + self.compute + self.bandwidth + self.latency


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
    """Time that an all-reduce needs for its bytes alone.

    A ring of p sends 2 (p − 1) / p times its bytes through every link. In a torus X × Y the second dimension sums what
    the first has cut into X parts (two-dimensional all-reduce, arXiv 1811.06992); in a hierarchy of m groups of g
    the links between groups carry each group's sum.
    """
    if cluster.topology == "torus":
        x, y = torus_sides(chips)
        sent = 2 * (x - 1) / x + 2 * (y - 1) / y / x
        return sent * byte_count / cluster.link_bytes_per_second
    inside = min(chips, cluster.group_chips)
    groups = math.ceil(chips / cluster.group_chips)
    within = 2 * (inside - 1) / inside * byte_count / cluster.link_bytes_per_second
    between = 2 * (groups - 1) / groups * byte_count / cluster.group_bytes_per_second if groups > 1 else 0.0
    return within + between


def hops(cluster: Cluster, chips: int) -> int:
    """Messages that follow one another in an all-reduce: 2 (X + Y − 2) in a torus; in a hierarchy
    2 (g − 1) in a group and 2 log₂ m between m of them.
    """
    if cluster.topology == "torus":
        return 2 * (sum(torus_sides(chips)) - 2)
    inside = min(chips, cluster.group_chips)
    return 2 * (inside - 1) + 2 * math.ceil(math.log2(math.ceil(chips / cluster.group_chips)))


def step_time(
    cluster: Cluster,
    chips: int,
    gradient: Gradient,
    *,
    sequences_per_chip: float,
    flops_per_sequence: float,
    sequence_length: int,
) -> StepTime:
    """One optimizer step.

    Args:
        sequences_per_chip: of the global batch, over all micro-batches: their number costs nothing of its own here.
        flops_per_sequence: forward and backward.
    """
    return StepTime(
        fixed=cluster.fixed_seconds,
        compute=sequences_per_chip * flops_per_sequence / cluster.rate(sequence_length),
        bandwidth=transfer_seconds(cluster, chips, gradient.parameters * cluster.gradient_bytes_per_parameter),
        latency=gradient.tensors * hops(cluster, chips) * cluster.latency_seconds,
    )


def read_cluster(path: Path) -> Cluster:
    """A cluster from a TOML file with the fields of `Cluster`.

    Raises:
        UserError: it cannot be read, a field is missing, unknown or of the wrong kind, or a number is impossible.
    """
    try:
        values = tomllib.loads(read_bytes(path, SETTINGS_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cluster {path} cannot be read: {error}", remedy="Give a TOML file or a known name") from None
    known = {field.name: field for field in fields(Cluster)}
    for name, value in values.items():
        if name not in known:
            raise unknown_name(f"field of cluster {path}", name, known)
        wanted = (str,) if known[name].type == "str" else (int, float)
        if isinstance(value, bool) or not isinstance(value, wanted):
            raise UserError(f"cluster {path}: {name} = {value!r}", remedy=f"Give a {wanted[-1].__name__}")
    missing = [name for name, field in known.items() if name not in values and field.default is MISSING]
    if missing:
        raise UserError(f"cluster {path} lacks {', '.join(missing)}", remedy="See docs/planning.md for each")
    return Cluster(**values)
