"""The noise scale on a problem whose noise and signal are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lambert.optim import GradientNoise

PARAMETERS, SMALL, PARTS = 50, 4, 8
LARGE = SMALL * PARTS


def gathered(steps: int, draw: int = 0) -> tuple[GradientNoise, float, float]:
    """Every sequence's gradient is a fixed vector and a normal deviate, different for each parameter."""
    random = np.random.default_rng(0)
    gradient = random.normal(size=PARAMETERS) * 0.3
    deviations = random.uniform(0.5, 2.0, PARAMETERS)
    random = np.random.default_rng(draw + 1)
    noise = GradientNoise()
    for _ in range(steps):
        parts = gradient + deviations * random.normal(size=(PARTS, PARAMETERS)) / math.sqrt(SMALL)
        whole = parts.mean(0)
        noise.add([float(part @ part) for part in parts], float(whole @ whole), small_batch=SMALL, large_batch=LARGE)
    return noise, float((deviations**2).sum()), float(gradient @ gradient)


def test_recovers_known_noise_and_signal() -> None:
    noise, variance, square = gathered(4_000)
    estimate = noise.estimate()
    assert estimate.noise == pytest.approx(variance, rel=0.01)
    assert estimate.signal == pytest.approx(square, rel=0.03)
    assert estimate.noise_scale == pytest.approx(variance / square, rel=0.03)
    assert estimate.steps == 4_000


def test_its_error_tells_how_far_off_it_is() -> None:
    """Over many repetitions the estimates scatter as the standard error says."""
    estimates = []
    for draw in range(60):
        noise, variance, square = gathered(200, draw)
        estimates.append(noise.estimate())
    truth = variance / square
    scatter = float(np.std([estimate.noise_scale for estimate in estimates]))
    told = float(np.mean([estimate.standard_error for estimate in estimates]))
    assert told == pytest.approx(scatter, rel=0.35)
    assert abs(np.mean([estimate.noise_scale for estimate in estimates]) - truth) < 3 * scatter / math.sqrt(60)


def test_too_little_to_go_by_is_told() -> None:
    noise = GradientNoise()
    with pytest.raises(ValueError, match="no step"):
        noise.estimate()
    noise.add([1.0], 0.1, small_batch=1, large_batch=2)  # the parts are all noise: the signal comes out negative
    estimate = noise.estimate()
    assert estimate.signal < 0 and estimate.noise_scale == estimate.standard_error == math.inf


@pytest.mark.parametrize(("parts", "small", "large"), [([], 1, 2), ([1.0], 2, 2), ([1.0], 0, 2)])
def test_one_batch_size_is_not_enough(parts: list[float], small: int, large: int) -> None:
    with pytest.raises(ValueError, match="two batch sizes"):
        GradientNoise().add(parts, 1.0, small_batch=small, large_batch=large)
