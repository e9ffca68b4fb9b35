"""One phase of a recipe, as a person or a file states it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from lambert.errors import UserError, unknown_name
from lambert.utils.lr_schedule import DECAYS

SHORTEST_SEQUENCE, LONGEST_SEQUENCE = 8, 8_192
MOST_SAMPLES = 10**15
_SCHEDULE = (
    "peak_learning_rate", "warmup_ratio", "warmup_steps", "stable_ratio", "decay", "decay_power", "decays_from_start",
    "min_lr_ratio", "cooldown_ratio",
)  # fmt: skip
"""Fields that belong to the schedule, which phases that continue another one share."""


@dataclass(frozen=True)
class PhaseRecipe:
    """Hyperparameters of one phase; None is derived by the rule."""

    sequence_length: int
    batch_size: int
    share: float | None = None
    """Fraction of the run's samples; all phases set this, or all set `steps`."""
    steps: int | None = None
    peak_learning_rate: float | None = None
    warmup_ratio: float | None = None
    """Fraction of the steps of the phase and those that continue it; or `warmup_steps`, if `steps` is set."""
    warmup_steps: int | None = None
    stable_ratio: float = 0.0
    decay: str = "power"
    decay_power: float = 1.0
    decays_from_start: bool = False
    min_lr_ratio: float = 0.0
    cooldown_ratio: float = 0.0
    """Fraction of the same steps as `warmup_ratio`, at the end."""
    global_rope_theta: float | None = None
    """Base of ModernBERT's rotary positions in global layers; None keeps that of the phase before."""
    continues: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"batch size {self.batch_size}", remedy="Give a whole number of sequences from 1")
        if not SHORTEST_SEQUENCE <= self.sequence_length <= LONGEST_SEQUENCE:
            raise UserError(
                f"sequence length {self.sequence_length}",
                remedy=f"Give a whole number of tokens from {SHORTEST_SEQUENCE} to {LONGEST_SEQUENCE:,}",
            )
        if self.global_rope_theta is not None and not 1 < self.global_rope_theta < math.inf:
            raise UserError(f"global_rope_theta {self.global_rope_theta}", remedy="Give a number above 1")
        rate = self.peak_learning_rate
        if rate is not None and not (rate > 0 and math.isfinite(rate)):
            raise UserError(f"learning rate {rate}", remedy="Give a number above 0")
        for name in ("share", "warmup_ratio", "stable_ratio", "min_lr_ratio", "cooldown_ratio"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"{_words(name)} {value}", remedy="Give 0 to 1")
        if self.share == 0 or (self.steps is not None and self.steps < 1):
            length = "share 0" if self.share == 0 else f"{self.steps} steps"
            raise UserError(f"a phase with {length}", remedy="Leave the phase out, or give it at least one step")
        if self.steps is not None and self.steps > MOST_SAMPLES:
            raise UserError(f"a phase with {self.steps:.3g} steps", remedy=f"Give at most {MOST_SAMPLES:,}")
        if self.warmup_steps is not None and (
            self.warmup_ratio is not None or self.steps is None or self.warmup_steps < 0
        ):
            raise UserError(
                f"{self.warmup_steps} steps of warm-up in a phase with {self.steps} steps and a share "
                f"{self.warmup_ratio}",
                remedy="Give warmup_steps from 0 beside steps, or warmup_ratio",
            )
        self._check_shape()

    def _check_shape(self) -> None:
        parts = {"warm-up": self.warmup_ratio, "stable": self.stable_ratio, "cool-down": self.cooldown_ratio}
        given = {name: ratio for name, ratio in parts.items() if ratio}
        if sum(given.values()) > 1 + 1e-9:
            raise UserError(
                f"{' and '.join(f'{name} ratio {ratio}' for name, ratio in given.items())} sum to more than 1",
                remedy="Give ratios whose sum is at most 1",
            )
        if self.decay not in DECAYS:
            raise unknown_name("decay", self.decay, DECAYS)
        if not 0 < self.decay_power <= 100:
            raise UserError(f"decay power {self.decay_power}", remedy="Give a number above 0, at most 100; 1 is a line")
        if self.decay != "power" and self.decay_power != 1:
            raise UserError(
                f"decay power {self.decay_power} beside decay = {self.decay!r}", remedy="Leave out one of them"
            )
        if self.cooldown_ratio and not self.min_lr_ratio:
            raise UserError(
                f"cool-down ratio {self.cooldown_ratio} from a rate of 0",
                remedy="Give min_lr_ratio, the fraction of the peak that the cool-down begins with",
            )

    @property
    def own_schedule(self) -> list[str]:
        """Names of the fields of the schedule that are set."""
        known = {field.name: field.default for field in fields(self) if field.name in _SCHEDULE}
        return [name for name, default in known.items() if getattr(self, name) != default]


def _words(name: str) -> str:
    return name.replace("_", " ").replace("warmup", "warm-up").replace("cooldown", "cool-down")
