"""What a run does beside training: checkpoints, evaluations, what is logged, how memory is shared."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from lambert.errors import UserError, unknown_name

ON_SPIKE = ("warn", "rollback")
ACTIVATION_CHECKPOINTING = ("none", "selective", "full")


@dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """What a run does beside training. None of it changes a bit of the weights, except a rollback over a spike."""

    checkpoint_minutes: float = 5.0
    """Save at least this often, minutes; the end of each phase and of the run is always saved."""
    checkpoint_steps: int = 0
    """Save after every so many steps instead; 0 goes by the clock."""
    keep_last: int = 2
    """How many of the newest checkpoints are kept."""
    keep_every: int = 0
    """Checkpoints of every so many steps are kept for good; 0 keeps none."""
    full_disk_minutes: float = 10.0
    """How long to wait for space on a full disk before the run stops, minutes."""
    evaluation_samples: int = 1_024
    """Held-out sequences in each evaluation; 0 evaluates nothing."""
    evaluations_per_phase: int = 5
    """Evaluations of each phase, evenly spread; the last one is at its end."""
    trust_ratios_per_phase: int = 25
    """How often the trust ratios of all layers are logged in each phase."""
    noise_measurements_per_phase: int = 1_000
    """Steps of each phase, evenly spread, that measure the gradient noise scale; each costs one extra gradient norm."""
    on_spike: str = "warn"
    """warn or rollback: what to do when loss or gradient norm rise far above the usual (docs/reliability.md)."""
    activation_checkpointing: str = "none"
    """none, selective or full: what the backward pass computes again to save memory; `plan` shows the cost of each."""
    shard: bool = False
    """Shard weights, gradients and moments over the ranks (FSDP2), for models beyond one device (untested on GPU)."""

    def __post_init__(self) -> None:
        if self.activation_checkpointing not in ACTIVATION_CHECKPOINTING:
            raise unknown_name("activation checkpointing", self.activation_checkpointing, ACTIVATION_CHECKPOINTING)
        if self.on_spike not in ON_SPIKE:
            raise unknown_name("answer to a spike", self.on_spike, ON_SPIKE)
        if self.keep_last < 1:
            raise UserError(f"keep last {self.keep_last}", remedy="Give a whole number from 1")
        for field in fields(TrainerOptions):
            value = getattr(self, field.name)
            if not isinstance(value, str) and not 0 <= value < math.inf:
                raise UserError(f"{field.name.replace('_', ' ')} {value}", remedy="Give a number from 0")
