"""Configuration of a phase: every number with its formula and provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

Provenance = Literal["published", "unconfirmed", "extrapolated", "fitted here", "given"]
"""`published`: read in the source itself. `unconfirmed`: reported as published, not verified by us. `given`: by the
user, on the command line or in a file."""


@dataclass(frozen=True)
class DerivedValue:
    """A number of the recipe with its provenance."""

    value: int | float
    formula: str
    provenance: Provenance


@dataclass(frozen=True)
class PhaseConfig:
    """One phase of a run: a sequence length, a batch size, and a learning rate that rises and falls."""

    sequence_length: int
    """Tokens in a full sequence."""
    batch_size: int
    """Sequences in a global batch."""
    steps: DerivedValue
    peak_learning_rate: DerivedValue
    warmup_steps: DerivedValue
    """From zero; in all phases but the first this is the re-warm-up."""
    stable_steps: int = 0
    """Steps at the peak after the warm-up."""
    decay: str = "power"
    """See `LRSchedule`, as for the next four."""
    decay_power: float = 1.0
    decays_from_start: bool = False
    min_lr_ratio: float = 0.0
    cooldown_steps: int = 0
    continues: bool = False
    """Continues the schedule of the previous phase, which then spans both: no separate warm-up or peak."""

    global_rope_theta: float | None = None
    """Base of ModernBERT's rotary positions in global layers; None is the model's own."""

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Self:
        """The phase that a table of `TrainingConfig.as_tables` describes."""
        own = {field.name: table.get(field.name, field.default) for field in fields(cls)}
        derived = ("steps", "peak_learning_rate", "warmup_steps")
        return cls(**own | {name: DerivedValue(**own[name]) for name in derived})

    @property
    def step_count(self) -> int:
        """`steps` as a whole number."""
        return int(self.steps.value)

    @property
    def samples(self) -> int:
        """Sequences, steps · batch size."""
        return self.step_count * self.batch_size

    @property
    def tokens(self) -> int:
        """Tokens including padding."""
        return self.samples * self.sequence_length
