"""What a seed decides, and the mean of several seeds' metrics with its confidence interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lambert.errors import UserError

CONFIDENCE = 0.95
MOST_SEEDS = 10_000
_BISECTIONS = 200  # more than a float64 can resolve


def checked_seeds(seeds: int | Sequence[int]) -> Sequence[int]:
    """The seeds; a number stands for 0, 1, … Raises UserError unless each is a whole number from 0, and there once."""
    if isinstance(seeds, int):
        if not 1 <= seeds <= MOST_SEEDS:
            raise UserError(f"`seeds` = {seeds}", remedy=f"Give a whole number from 1 to {MOST_SEEDS:,}")
        seeds = range(seeds)
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise UserError(f"`seeds` = {list(seeds)}", remedy="Give at least one whole number from 0, each once")
    return seeds


def shuffled(count: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    """0 … count−1 in an order that `key` (whole numbers from 0) alone decides."""
    # NumPy promises that SeedSequence never changes its output; its generators' methods may.
    return np.argsort(np.random.SeedSequence(key).generate_state(count, np.uint64), kind="stable")


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Student's confidence interval of the mean over all seeds; None for a single value.

    mean ± t · s/√n, where s is the standard deviation (n − 1) and t the two-sided quantile for n − 1 degrees of
    freedom. It assumes that the values are normal. It does not cover other training data or another recipe.

    >>> low, high = mean_interval([10.0, 12.0, 14.0])
    >>> round(low, 2), round(high, 2)
    (7.03, 16.97)
    """
    if len(values) < 2:
        return None
    mean = statistics.fmean(values)
    half = student_quantile(confidence, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half


def student_quantile(confidence: float, freedom: int) -> float:
    """The t with P(|T| < t) = confidence, for Student's T with so many degrees of freedom."""
    # `scipy.stats.t.ppf` is one line, but scipy is an extra of 100 MB that `squad` and `sweep` do without.
    assert 0 < confidence < 1 and freedom >= 1
    low, high = 0.0, math.pi / 2
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if _probability_within(middle, freedom) < confidence else (low, middle)
    return math.tan(low) * math.sqrt(freedom)


def _probability_within(angle: float, freedom: int) -> float:
    """P(|T| < t) with angle = atan(t/√freedom); the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    if freedom == 1:
        return 2 * angle / math.pi
    term = cosine if odd else 1.0
    total = term
    for factor in range(2 + odd, freedom, 2):
        term *= cosine * cosine * (factor - 1) / factor
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
