"""What a run does beside training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lambert.errors import UserError, unknown_name
from lambert.model.bert import ACTIVATION_CHECKPOINTING


@dataclass(frozen=True)
class Housekeeping:
    """What a run does beside training; nothing here changes a bit of the weights."""

    checkpoint_seconds: float = 300.0
    """Least time between two checkpoints; the end of a phase and of the run are always saved."""
    checkpoint_steps: int = 0
    """Save after every so many steps instead; 0 goes by the clock."""
    evaluation_samples: int = 1_024
    """Most held-out sequences that are measured; 0 measures none."""
    evaluations_per_phase: int = 5
    """How often, evenly spread; the last one is at the end of the phase."""
    trust_ratios_per_phase: int = 25
    """How often the trust ratios of all layers are written down."""
    activation_checkpointing: str = "none"
    """What the backward pass computes again rather than keeps; one of `ACTIVATION_CHECKPOINTING`."""

    def __post_init__(self) -> None:
        if self.activation_checkpointing not in ACTIVATION_CHECKPOINTING:
            raise unknown_name("activation checkpointing", self.activation_checkpointing, ACTIVATION_CHECKPOINTING)
        for name, value in self.__dict__.items():
            if not isinstance(value, str) and not 0 <= value < math.inf:
                raise UserError(f"{name.replace('_', ' ')} {value}", remedy="Give a number from 0")
