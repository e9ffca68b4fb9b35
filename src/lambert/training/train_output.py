"""How a run ended, for whoever started it."""

from __future__ import annotations

from dataclasses import dataclass

from lambert.training.step.pretraining_loss import Evaluation


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    step: int
    """Steps done in all."""
    finished: bool
    """False when it was asked to stop before its last step."""
    resumed_from_step: int
    """0 when it was new."""
    evaluation: Evaluation | None
    """The last one of this sitting."""
    seconds: float
    """Time this sitting took."""
    signal: int = 0
    """The number of the signal that ended it; 0 when it was none."""
