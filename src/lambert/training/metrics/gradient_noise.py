"""The gradient noise scale of a run: which steps measure it, and what the journal says of it (docs/batch_size.md).

A sequence's gradient is what it adds to the step's, times the sequences of the batch: losses have been divided by the
terms of the whole batch, so the mean over all sequences is the step's gradient, and the mean over those of a
micro-batch is what that has added, times batch / micro-batch. Both kinds of loss are in it, each divided by the number
of its own terms in the whole batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lambert.optim import GradientNoise
from lambert.training.config.phase import Phase
from lambert.training.step.train_step import StepResult

WINDOW = 256
"""Measured steps that an estimate rests on at most. They are the later half of those of the phase so far: the noise
scale grows during training, and a few first steps with large gradients would drown all others."""


class GradientNoiseTracker:
    """Measured from the first micro-batch of a step and the whole of it.

    Args:
        measurements_per_phase: on how many evenly spread steps of a phase at most.
    """

    def __init__(self, measurements_per_phase: int) -> None:
        self._times = measurements_per_phase
        self._phase = self._count = 0
        self._noise = GradientNoise(WINDOW)

    def is_due(self, phase: Phase, step: int) -> bool:
        """Whether to measure `step`: not where it is a single micro-batch, since nothing is smaller than the batch."""
        return phase.micro_batch_count > 1 and phase.is_due(step, self._times)

    def update(self, phase: Phase, step: int, result: StepResult) -> dict[str, Any] | None:
        """Take in a step; returns the fields of its `noise` event, None where it was not measured."""
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
        """What `load_state_dict` needs."""
        return {"phase": self._phase, "count": self._count, **self._noise.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._phase, self._count = state["phase"], state["count"]
        self._noise.load_state_dict(state)
