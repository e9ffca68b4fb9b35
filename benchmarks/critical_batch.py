"""The critical batch size, fitted to measured samples; and MLPerf's reference runs of BERT-Large to fit it to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BENCHMARK_SAMPLES = {256: 2.55e6, 1_536: 2.78e6, 4_096: 2.84e6, 8_192: 4.19e6, 16_384: 5.50e6}
"""Batch → mean samples of MLPerf's reference runs of BERT-Large to MLM accuracy .72, from a given checkpoint,
at 512 tokens; LAMB with betas of its own at each batch (mlcommons/logging, training_5.0.0/rcps_bert.json)."""


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
