"""The learning rate of a step: a pure function, no optimizer inside."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from 0 to the peak, the peak for a while, then decay to `final_share` of it.

    The decay starts where the warm-up ended, at the peak, unless `decays_from_start`.

    Example:
        >>> [Schedule(1.0, warmup_steps=2, total_steps=5).rate(step) for step in range(1, 6)]
        [0.5, 1.0, 0.75, 0.5, 0.25]
    """

    peak: float
    warmup_steps: int
    """Steps until the peak, at most `total_steps`; 0 starts at the peak."""
    total_steps: int
    constant_steps: int = 0
    """Steps that stay at the peak after the warm-up."""
    decay_power: float = 1.0
    """The rate falls as (share of the decay that is left) ^ power: 1 is a line, .5 stays high and falls late."""
    decays_from_start: bool = False
    """Count the decay from the first step on, as BERT's and NVIDIA's own code do: the rate then drops at once, by
    what the decay has done so far, in the step after the warm-up."""
    final_share: float = 0.0
    """Share of the peak that the decay ends at; it is reached one step after the last."""

    def __post_init__(self) -> None:
        assert 0 <= self.warmup_steps <= self.total_steps and self.constant_steps >= 0

    def rate(self, step: int) -> float:
        """The rate of `step`: 1 for the first, `total_steps` for the last, which still has a rate above 0."""
        assert 1 <= step <= self.total_steps
        if step <= self.warmup_steps:
            return self.peak * step / self.warmup_steps
        held = self.warmup_steps + self.constant_steps
        if step <= held:
            return self.peak
        began = 1 if self.decays_from_start else max(held, 1)
        left: float = (self.total_steps - step + 1) / (self.total_steps - began + 1)
        decayed: float = left**self.decay_power
        return self.peak * (self.final_share + (1 - self.final_share) * decayed)
