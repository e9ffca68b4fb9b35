"""Runs on clusters: hours, scaling, micro-batches and cost by hand, for any number of phases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lambert.errors import UserError
from lambert.planner.cluster import Cluster
from lambert.planner.forecast import (
    ClusterForecast,
    PhaseWorkload,
    Workload,
    forecast,
    micro_batch_size,
    strong_scaling,
    weak_scaling,
)
from lambert.planner.step_time import Gradient

# A step: half a second, and a second for each sequence of a chip; nothing to send.
PLAIN = Cluster("plain", 64, 16e9, 1e12, 0.5, "ring", 1e12, 0.0)
GRADIENT = Gradient(1_000_000, 1)


def phase(batch_size: int, steps: int, length: int = 128, gigabytes: float = 1.0) -> PhaseWorkload:
    return PhaseWorkload(length, batch_size, steps, 1e12, lambda size: gigabytes * 1e9 * size)


ONE = Workload((phase(32, 10),), Gradient(0, 0))


def test_a_run_by_hand() -> None:
    """8 chips, 4 sequences each: 10 steps of 4.5 s."""
    found = forecast(replace(PLAIN, price_per_chip_hour=2.0), ONE, 8)
    assert found.seconds == pytest.approx(45) and found.hours == pytest.approx(45 / 3_600)
    assert found.chip_hours == pytest.approx(0.1) and found.cost == pytest.approx(0.2)
    assert found.time_fractions["compute"] == pytest.approx(40 / 45)
    assert sum(found.time_fractions.values()) == pytest.approx(1)
    assert forecast(PLAIN, ONE, 8).cost is None


def test_the_chip_with_most_decides() -> None:
    """32 sequences on 7 chips: one of them has 5."""
    assert forecast(PLAIN, ONE, 7).phases[0].sequences_per_chip == 5
    assert forecast(PLAIN, ONE, 7).seconds == pytest.approx(10 * 5.5)


def test_any_number_of_phases() -> None:
    for count in (1, 2, 3):
        work = Workload(tuple(phase(32, 10 * (place + 1)) for place in range(count)), Gradient(0, 0))
        found = forecast(PLAIN, work, 8)
        assert len(found.phases) == count
        assert found.seconds == pytest.approx(4.5 * 10 * count * (count + 1) / 2)
        assert work.step_count == 5 * count * (count + 1)


def test_strong_and_weak_scaling_by_hand() -> None:
    """1 chip: 32.5 s a step; 8 chips 4.5 s. A batch that grows with the chips: 10/8 steps of 32.5 s."""
    base, other = forecast(PLAIN, ONE, 1), forecast(PLAIN, ONE, 8)
    assert strong_scaling(base, other) == pytest.approx(32.5 / (8 * 4.5))
    assert weak_scaling(PLAIN, ONE, base, 8) == pytest.approx(1)
    slow = replace(PLAIN, latency_seconds=0.1)
    work = replace(ONE, gradient=Gradient(0, 1))
    base = forecast(slow, work, 1)
    assert weak_scaling(slow, work, base, 8) == pytest.approx(32.5 / (32.5 + 1.4))  # 14 hops


def test_weak_scaling_to_numbers_that_divide_nothing() -> None:
    work = Workload((phase(49, 10),), Gradient(0, 0))
    for chips in range(1, 50):
        assert weak_scaling(PLAIN, work, forecast(PLAIN, work, 49), chips) == pytest.approx(1)
    work = Workload((phase(15, 10),), Gradient(0, 0))  # 15 · (25 / 3) / 25 is a rounding more than 5
    assert weak_scaling(PLAIN, work, forecast(PLAIN, work, 3), 25) == pytest.approx(1)


def test_a_micro_batch_is_halved_until_it_fits() -> None:
    """16 GB, nine tenths of them: 14 of 1 GB each; 32 → 16 → 8."""
    assert micro_batch_size(PLAIN, GRADIENT, phase(32, 1), 1) == 8
    assert micro_batch_size(PLAIN, GRADIENT, phase(33, 1), 1) == 9  # of 33, four micro-batches and no fifth
    assert micro_batch_size(PLAIN, GRADIENT, phase(32, 1, gigabytes=0.1), 1) == 32
    overhead = replace(PLAIN, micro_batch_seconds=0.25)
    assert forecast(overhead, ONE, 1).phases[0].step.micro_batches == pytest.approx(4 * 0.25)


def test_a_sharded_optimizer_leaves_room() -> None:
    """A milliard parameters have 8 GB of moments, of which 8 chips keep a gigabyte each: 7 GB less to hold."""
    sharded, gradient = replace(PLAIN, optimizer_state="sharded"), Gradient(10**9, 1)
    assert micro_batch_size(PLAIN, gradient, phase(256, 1), 8) == 8
    assert micro_batch_size(sharded, gradient, phase(160, 1), 8) == 20  # 20 GB less 7 are under 14.4
    assert micro_batch_size(PLAIN, gradient, phase(160, 1), 8) == 10


def test_the_range_of_true_hours() -> None:
    """Errors are of the prediction over the truth."""
    one = ClusterForecast(1, forecast(PLAIN, ONE, 8).phases, 0.0, 0.25)
    assert one.hours_range == pytest.approx((one.hours / 1.25, one.hours / 0.75))
    narrow = replace(one, slower_by=2.0)
    assert narrow.hours_range == pytest.approx((one.hours / 1.25, 2 * one.hours / 0.75))
    assert forecast(PLAIN, ONE, 8).hours_range is None  # nobody knows
    assert forecast(replace(PLAIN, relative_error=0.25), replace(ONE, slower_by=2.0), 8).hours_range == pytest.approx(
        narrow.hours_range
    )


@pytest.mark.parametrize(
    ("chips", "gigabytes", "told"),
    [
        (0, 1.0, "0 chips for a batch of 32"),
        (33, 1.0, "33 chips for a batch of 32"),
        (32, 15.0, "one sequence of 128 tokens needs 15.0 GB, a chip of plain has 16.0 GB"),
    ],
)
def test_what_cannot_be_is_refused(chips: int, gigabytes: float, told: str) -> None:
    with pytest.raises(UserError, match=told):
        forecast(PLAIN, Workload((phase(32, 1, gigabytes=gigabytes),), GRADIENT), chips)
