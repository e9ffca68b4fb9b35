"""The gradient noise scale: how large a batch must be before its gradient is more signal than noise.

McCandlish et al. 2018, "An Empirical Model of Large-Batch Training" (arXiv 1812.06162), appendix A.1: from the squared
norms of gradients at two batch sizes b < B, averaged gradients both,
    ‖G‖²  ≈ (B·|G_B|² − b·|G_b|²) / (B − b)
    tr(Σ) ≈ (|G_b|² − |G_B|²) / (1/b − 1/B)
each without bias. Their ratio is the simple noise scale B_simple, in sequences. The ratio of two noisy numbers is
biased, so both are averaged over steps before they are divided. The small gradients are those of micro-batches or
ranks, the large one is that of the whole step, so all are available anyway.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NoiseEstimate:
    """The estimate from the steps so far."""

    noise: float
    """tr(Σ): variance of one sequence's gradient, summed over parameters."""
    signal: float
    """‖G‖²: squared norm of the gradient without noise. Can be negative while there are too few steps."""
    noise_scale: float
    """tr(Σ) / ‖G‖², in sequences; infinite where the signal is not above zero."""
    standard_error: float
    """Of `noise_scale`, by leaving out one step at a time (jackknife); infinite below two steps."""
    steps: int
    """Number of steps it is based on."""


class GradientNoise:
    """Accumulates both estimates step by step.

    Args:
        window: number of latest steps to keep; None keeps all.
    """

    def __init__(self, window: int | None = None) -> None:
        self._noise: deque[float] = deque(maxlen=window)
        self._signal: deque[float] = deque(maxlen=window)

    def add(
        self, small_squares: Sequence[float], large_square: float, *, small_batch: float, large_batch: float
    ) -> tuple[float, float]:
        """Adds one step.

        Args:
            small_squares: squared norms of the averaged gradients of one or several equal parts of the batch.
            large_square: squared norm of the averaged gradient of the whole batch.
            small_batch, large_batch: sequences in one part, and in the whole batch.

        Returns:
            This step's own tr(Σ) and ‖G‖².

        Raises:
            ValueError: there are no parts, or they are not smaller than the batch.
        """
        if not small_squares or not 0 < small_batch < large_batch:
            raise ValueError(
                f"noise needs two batch sizes: got {len(small_squares)} parts of {small_batch} in a batch of "
                f"{large_batch}"
            )
        small = math.fsum(small_squares) / len(small_squares)
        self._signal.append((large_batch * large_square - small_batch * small) / (large_batch - small_batch))
        self._noise.append((small - large_square) / (1 / small_batch - 1 / large_batch))
        return self._noise[-1], self._signal[-1]

    def estimate(self, latest: int | None = None) -> NoiseEstimate:
        """The noise scale over all kept steps, or over the `latest` ones.

        Raises:
            ValueError: no step was added.
        """
        pairs = list(zip(self._noise, self._signal, strict=True))[-(latest or len(self._noise)) :]
        count = len(pairs)
        if not count:
            raise ValueError("no step was added yet")
        noise, signal = math.fsum(n for n, _ in pairs), math.fsum(s for _, s in pairs)
        left_out = [_ratio(noise - n, signal - s) for n, s in pairs]
        error = math.inf
        if count > 1 and all(map(math.isfinite, left_out)):
            mean = math.fsum(left_out) / count
            error = math.sqrt((count - 1) / count * math.fsum((value - mean) ** 2 for value in left_out))
        return NoiseEstimate(noise / count, signal / count, _ratio(noise, signal), error, count)

    def state_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"noise": list(self._noise), "signal": list(self._signal)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        for values, name in ((self._noise, "noise"), (self._signal, "signal")):
            values.clear()
            values.extend(state[name])


def _ratio(noise: float, signal: float) -> float:
    return noise / signal if signal > 0 else math.inf
