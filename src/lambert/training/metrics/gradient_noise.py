"""The gradient noise scale of a run: which steps measure it, and its journal event (docs/batch_size.md).

Losses are divided by the terms of the whole batch. So the gradient of a sequence is its contribution to the step's
gradient times the batch size. The mean over all sequences is the step's gradient; the mean over a micro-batch is its
contribution times batch size / micro-batch size. MLM and NSP loss both count, each divided by its own terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lambert.optim import GradientNoise
from lambert.training.config.phase import Phase
from lambert.training.step.train_step import StepResult

WINDOW = 256
"""Most measured steps in an estimate: the later half of those of the phase so far. The noise scale grows during
training, and the large gradients of the first steps would dominate."""


class GradientNoiseTracker:
    """Estimates the noise scale from the gradients of a step's first micro-batch and of the whole batch.

    Args:
        measurements_per_phase: most measured steps in a phase, evenly spaced.
    """

    def __init__(self, measurements_per_phase: int) -> None:
        self._times = measurements_per_phase
        self._phase = self._count = 0
        self._noise = GradientNoise(WINDOW)

    def is_due(self, phase: Phase, step: int) -> bool:
        """Whether to measure `step`; never with a single micro-batch, which is the whole batch."""
        return phase.micro_batch_count > 1 and phase.is_due(step, self._times)

    def update(self, phase: Phase, step: int, result: StepResult) -> dict[str, Any] | None:
        """Add a step; returns the fields of its `noise` event, or None if it was not measured."""
        if result.first_norm is None or not result.applied:
            return None
        if phase.number != self._phase:
            self._phase, self._count, self._noise = phase.number, 0, GradientNoise(WINDOW)
        self._count += 1
        _, small_batch = phase.samples_of(step, 0)
        large_batch = phase.config.batch_size
        small_square = (result.first_norm * large_batch / small_batch) ** 2
        sizes = {"small_batch": small_batch, "large_batch": large_batch}
        noise, signal = self._noise.add([small_square], result.gradient_norm**2, **sizes)
        estimate = asdict(self._noise.estimate(min(WINDOW, (self._count + 1) // 2)))
        return {
            "step": step,
            "phase": phase.number,
            **sizes,
            "noise": noise,
            "signal": signal,
            **{name: estimate[name] for name in ("noise_scale", "standard_error", "steps")},
        }

    def state_dict(self) -> dict[str, Any]:
        """State for `load_state_dict`."""
        return {"phase": self._phase, "count": self._count, **self._noise.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from `state_dict`."""
        self._phase, self._count = state["phase"], state["count"]
        self._noise.load_state_dict(state)
