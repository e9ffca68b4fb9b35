"""The masked fraction of a sample, where it changes over the run: a pure function of the sample's step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class MaskSchedule:
    """The masked fraction of each sample of a phase: on a line over the steps of the run.

    The first step has `start`; `end` is reached one step after the last.
    """

    start: float
    end: float
    total_steps: int
    """Of the run."""
    first_step: int
    """Of the phase, counted from 1 through the run."""
    last_step: int
    batch_size: int
    """Samples in a step of the phase."""

    def fractions(self, first: int, count: int) -> NDArray[np.float64]:
        """[count] of samples first … first + count − 1 of the phase."""
        return self._of(self.first_step + np.arange(first, first + count) // self.batch_size)

    @property
    def largest(self) -> float:
        """The largest one in the phase."""
        return float(self._of(np.array([self.first_step, self.last_step])).max())

    def _of(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        fractions: NDArray[np.float64] = self.start + (self.end - self.start) * (steps - 1) / self.total_steps
        return fractions
