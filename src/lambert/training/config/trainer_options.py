"""Trainer options: checkpoints, evaluation, logging, memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from lambert.errors import UserError, unknown_name

ON_SPIKE = ("warn", "rollback")
MOST_DATA_WORKERS = 64
ACTIVATION_CHECKPOINTING = ("none", "selective", "full")


@dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """Options that do not change the weights, except for a rollback after a spike."""

    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints; the end of each phase is always saved."""
    checkpoint_steps: int = 0
    """Steps between checkpoints, instead of minutes; 0 uses `checkpoint_minutes`."""
    keep_last: int = 2
    """Number of newest checkpoints to keep."""
    keep_every: int = 0
    """Also save a checkpoint every so many steps, and at step 0, and keep them all; 0 keeps none."""
    full_disk_minutes: float = 10.0
    """Minutes to wait for space on a full disk before the run stops."""
    evaluation_samples: int = 1_024
    """Validation sequences in each evaluation; 0 turns evaluation off."""
    evaluations_per_phase: int = 5
    """Evaluations in each phase, evenly spaced; the last one is at its end."""
    trust_ratios_per_phase: int = 25
    """Times that each phase logs the trust ratios of all layers."""
    noise_measurements_per_phase: int = 1_000
    """Steps of each phase, evenly spaced, that measure the gradient noise scale; each costs one extra gradient norm."""
    on_spike: str = "warn"
    """warn or rollback: response to a spike of the loss or gradient norm (docs/reliability.md)."""
    activation_checkpointing: str = "none"
    """none, selective or full: recompute activations in the backward pass to save memory; `plan` shows the costs."""
    data_workers: int | None = None
    """Processes of each rank that make batches. Default: none on a CPU; on a GPU up to 4, once its thread for that is
    busy a fifth of the time (untested on GPU). The weights do not depend on it."""
    shard: bool = False
    """Shard weights, gradients and moments over the ranks (FSDP2), for models beyond one device (untested on GPU)."""

    def __post_init__(self) -> None:
        if self.activation_checkpointing not in ACTIVATION_CHECKPOINTING:
            raise unknown_name("activation checkpointing", self.activation_checkpointing, ACTIVATION_CHECKPOINTING)
        if self.on_spike not in ON_SPIKE:
            raise unknown_name("answer to a spike", self.on_spike, ON_SPIKE)
        if self.data_workers is not None and not 0 <= self.data_workers <= MOST_DATA_WORKERS:
            raise UserError(
                f"`data_workers` is {self.data_workers}", remedy=f"Give a whole number from 0 to {MOST_DATA_WORKERS}"
            )
        if self.keep_last < 1:
            raise UserError(f"keep last {self.keep_last}", remedy="Give a whole number from 1")
        for field in fields(TrainerOptions):
            value = getattr(self, field.name)
            if value is not None and not isinstance(value, str) and not 0 <= value < math.inf:
                raise UserError(f"{field.name.replace('_', ' ')} {value}", remedy="Give a number from 0")
