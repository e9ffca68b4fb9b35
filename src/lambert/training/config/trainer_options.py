"""What a run does beside training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lambert.errors import UserError, unknown_name
from lambert.model.bert import ACTIVATION_CHECKPOINTING

ON_SPIKE = ("warn", "rollback")


@dataclass(frozen=True)
class Housekeeping:
    """What a run does beside training; nothing here changes a bit of the weights, but for a spike rolled back over."""

    checkpoint_seconds: float = 300.0
    """Least time between two checkpoints; the end of a phase and of the run are always saved."""
    checkpoint_steps: int = 0
    """Save after every so many steps instead; 0 goes by the clock."""
    keep_last: int = 2
    """How many of the newest checkpoints are kept."""
    keep_every: int = 0
    """Checkpoints of every so many steps are kept for good; 0 keeps none."""
    disk_patience_seconds: float = 600.0
    """How long a full disk is waited for."""
    on_spike: str = "warn"
    """What follows on a loss or gradient far above the usual; one of `ON_SPIKE`."""
    evaluation_samples: int = 1_024
    """Most held-out sequences that are measured; 0 measures none."""
    evaluations_per_phase: int = 5
    """How often, evenly spread; the last one is at the end of the phase."""
    trust_ratios_per_phase: int = 25
    """How often the trust ratios of all layers are written down."""
    noise_measurements_per_phase: int = 1_000
    """On how many evenly spread steps the gradient noise scale is measured; one costs a pass over the gradients."""
    activation_checkpointing: str = "none"
    """What the backward pass computes again rather than keeps; one of `ACTIVATION_CHECKPOINTING`."""
    shards: bool = False
    """Cut weights, gradients and moments over the processes; the sums are rounded otherwise."""

    def __post_init__(self) -> None:
        if self.activation_checkpointing not in ACTIVATION_CHECKPOINTING:
            raise unknown_name("activation checkpointing", self.activation_checkpointing, ACTIVATION_CHECKPOINTING)
        if self.on_spike not in ON_SPIKE:
            raise unknown_name("answer to a spike", self.on_spike, ON_SPIKE)
        if self.keep_last < 1:
            raise UserError(f"keep last {self.keep_last}", remedy="Give a whole number from 1")
        for name, value in self.__dict__.items():
            if not isinstance(value, str) and not 0 <= value < math.inf:
                raise UserError(f"{name.replace('_', ' ')} {value}", remedy="Give a number from 0")
