"""A cluster described by a few numbers: its chips, the links between them, the cost of a step.

Numbers come from a data sheet, from published runs (`fit.py`) or from a user's TOML file, where units are easily mixed
up: values that no machine has are refused with the unit that was probably meant.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from lambert.errors import UserError, unknown_name
from lambert.utils.io import read_toml

LONGEST_SHORT_SEQUENCE = 256
TOPOLOGIES = ("ring", "tree", "torus", "hierarchical")
OPTIMIZER_STATES = ("replicated", "sharded")


@dataclass(frozen=True)
class Cluster:
    """Chips, and the links between them. Fields with a default of 0 are terms that are left out unless given."""

    name: str
    most_chips: int
    """The largest that was built or measured."""
    chip_memory_bytes: float
    flops_per_second: float
    """Matmul throughput of a chip on BERT, in the training dtype."""
    fixed_seconds: float
    """Of every step, whatever its batch: input, launches, and the optimizer without `memory_bytes_per_second`."""
    topology: str
    """`ring`; `tree`: double binary trees; `torus`: two dimensions with rings along both; `hierarchical`: groups with
    fast links, slower ones between them."""
    link_bytes_per_second: float
    """Of a chip to its neighbours, each way: in a torus along one dimension, in a hierarchy within the group."""
    latency_seconds: float
    """For every tensor and hop."""
    group_chips: int = 1
    """Chips in a group of a hierarchy."""
    group_bytes_per_second: float = 0.0
    """From a group of a hierarchy to the others, each way."""
    gradient_bytes_per_parameter: float = 4.0
    flops_per_second_long: float = 0.0
    """The rate for sequences of more than 256 tokens, where it is another one."""
    overlap_fraction: float = 0.0
    """Of the last micro-batch's backward pass, which the all-reduce can overlap, 0 to 1."""
    micro_batch_seconds: float = 0.0
    """Of every micro-batch, whatever its size."""
    memory_bytes_per_second: float = 0.0
    """Memory bandwidth of a chip; if given, the optimizer's time becomes a term of its own."""
    optimizer_bytes_per_parameter: float = 40.0
    """Read and written: LAMB reads weight, gradient and both moments and writes moments and update (28), then reads
    weight and update and writes the weight (12), in float32."""
    optimizer_state: str = "replicated"
    """`sharded`: every chip updates its shard of the parameters and holds moments for that only."""
    straggler_ratio: float = 0.0
    """σ: standard deviation of a chip's compute time over its mean; the slowest of p chips is σ √(2 ln p) late."""
    price_per_chip_hour: float = 0.0
    """In any currency."""
    error: str = ""
    """How far this description is from published runs, as text."""
    relative_error: float = 0.0
    """The same as a number: the largest error to expect; 0 where unknown."""

    def __post_init__(self) -> None:
        for name, known in (("topology", TOPOLOGIES), ("optimizer_state", OPTIMIZER_STATES)):
            if getattr(self, name) not in known:
                raise unknown_name(f"{name} of cluster {self.name}", str(getattr(self, name)), known)
        needed = {"most_chips", "group_chips", *_BOUNDS} - _MAY_BE_ZERO
        needed |= {"group_bytes_per_second"} if self.topology == "hierarchical" else set()
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, str):
                self._check(field.name, value, is_needed=field.name in needed)
        for name in ("most_chips", "group_chips"):
            if getattr(self, name) != int(getattr(self, name)):
                raise UserError(f"cluster {self.name}: {name} = {getattr(self, name)}", remedy="Give a whole number")
        for name in ("overlap_fraction", "relative_error"):
            if getattr(self, name) > 1:
                raise UserError(
                    f"cluster {self.name}: {name} = {getattr(self, name)}", remedy="Give a number from 0 to 1"
                )

    def _check(self, name: str, value: float, *, is_needed: bool) -> None:
        what = f"cluster {self.name}: {name} = {value}"
        if is_needed and not 0 < value < math.inf:
            raise UserError(what, remedy="Give a number above 0")
        if not 0 <= value < math.inf:
            raise UserError(what, remedy="Give a number from 0")
        least, most, unit, scale = _BOUNDS.get(name, (0.0, math.inf, "", 0))
        if value and not least <= value <= most:
            likely = f"; {value:g} {unit} are {value:g}e{scale}" if least <= value * 10.0**scale <= most else ""
            raise UserError(what, remedy=f"Give {_BASE[scale]}, {least:g} to {most:g}{likely}")

    def rate(self, sequence_length: int) -> float:
        """FLOP/s of a chip at this length."""
        is_long = sequence_length > LONGEST_SHORT_SEQUENCE
        return (is_long and self.flops_per_second_long) or self.flops_per_second


# Field -> least and most that any machine has, the unit it is likely to have been given in, and that unit's exponent.
_BOUNDS = {
    "chip_memory_bytes": (1e8, 1e13, "GB", 9),
    "flops_per_second": (1e9, 1e17, "TFLOP/s", 12),
    "flops_per_second_long": (1e9, 1e17, "TFLOP/s", 12),
    "link_bytes_per_second": (1e6, 1e14, "GB/s", 9),
    "group_bytes_per_second": (1e6, 1e15, "GB/s", 9),
    "memory_bytes_per_second": (1e8, 1e15, "GB/s", 9),
    "latency_seconds": (0.0, 1.0, "microseconds", -6),
    "fixed_seconds": (0.0, 100.0, "milliseconds", -3),
    "micro_batch_seconds": (0.0, 100.0, "milliseconds", -3),
    "gradient_bytes_per_parameter": (0.125, 8.0, "bits", -1),
}
_BASE = {9: "bytes or bytes a second", 12: "FLOP/s", -6: "seconds", -3: "seconds", -1: "bytes"}
_MAY_BE_ZERO = {
    *("flops_per_second_long", "group_bytes_per_second", "memory_bytes_per_second"),
    *("latency_seconds", "fixed_seconds", "micro_batch_seconds"),
}


def read_cluster(path: Path) -> Cluster:
    """A cluster from a TOML file with the fields of `Cluster`.

    Raises:
        UserError: it cannot be read, a field is missing, unknown or of the wrong kind, or a number is impossible.
    """
    try:
        values = read_toml(path)
    except ValueError as error:
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
