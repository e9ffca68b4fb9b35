"""Which batch? What a larger one costs in samples and saves in steps, from the gradient noise scale.

McCandlish et al. 2018, "An Empirical Model of Large-Batch Training" (arXiv 1812.06162), section 2: whoever trains to
the same loss at different batch sizes B takes S steps and E = B · S samples with
    (S / S_min − 1) · (E / E_min − 1) = 1,      B_crit = E_min / S_min,
which is the same as S = S_min · (1 + B_crit / B) and E = E_min · (1 + B / B_crit). The gradient noise scale stands for
B_crit (docs/batch_size.md says what speaks against that).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lambert.errors import UserError

LEAST_STEPS = 30
"""Measured steps; of fewer, the standard error itself is too uncertain."""
LARGEST_RELATIVE_ERROR = 0.5
"""Of a noise scale that is used: two standard errors down is zero."""
WANTED_RELATIVE_ERROR = 0.2
"""What the remedy counts steps for."""
MOST_DOUBLINGS = 24
MARGIN = 3
"""Powers of two below and above the run's batch and the noise scale."""

BENCHMARK_SAMPLES = {256: 2.55e6, 1_536: 2.78e6, 4_096: 2.84e6, 8_192: 4.19e6, 16_384: 5.50e6}
"""Batch → mean samples of MLPerf's reference runs of BERT-Large to MLM accuracy .72, from a given checkpoint,
at 512 tokens; LAMB with betas of its own at each batch (mlcommons/logging, training_5.0.0/rcps_bert.json)."""


@dataclass(frozen=True)
class Scale:
    """A number of sequences, known within limits."""

    value: float
    low: float
    high: float
    """Infinite where nothing speaks against it."""


@dataclass(frozen=True)
class Row:
    """The same loss at another batch; factors are relative to the run. `low` and `high` are those of the noise scale's
    limits, smaller one first.
    """

    batch_size: int
    samples_factor: Scale
    steps_factor: Scale
    doubling_pays: bool
    """Whether the next larger power of two costs no more than half as many samples again."""


def noise_scale(value: float | None, standard_error: float | None, *, steps: int) -> Scale:
    """The noise scale with two standard errors either way, as far as it can be used.

    The limits are those of its inverse, since the noisy one of the two numbers, the signal, is the divisor.

    Args:
        value, standard_error: sequences; None where the signal was not above zero.
        steps: measured ones that it rests on.

    Raises:
        UserError: it rests on too few steps, or is too uncertain; says how many it would take.
    """
    if steps < LEAST_STEPS:
        raise UserError(
            f"the noise scale rests on {steps} measured steps, and {LEAST_STEPS} are the least",
            remedy="Let the run go on, or give one with more steps in this phase",
        )
    if value is None or not 0 < value < math.inf:
        raise UserError(
            f"after {steps} measured steps the gradient's signal has not come out above its noise",
            remedy=f"Give a run with more steps (four times as many, {4 * steps:,}, halve the error) or a larger batch",
        )
    relative = math.inf if standard_error is None else standard_error / value
    if not relative <= LARGEST_RELATIVE_ERROR:
        # An error that cannot be told is larger than the value: leaving out a single step makes the signal negative.
        needed = steps_needed(steps, relative if math.isfinite(relative) else 1.0)
        raise UserError(
            f"the noise scale, about {value:,.0f} sequences, is too uncertain after {steps} measured steps (its "
            f"standard error is {_percent(relative)} of it, {_percent(LARGEST_RELATIVE_ERROR)} is the most)",
            remedy=f"Give a run in which it rests on some {needed:,} steps ({_percent(WANTED_RELATIVE_ERROR)}), or one "
            "with a larger batch",
        )
    low, rest = value / (1 + 2 * relative), 1 - 2 * relative
    return Scale(value, low, value / rest if rest > 0 else math.inf)


