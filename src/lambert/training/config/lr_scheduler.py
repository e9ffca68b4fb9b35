"""Learning-rate schedules by the names of `transformers.SchedulerType`. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LR_SCHEDULER_TYPES = ("linear", "cosine", "constant_with_warmup", "warmup_stable_decay")


@dataclass(frozen=True)
class LRSchedulerChoice:
    """The shape that replaces that of a recipe's schedules after their warm-up."""

    type: str
    """One of `LR_SCHEDULER_TYPES`."""
    decay_ratio: float
    """Decay as a fraction of all steps, with `warmup_stable_decay`."""

    @property
    def phase_fields(self) -> dict[str, Any]:
        """Fields of `PhaseRecipe` that describe the decay."""
        decay = {"cosine": "cosine", "warmup_stable_decay": "1-sqrt"}.get(self.type, "power")
        line = {"decay_power": 1.0, "decays_from_start": False, "min_lr_ratio": 0.0}
        return {"stable_ratio": 0.0, "cooldown_ratio": 0.0, "decay": decay, **line}

    def stable_steps(self, total: int, warmup: int) -> int:
        """Steps at the peak, of a schedule of `total` steps that begins with `warmup`."""
        stable = {
            "constant_with_warmup": total - warmup,
            "warmup_stable_decay": total - warmup - max(1, round(self.decay_ratio * total)),
        }
        return max(0, stable.get(self.type, 0))
