"""Mean and confidence interval of a few seeds' figures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

CONFIDENCE = 0.95
_HALVINGS = 200  # more than a float64 can tell apart


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """The interval that holds the mean of all seeds with this confidence, after Student; None for a single value.

    mean ± t · s/√n, where s is the standard deviation (n − 1) and t the two-sided quantile for n − 1 degrees of
    freedom. It takes the seeds' figures for normal, and says nothing of other training data or another recipe.

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
    """The t with P(|T| < t) = confidence, for T of Student's distribution with so many degrees of freedom."""
    assert 0 < confidence < 1 and freedom >= 1
    low, high = 0.0, math.pi / 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)
    return math.tan(low) * math.sqrt(freedom)


def _within(angle: float, freedom: int) -> float:
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
