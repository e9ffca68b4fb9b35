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
from lambert.training.config.phase import Part
from lambert.training.step.train_step import StepResult

WINDOW = 256
"""Measured steps that an estimate rests on at most. They are the later half of those of the phase so far: the noise
scale grows during training, and a few first steps with large gradients would drown all others."""


class NoiseScale:
    """Measured from the first micro-batch of a step and the whole of it.

    Args:
        measurements_per_phase: on how many evenly spread steps of a phase at most.
    """

    def __init__(self, measurements_per_phase: int) -> None:
        self._times = measurements_per_phase
        self._phase = self._count = 0
        self._noise = GradientNoise(WINDOW)

    def is_due(self, part: Part, step: int) -> bool:
        """Whether to measure `step`: not where it is a single micro-batch, since nothing is smaller than the batch."""
        return part.micro_batch_count > 1 and part.is_due(step, self._times)

    def look(self, part: Part, step: int, result: StepResult) -> dict[str, Any] | None:
        """Take in a step; returns the fields of its `noise` event, None where it was not measured."""
        if result.first_norm is None or not result.was_taken:
            return None
        if part.number != self._phase:
            self._phase, self._count, self._noise = part.number, 0, GradientNoise(WINDOW)
        self._count += 1
        _, small_batch = part.samples_of(step, 0)
        large_batch = part.phase.batch_size
        small_square = (result.first_norm * large_batch / small_batch) ** 2
        sizes = {"small_batch": small_batch, "large_batch": large_batch}
        noise, signal = self._noise.add([small_square], result.gradient_norm**2, **sizes)
        estimate = asdict(self._noise.estimate(min(WINDOW, (self._count + 1) // 2)))
        return {
            "step": step,
            "phase": part.number,
            **sizes,
            "noise": noise,
            "signal": signal,
            **{name: estimate[name] for name in ("noise_scale", "standard_error", "steps")},
        }

    def facts(self) -> dict[str, Any]:
        """What `restore` needs."""
        return {"phase": self._phase, "count": self._count, **self._noise.facts()}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Go on from what `facts` returned."""
        self._phase, self._count = facts["phase"], facts["count"]
        self._noise.restore(facts)
