"""Smoothing, the limits of axes, and numbers as text."""

from __future__ import annotations

import numpy as np
import pytest

from lambert.report.columns import smooth, windows, y_limits
from lambert.utils import formatting


def test_smoothing_is_the_mean_of_the_window_and_stays_in_its_phase() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 100.0, 200.0, 300.0])
    smoothed = smooth(values, 3, np.array([1, 1, 1, 1, 1, 2, 2, 2]))
    np.testing.assert_allclose(smoothed, [1, 2, 3, 4, 4.5, 100, 200, 250])


def test_smoothing_leaves_gaps_as_gaps() -> None:
    smoothed = smooth(np.array([1.0, np.nan, 3.0]), 3, np.ones(3))
    np.testing.assert_allclose(smoothed, [1.0, np.nan, 3.0])


def test_smoothing_takes_the_noise_out_but_not_the_trend() -> None:
    steps = np.arange(6_000)
    trend = 6 + 4 * np.exp(-steps / 800)
    noisy = trend + np.random.default_rng(0).normal(0, 0.1, len(steps))
    smoothed = smooth(noisy, windows(len(steps))[1], np.ones(len(steps)))
    assert np.abs(noisy - trend).mean() > 0.07
    assert np.abs(smoothed - trend).mean() < 0.02


@pytest.mark.parametrize(("steps", "window"), [(1, 1), (59, 1), (60, 3), (600, 15), (100_000, 2_501)])
def test_windows_are_odd_and_short_runs_are_not_smoothed(steps: int, window: int) -> None:
    assert windows(steps)[1] == window


def test_one_spike_does_not_flatten_the_curve() -> None:
    loss = np.linspace(10, 6, 500)
    loss[250] = 4_000
    low, high, cut = y_limits([loss], [7.0], from_zero=False)
    assert cut and high < 15 and low < 6
    assert not y_limits([np.linspace(10, 6, 500)], [7.0], from_zero=False)[2]


def test_limits_without_any_number_are_still_limits() -> None:
    assert y_limits([np.array([np.nan])], [], from_zero=False) == (0.0, 1.0, False)
    low, high, _ = y_limits([np.array([5.0])], [], from_zero=False)
    assert low < 5 < high


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formatting.number(0.025516), "0.0255"),
        (formatting.number(4.4e-4), "4.4e-4"),
        (formatting.number(39_712.4), "39,712"),
        (formatting.number(6.9), "6.90"),
        (formatting.number(0.005), "0.005"),
        (formatting.number(None), "–"),
        (formatting.number(float("nan")), "NaN"),
        (formatting.duration(0.83), "0.8 s"),
        (formatting.duration(59.7), "1 min"),
        (formatting.duration(192), "3 min 12 s"),
        (formatting.duration(7_500), "2 h 5 min"),
        (formatting.duration(97_200), "1 d 3 h"),
        (formatting.size(17_512_000), "17.5 MB"),
        (formatting.size(999), "999 bytes"),
        (formatting.size(999_990), "1.0 MB"),
        (formatting.percent(0.1371), "13.7 %"),
        (formatting.large(4_386_178), "4.39 million"),
        (formatting.count(32_768), "32,768"),
    ],
)
def test_numbers_as_text(text: str, expected: str) -> None:
    assert text == expected
