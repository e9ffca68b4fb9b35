"""Smoothing and thinning of step series. A curve of 100,000 points is drawn from about a thousand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_WINDOWS_PER_RUN = 40  # a smoothed line keeps about this many independent points
_LEAST_STEPS_TO_SMOOTH = 60


def window_steps(steps: int) -> int:
    """Steps averaged for one point of a smoothed line: odd, and 1 (no smoothing) for short runs."""
    if steps < _LEAST_STEPS_TO_SMOOTH:
        return 1
    return max(3, steps // _WINDOWS_PER_RUN) // 2 * 2 + 1


def smooth(values: Floats, window: int, groups: NDArray[np.generic]) -> Floats:
    """Centred moving average of values [n] that never reaches across groups [n] (phases).

    At the start of a group, where a loss falls fast, the window shrinks on both sides, so that the line
    starts where the data starts; at the end, where it is flat, only the missing half is left out. NaNs are
    left out of the averages and stay NaN themselves: a gap in the data is a gap in the line.
    """
    smoothed = np.full(len(values), np.nan)
    for start, stop in group_bounds(groups):
        smoothed[start:stop] = _smooth_one(values[start:stop], window)
    return smoothed


def _smooth_one(values: Floats, window: int) -> Floats:
    n = len(values)
    place = np.arange(n)
    reach = np.minimum(window // 2, place)
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    low, high = place - reach, np.minimum(place + reach + 1, n)
    totals, numbers = sums[high] - sums[low], counts[high] - counts[low]
    return np.where(finite, totals / np.maximum(numbers, 1), np.nan)


def group_bounds(groups: NDArray[np.generic]) -> list[tuple[int, int]]:
    """(start, stop) of every stretch of equal neighbours; NaNs form one stretch."""
    if not len(groups):
        return []
    same = (groups[1:] == groups[:-1]) | ((groups[1:] != groups[1:]) & (groups[:-1] != groups[:-1]))
    edges = [0, *(np.flatnonzero(~same) + 1).tolist(), len(groups)]
    return list(pairwise(edges))


def thin(x: Floats, y: Floats, most_points: int) -> tuple[Floats, Floats]:
    """At most about `most_points` points that still show every peak: lowest and highest y of each bucket.

    A NaN survives where its whole bucket is NaN, so that a long gap stays a gap.
    """
    n = len(x)
    if n <= most_points:
        return x, y
    edges = np.linspace(0, n, max(most_points // 2, 1) + 1).astype(np.int64)
    kept: list[int] = [0, n - 1]
    for start, stop in pairwise(edges.tolist()):
        bucket = y[start:stop]
        if np.isfinite(bucket).any():
            kept += [start + int(np.nanargmin(bucket)), start + int(np.nanargmax(bucket))]
        elif stop > start:
            kept.append(start)
    places = np.unique(kept)
    return x[places], y[places]


def pick(x: Floats, y: Floats, most_points: int) -> tuple[Floats, Floats]:
    """At most `most_points` evenly spaced points, for lines that are smooth already."""
    if len(x) <= most_points:
        return x, y
    places = np.unique(np.linspace(0, len(x) - 1, most_points).round().astype(np.int64))
    return x[places], y[places]


def y_limits(series: list[Floats], references: list[float], *, from_zero: bool) -> tuple[float, float, bool]:
    """Lowest and highest y to show, and whether rare spikes reach beyond.

    A divergence of a thousandfold would flatten all that led to it; so the top is cut where the highest
    point is far above nearly all others. References and first points always fit.
    """
    finite = [values[np.isfinite(values)] for values in series]
    together = np.concatenate([*finite, np.array(references)]) if finite or references else np.array([])
    if not len(together):
        return 0.0, 1.0, False
    low, high = float(together.min()), float(together.max())
    wanted = max([*references, *(float(values[0]) for values in finite if len(values))])
    usual = max(float(np.quantile(together, 0.98)), wanted)
    spread = usual - (0.0 if from_zero else low)
    cut = high > usual + 1.5 * spread and spread > 0
    high = usual + 0.15 * spread if cut else high
    low = min(low, 0.0) if from_zero else low
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return (low if from_zero else low - margin), high + margin, cut
