"""Means and intervals, and runs that diverged or failed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from lambert.experiments.grid import Trial
from lambert.experiments.table import Mean, Result, configurations_of, tuned_rates, write_table


def result(
    optimizer: str = "lamb", *, batch: int = 8, times: float = 1.0, seed: int = 0, loss: float = 5.0, **changed: object
) -> Result:
    trial = Trial(optimizer, (batch,), "sqrt", times, seed)
    facts = {
        "status": "finished", "batch_size": batch, "steps": 10, "seconds": 60.0, "accuracy": 0.1, "unigram_loss": 6.0,
        "peak_learning_rate": 0.01, "noise_scale": math.nan, "f1": math.nan, "exact_match": math.nan,
    }  # fmt: skip
    return Result(trial=trial, loss=loss, **{**facts, **changed})  # type: ignore[arg-type]


def test_the_interval_of_three_seeds_by_hand() -> None:
    """Student with two degrees of freedom: 4.303 · s / √3; s of 1, 2, 3 is 1."""
    mean = Mean.of([1.0, 2.0, 3.0])
    assert (mean.mean, mean.deviation, mean.seeds) == (2.0, 1.0, 3)
    assert mean.half_interval == pytest.approx(4.303 / math.sqrt(3), rel=1e-4)
    assert Mean.of([7.0]).half_interval == math.inf
    assert math.isnan(Mean.of([]).mean)
    assert Mean.of([0.0, 1.0] * 50).half_interval == pytest.approx(1.984 * 0.5025 / 10, rel=1e-3)


def test_runs_that_diverged_are_counted_and_not_averaged() -> None:
    (config,) = configurations_of(
        [result(seed=0), result(seed=1, status="diverged", loss=math.nan), result(seed=2, loss=6.5)]
    )
    assert config.loss.mean == pytest.approx(5.75)
    assert (config.diverged, config.failed, config.stuck, config.loss.seeds) == (1, 0, 1, 2)


def test_the_best_rate_is_the_lowest_mean_without_divergence() -> None:
    results = [
        result(times=0.5, loss=5.2), result(times=1.0, loss=5.1), result(times=2.0, loss=4.0),
        result(times=2.0, seed=1, status="diverged", loss=math.nan), result("adamw", loss=4.9),
    ]  # fmt: skip
    (tuned,) = tuned_rates(results, configurations_of(results))  # of AdamW there is one rate, so nothing is tuned
    assert (tuned.optimizer, tuned.multiplier, tuned.is_edge) == ("lamb", 1.0, False)
    assert tuned.multipliers == (0.5, 1.0, 2.0)
    assert tuned.rule_over_best == Mean(1.0, 0.0, math.inf, 1)


def test_the_best_rate_is_chosen_on_the_seeds_that_all_rates_have() -> None:
    """At twice the rate seed 0 is the better one, and the gain is paired over all seeds."""
    results = [result(times=4.0, loss=5.5), result(times=0.5, loss=5.8)]
    for times, losses in ((1.0, (5.2, 5.0, 5.1)), (2.0, (5.0, 5.5, 5.4))):
        results += [result(times=times, seed=seed, loss=loss) for seed, loss in enumerate(losses)]
    (tuned,) = tuned_rates(results, configurations_of(results))
    assert (tuned.multiplier, tuned.is_edge) == (2.0, False)
    ratios = [5.2 / 5.0, 5.0 / 5.5, 5.1 / 5.4]
    assert tuned.rule_over_best.mean == pytest.approx(sum(ratios) / 3)
    assert tuned.rule_over_best.seeds == 3


def test_the_table_is_json_without_words_that_json_lacks(tmp_path: Path) -> None:
    results = [result(loss=math.nan, status="diverged")]
    write_table(tmp_path / "table.json", results, configurations_of(results), [])
    read = json.loads((tmp_path / "table.json").read_text(), parse_constant=pytest.fail)
    assert read["trials"][0]["loss"] is None and read["configurations"][0]["loss"]["half_interval"] is None
    assert read["configurations"][0]["diverged"] == 1