def steps_needed(steps: int, relative_error: float, *, wanted: float = WANTED_RELATIVE_ERROR) -> int:
    """Measured steps until the error is `wanted`: it falls as 1 / √steps."""
    return math.ceil(steps * (relative_error / wanted) ** 2)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if math.isfinite(share) else "more than 100 %"


def samples_factor(batch_size: float, other: float, scale: float) -> float:
    """Samples at `batch_size` over those at `other` to the same loss, E(B) / E(B₀) = (B_crit + B) / (B_crit + B₀)."""
    return (1 + batch_size / scale) / (1 + other / scale)


def doubling_pays(batch_size: float, scale: float) -> bool:
    """Whether going from a batch to twice that costs at most half as many samples again (and so saves at least a
    quarter of the steps). E(2B) / E(B) = 1 + B / (B_crit + B): it does up to B = B_crit.
    """
    return batch_size <= scale


def largest_that_pays(scale: float) -> int | None:
    """The largest power of two that is reached from 1 by doublings that pay; None where there is no end to them."""
    if math.isinf(scale):
        return None
    return 2 ** (math.floor(math.log2(scale)) + 1) if scale >= 1 else 1


def table(batch_size: int, scale: Scale) -> list[Row]:
    """Powers of two around the run's batch and the noise scale, and the run's batch itself, rising."""
    ends = (min(batch_size, scale.value), max(batch_size, scale.value))
    first = max(0, math.floor(math.log2(max(ends[0], 1))) - MARGIN)
    last = min(math.ceil(math.log2(max(ends[1], 1))) + MARGIN, first + MOST_DOUBLINGS)
    sizes = sorted({2**power for power in range(first, last + 1)} | {batch_size})
    return [_row(size, batch_size, scale) for size in sizes]


def _row(size: int, batch_size: int, scale: Scale) -> Row:
    of_limits = [samples_factor(size, batch_size, limit) for limit in (scale.value, scale.low, scale.high)]
    samples = Scale(of_limits[0], min(of_limits[1:]), max(of_limits[1:]))
    steps = Scale(*(factor * batch_size / size for factor in (samples.value, samples.low, samples.high)))
    return Row(size, samples, steps, doubling_pays(size, scale.value))


@dataclass(frozen=True)
class Fit:
    """E(B) = E_min · (1 + B / B_crit), fitted to measured samples."""

    least_samples: float
    least_samples_error: float
    """Standard error."""
    critical_batch: float
    critical_batch_error: float
    residuals: tuple[float, ...]
    """Measured over fitted, less 1, one for each point."""


def fit(points: Sequence[tuple[float, float]]) -> Fit:
    """Least squares of relative errors, to (batch size, samples to the same loss).

    E_min and E_min / B_crit enter linearly. Errors are those of the residuals' own spread, to first order.

    Raises:
        ValueError: there are fewer than three points, which leave nothing to judge the fit by, or more samples are not
            needed at larger batches.
    """
    if len(points) < 3:
        raise ValueError(f"{len(points)} points")
    batches, samples = np.array(points, dtype=np.float64).T
    rows = np.stack([1 / samples, batches / samples], axis=1)
    scales = np.abs(rows).max(0)  # of very different sizes
    found, *_ = np.linalg.lstsq(rows / scales, np.ones(len(points)), rcond=None)
    least, slope = (float(value) for value in found / scales)
    if not (least > 0 and slope > 0):
        raise ValueError("samples do not grow with the batch")
    fitted = least + slope * batches
    spread = float(((1 - rows @ (found / scales)) ** 2).sum()) / (len(points) - 2)
    covariance = np.linalg.inv((rows / scales).T @ (rows / scales)) * spread / np.outer(scales, scales)
    gradient = np.array([1 / slope, -least / slope**2])  # of B_crit by both
    return Fit(
        least_samples=least,
        least_samples_error=math.sqrt(covariance[0, 0]),
        critical_batch=least / slope,
        critical_batch_error=math.sqrt(float(gradient @ covariance @ gradient)),
        residuals=tuple(float(value) for value in samples / fitted - 1),
    )
