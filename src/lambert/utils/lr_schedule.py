"""The learning rate of a step: a pure function, no optimizer inside."""

from __future__ import annotations

import math
from dataclasses import dataclass

DECAYS = ("power", "cosine", "1-sqrt")


@dataclass(frozen=True)
class LRSchedule:
    """Linear warm-up from 0 to the peak, the peak for a while, then decay to `min_lr_ratio` of it, then cool-down to 0.

    The decay starts where the warm-up ended, at the peak, unless `decays_from_start`. PyTorch's schedulers count from 0
    and begin with a rate of 0: T steps here have the rates of their T + 1 without the first.

    Example:
        >>> [LRSchedule(1.0, warmup_steps=2, total_steps=5).rate(step) for step in range(1, 6)]
        [0.5, 1.0, 0.75, 0.5, 0.25]
    """

    peak: float
    warmup_steps: int
    """Steps until the peak, at most `total_steps`; 0 starts at the peak."""
    total_steps: int
    stable_steps: int = 0
    """Steps that stay at the peak after the warm-up."""
    decay: str = "power"
    """`power`, see `decay_power`; `cosine`: half a period, from 1 to −1 (Loshchilov and Hutter 2016, arXiv 1608.03983);
    `1-sqrt`: the rate falls as 1 − √(fraction of the decay that is done) (Hägele et al. 2024, arXiv 2405.18392)."""
    decay_power: float = 1.0
    """The rate falls as (fraction of the decay that is left) ^ power: 1 is a line, .5 stays high and falls late."""
    decays_from_start: bool = False
    """Count the decay from the first step, as BERT's and NVIDIA's code do. The rate then drops in the step after the
    warm-up, by what the decay would have taken off so far."""
    min_lr_ratio: float = 0.0
    """Fraction of the peak that the decay ends at; it is reached one step after the last."""
    cooldown_steps: int = 0
    """Steps at the end, in which the rate falls on a line from `min_lr_ratio` of the peak, in the first of them, to 0.
    They replace the end of the decay, which is not shortened for them."""

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_steps <= self.total_steps or self.stable_steps < 0 or self.cooldown_steps < 0:
            raise ValueError(f"a schedule of {self.total_steps} steps with {self.warmup_steps} of warm-up")
        if self.decay not in DECAYS:
            raise ValueError(f"a decay {self.decay!r}")

    def rate(self, step: int) -> float:
        """The rate of `step`: 1 for the first, `total_steps` for the last, which still has a rate above 0."""
        assert 1 <= step <= self.total_steps
        if step <= self.warmup_steps:
            return self.peak * step / self.warmup_steps
        remaining = self.total_steps - step + 1
        if remaining <= self.cooldown_steps:
            return self.peak * self.min_lr_ratio * remaining / self.cooldown_steps
        held = self.warmup_steps + self.stable_steps
        if step <= held:
            return self.peak
        began = 1 if self.decays_from_start else max(held, 1)
        left: float = remaining / (self.total_steps - began + 1)
        return self.peak * (self.min_lr_ratio + (1 - self.min_lr_ratio) * self._decayed(left))

    def _decayed(self, left: float) -> float:
        """The fraction of the peak, above the minimum, when the fraction `left` of the decay is to come."""
        if self.decay == "cosine":
            return 0.5 - 0.5 * math.cos(math.pi * left)
        if self.decay == "1-sqrt":
            return 1 - math.sqrt(1 - left)
        decayed: float = left**self.decay_power
        return decayed
