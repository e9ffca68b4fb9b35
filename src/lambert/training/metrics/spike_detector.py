"""Detects NaN/Inf steps, and spikes: steps whose loss or gradient norm is far above those before."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lambert.errors import UserError

WINDOW = 128
"""Steps in the window that a step is compared with; cleared at the start of a phase."""
LEAST_STEPS = 32
"""Fewer steps give no usable standard deviation."""
LARGEST_Z_SCORE = 6.0
LEAST_GRADIENT_FACTOR = 4.0
"""A gradient norm must also exceed the window's mean by this factor. When a model leaves the plateau of the unigram
baseline, norms double within a few steps, and that is no spike (LOG.md)."""
MOST_SKIPPED_IN_A_ROW = 10
MOST_ROLLBACKS = 10
MOST_MOVED_LAYERS = 5


@dataclass(frozen=True)
class Spike:
    """A metric far above its values in the steps before."""

    metric: str
    """`loss` or `gradient_norm`."""
    value: float
    window_mean: float
    """Mean over the window (for a norm, the geometric mean)."""
    z_score: float
    """z-score within the window; for a norm, of its logarithm."""


class SpikeDetector:
    """Detects spikes of loss and gradient norm by their z-score in a window of steps."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._log_norms: deque[float] = deque(maxlen=WINDOW)
        self.skipped_in_a_row = 0

    def begin_phase(self) -> None:
        """Clear the window."""
        self._losses.clear()
        self._log_norms.clear()

    def update(self, loss: float, gradient_norm: float) -> list[Spike]:
        """Add a finite step; returns its spikes."""
        self.skipped_in_a_row = 0
        log_norm = math.log(max(gradient_norm, 1e-30))
        spikes = []
        z_score = _z_score(self._losses, loss)
        if z_score > LARGEST_Z_SCORE:
            spikes.append(Spike("loss", loss, statistics.fmean(self._losses), z_score))
        z_score = _z_score(self._log_norms, log_norm)
        if z_score > LARGEST_Z_SCORE:
            mean = math.exp(statistics.fmean(self._log_norms))
            if gradient_norm > LEAST_GRADIENT_FACTOR * mean:
                spikes.append(Spike("gradient_norm", gradient_norm, mean, z_score))
        self._losses.append(loss)
        self._log_norms.append(log_norm)
        return spikes

    def state_dict(self) -> dict[str, Any]:
        """State for `load_state_dict`."""
        losses, log_norms = list(self._losses), list(self._log_norms)
        return {"losses": losses, "log_norms": log_norms, "skipped_in_a_row": self.skipped_in_a_row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from `state_dict`."""
        self.begin_phase()
        self._losses.extend(state["losses"])
        self._log_norms.extend(state["log_norms"])
        self.skipped_in_a_row = state["skipped_in_a_row"]


def refuse_more_rollbacks(run: Path, done: int, step: int) -> None:
    """Check that a run may roll back once more.

    Raises:
        UserError: too many rollbacks.
    """
    if done >= MOST_ROLLBACKS:
        raise UserError(
            f"{run} has rolled back over {done} steps, and step {step} is a spike again",
            remedy="Start over (`fresh=True`) with a smaller `learning_rate`, or resume with `on_spike` warn",
        )


def moved_layers(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, list[float]]:
    """Layer → statistic before and now, for the layers that changed by the largest factors."""
    known = [name for name in now if before.get(name, 0) > 0 and now[name] > 0]
    known.sort(key=lambda name: -abs(math.log(now[name] / before[name])))
    return {name: [before[name], now[name]] for name in known[:MOST_MOVED_LAYERS]}


def _z_score(values: deque[float], value: float) -> float:
    """z-score of `value`; 0 while there are too few values."""
    if len(values) < LEAST_STEPS:
        return 0.0
    mean = statistics.fmean(values)
    # A standard deviation below a thousandth of the mean is rounding, not noise.
    return (value - mean) / max(statistics.stdev(values, mean), 1e-3 * abs(mean), 1e-9)
