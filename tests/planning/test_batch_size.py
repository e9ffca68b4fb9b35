"""The trade of samples against steps: by hand, at its ends, and as far as a noise scale is known."""

from __future__ import annotations

import importlib
import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from lambert.errors import UserError
from lambert.planning.batch_size import (
    Scale,
    largest_that_pays,
    noise_scale,
    samples_factor,
    table,
)

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
critical_batch = importlib.import_module("critical_batch")
fit = critical_batch.fit


def test_at_the_noise_scale_twice_the_samples_make_twice_the_steps() -> None:
    """By hand, for a noise scale of 1,000: E = E_min (1 + B / 1,000) is 2 at 1,000, 3 at 2,000 and 1.25 at 250."""
    assert samples_factor(2_000, 1_000, 1_000) == pytest.approx(1.5)
    assert samples_factor(250, 1_000, 1_000) == pytest.approx(0.625)
    rows = {row.batch_size: row for row in table(1_000, Scale(1_000, 1_000, 1_000))}
    assert rows[1_000].samples_factor.value == rows[1_000].steps_factor.value == 1
    assert rows[2_048].samples_factor.value == pytest.approx(3.048 / 2)
    assert rows[2_048].steps_factor.value == pytest.approx(3.048 / 2 * 1_000 / 2_048)
    assert list(rows) == [64, 128, 256, 512, 1_000, 1_024, 2_048, 4_096, 8_192]


def test_every_row_lies_on_the_published_curve() -> None:
    """(S / S_min − 1)(E / E_min − 1) = 1 with E_min / S_min = B_crit, the ends from batches that are out of range."""
    critical, own = 700.0, 256
    least_samples = samples_factor(1e-9, own, critical)
    least_steps = samples_factor(1e12, own, critical) * own / 1e12
    assert least_samples * own / least_steps == pytest.approx(critical, rel=1e-6)
    for row in table(own, Scale(critical, critical, critical)):
        left = row.steps_factor.value / least_steps - 1, row.samples_factor.value / least_samples - 1
        assert left[0] * left[1] == pytest.approx(1, rel=1e-6)


def test_doubling_pays_up_to_the_noise_scale() -> None:
    """There it costs half as many samples again and saves a quarter of the steps, by hand 1 + 1/2 and 3/4."""
    scale = Scale(1_000, 1_000, 1_000)
    pays = {row.batch_size: row.doubling_pays for size in (1_000, 1_001) for row in table(size, scale)}
    assert pays[1_000] and not pays[1_001]
    assert samples_factor(2_000, 1_000, 1_000) == 1.5
    limits = [largest_that_pays(scale) for scale in (0.5, 1, 1_023, 1_024, 1_025, math.inf)]
    assert limits == [1, 2, 1_024, 2_048, 2_048, None]
    # The mark is where the rows say it is: the first from which doubling pays no more.
    rows = table(256, Scale(1_000, 1_000, 1_000))
    assert next(row.batch_size for row in rows if not row.doubling_pays) == largest_that_pays(1_000) == 1_024


def test_the_uncertainty_is_carried_through() -> None:
    """Standard error a quarter: the inverse within half of itself, so 1,000 / 1.5 to 1,000 / .5."""
    scale = noise_scale(1_000, 250, steps=100)
    assert (scale.value, scale.low, scale.high) == (1_000, pytest.approx(1_000 / 1.5), pytest.approx(2_000))
    for row in table(256, scale):
        ends = sorted(samples_factor(row.batch_size, 256, limit) for limit in (scale.low, scale.high))
        assert [row.samples_factor.low, row.samples_factor.high] == pytest.approx(ends)
        assert row.steps_factor.low <= row.steps_factor.value <= row.steps_factor.high
    unbounded = noise_scale(1_000, 500, steps=100)
    assert unbounded.high == math.inf and largest_that_pays(unbounded.high) is None
    # Where there is no noise scale that large, samples do not grow with the batch.
    assert table(256, unbounded)[-1].samples_factor.low == 1


@pytest.mark.parametrize(
    ("value", "error", "steps", "told"),
    [
        (1_000.0, 10.0, 29, "29 measured steps, and 30 are the least"),
        (None, None, 100, "not come out above its noise.*400"),
        (math.nan, math.nan, 100, "not come out above its noise"),
        (-5.0, 1.0, 100, "not come out above its noise"),
        (1_000.0, 800.0, 100, r"error is 80 % of it.* 1,600 steps \(20 %\)"),
        (1_000.0, None, 100, "more than 100 %.* 2,500 steps"),
        (1_000.0, math.nan, 100, "more than 100 %"),
    ],
)
def test_what_is_not_known_well_enough_is_refused(value: float, error: float, steps: int, told: str) -> None:
    """100 steps with an error of 80 % need (80 / 20)² times as many for 20 %."""
    with pytest.raises(UserError, match=told):
        noise_scale(value, error, steps=steps)


def test_tables_stay_short() -> None:
    for batch_size, scale in itertools.product((1, 7, 10**9), (0.1, 1e3, 1e15)):
        rows = table(batch_size, Scale(scale, scale, scale))
        assert batch_size in [row.batch_size for row in rows] and len(rows) <= 26
        assert all(math.isfinite(row.steps_factor.value) for row in rows)


def test_a_fit_finds_what_points_were_made_from() -> None:
    found = fit([(batch, 2e6 * (1 + batch / 5_000)) for batch in (256, 1_024, 4_096, 16_384)])
    assert found.least_samples == pytest.approx(2e6) and found.critical_batch == pytest.approx(5_000)
    assert max(map(abs, found.residuals)) < 1e-9 and found.critical_batch_error < 1e-3


def test_the_errors_of_a_fit_tell_how_far_off_it_is() -> None:
    """Over many draws of points with errors of 5 %, the estimates scatter as they say."""
    random, batches = np.random.default_rng(0), np.array([256, 1_024, 4_096, 8_192, 16_384, 32_768])
    fits = []
    for _ in range(300):
        samples = 2e6 * (1 + batches / 5_000) * (1 + 0.05 * random.normal(size=len(batches)))
        fits.append(fit(list(zip(batches.tolist(), samples.tolist(), strict=True))))
    for name in ("least_samples", "critical_batch"):
        scatter = float(np.std([getattr(found, name) for found in fits]))
        told = float(np.mean([getattr(found, f"{name}_error") for found in fits]))
        assert told == pytest.approx(scatter, rel=0.2), name


def test_the_benchmarks_runs() -> None:
    """Beside the normal equations written out: of weights 1 / E, with u = Σ 1/E², v = Σ B/E² and so on."""
    points = list(critical_batch.BENCHMARK_SAMPLES.items())
    found = fit(points)
    u, v, w = (sum(b**power / e**2 for b, e in points) for power in (0, 1, 2))
    p, q = sum(1 / e for _, e in points), sum(b / e for b, e in points)
    slope = (u * q - v * p) / (u * w - v * v)
    least = (p - v * slope) / u
    assert found.least_samples == pytest.approx(least) and found.critical_batch == pytest.approx(least / slope)
    assert (round(found.least_samples, -4), round(found.critical_batch, -2)) == (2_410_000, 13_000)
    assert [round(100 * residual) for residual in found.residuals] == [4, 3, -10, 7, 1]


@pytest.mark.parametrize("points", [[(1, 1.0), (2, 2.0)], [(1, 3.0), (2, 2.0), (4, 1.0)]])
def test_what_cannot_be_fitted_is_refused(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="points|do not grow"):
        fit(points)
