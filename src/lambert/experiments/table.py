"""Results of a sweep: one row for each configuration, with means over its seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.experiments.grid import Trial
from lambert.finetune.seeds import mean_interval
from lambert.runlog.reader import Run, read_run
from lambert.utils.io import SETTINGS_BYTES, read_json, write_json


@dataclass(frozen=True)
class Mean:
    """Mean of a metric over seeds."""

    mean: float
    deviation: float
    """Between seeds; 0 for one."""
    half_interval: float
    """Half of the 95 % confidence interval of the mean (Student); infinite for one seed."""
    seeds: int

    @staticmethod
    def of(values: Sequence[float]) -> Mean:
        """Mean of one value for each seed; NaN without values."""
        count = len(values)
        if count == 0:
            return Mean(math.nan, math.nan, math.inf, 0)
        mean = math.fsum(values) / count
        if count == 1:
            return Mean(mean, 0.0, math.inf, 1)
        interval = mean_interval(values)
        assert interval is not None
        return Mean(mean, statistics.stdev(values), (interval[1] - interval[0]) / 2, count)


@dataclass(frozen=True)
class Result:
    """Result of one trial."""

    trial: Trial
    status: str
    batch_size: int
    """Of the first phase; 0 if that never started."""
    steps: int
    seconds: float
    loss: float
    """Final MLM loss on the validation set; NaN if the run diverged."""
    accuracy: float
    unigram_loss: float
    """Of the unigram baseline."""
    peak_learning_rate: float
    noise_scale: float
    """At the end of the first phase, in sequences; NaN if not measured."""
    f1: float
    exact_match: float


@dataclass(frozen=True)
class Configuration:
    """All seeds of one configuration."""

    name: str
    optimizer: str
    batch: str
    batch_size: int
    """Of the first phase."""
    recipe: str
    multiplier: float
    peak_learning_rate: float
    steps: int
    loss: Mean
    accuracy: Mean
    f1: Mean
    seconds: Mean
    noise_scale: Mean
    """Gradient noise scale at the end of the first phase, in sequences, if measured."""
    diverged: int
    """Seeds whose loss became NaN/Inf; excluded from the means, but counted here."""
    failed: int
    stuck: int
    """Seeds that ended no better than the unigram baseline."""


def result_of(trial: Trial, run: Path, status: str) -> Result:
    """Read a trial's result from its run folder.

    Raises:
        UserError: the folder cannot be read.
    """
    read = read_run(run)
    final = read.final
    squad = _squad(run)
    noise = read.last_noise(1)
    learned = status == "finished" and final is not None
    return Result(
        trial,
        status,
        read.phases[0].batch_size if read.phases else 0,
        int(read.steps[-1]),
        read.training_seconds,
        final.mlm_loss if learned and final is not None else math.nan,
        final.mlm_accuracy if learned and final is not None else math.nan,
        final.unigram_loss if final is not None else math.nan,
        _peak(read),
        noise.noise_scale if noise is not None else math.nan,
        float(squad.get("f1", math.nan)),
        float(squad.get("exact_match", math.nan)),
    )


def configurations_of(results: Sequence[Result]) -> list[Configuration]:
    """One row for each configuration, sorted by optimizer, batch size, recipe and multiplier."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.trial.configuration, []).append(result)
    configurations = []
    for name, own in groups.items():
        done = [result for result in own if result.status == "finished"]
        first = own[0]
        configurations.append(
            Configuration(
                name,
                first.trial.optimizer,
                first.trial.batch,
                max(result.batch_size for result in own),
                first.trial.recipe,
                first.trial.multiplier,
                first.peak_learning_rate,
                max(result.steps for result in own),
                Mean.of([result.loss for result in done]),
                Mean.of([result.accuracy for result in done]),
                Mean.of([result.f1 for result in done if not math.isnan(result.f1)]),
                Mean.of([result.seconds for result in done]),
                Mean.of([result.noise_scale for result in done if not math.isnan(result.noise_scale)]),
                sum(result.status == "diverged" for result in own),
                sum(result.status == "failed" for result in own),
                sum(result.loss >= result.unigram_loss for result in done),
            )
        )
    return sorted(configurations, key=lambda one: (one.optimizer, one.batch_size, one.recipe, one.multiplier))


@dataclass(frozen=True)
class Tuned:
    """The best learning rate for one optimizer, batch and recipe, compared with the rule's."""

    optimizer: str
    batch: str
    recipe: str
    multiplier: float
    """Best learning rate divided by the rule's."""
    multipliers: tuple[float, ...]
    """All multipliers tried, sorted, including those at which a seed diverged."""
    rule_over_best: Mean
    """Loss at the rule's rate divided by loss at the best rate, paired by seed."""

    @property
    def is_edge(self) -> bool:
        """Whether the best rate is the lowest or highest tried."""
        return self.multiplier in (self.multipliers[0], self.multipliers[-1])


def tuned_rates(results: Sequence[Result], configurations: Sequence[Configuration]) -> list[Tuned]:
    """The best learning rate of each optimizer, batch and recipe that has several.

    The best rate has the lowest mean loss over the seeds that all rates share. Rates at which a seed diverged are
    excluded. So one lucky seed cannot beat the mean of three.
    """
    losses = {
        (result.trial.configuration, result.trial.seed): result.loss
        for result in results
        if result.status == "finished"
    }
    groups: dict[tuple[str, str, str], list[tuple[Configuration, dict[int, float]]]] = {}
    for config in configurations:
        own = {seed: loss for (name, seed), loss in losses.items() if name == config.name}
        if own and not config.diverged:
            groups.setdefault((config.optimizer, config.batch, config.recipe), []).append((config, own))
    tuned = []
    for key, rates in groups.items():
        if len(rates) < 2:
            continue
        shared = set.intersection(*({*own} for _, own in rates)) or {seed for _, own in rates for seed in own}

        def mean(own: dict[int, float], shared: set[int] = shared) -> float:
            return statistics.fmean(own[seed] for seed in own if seed in shared)

        best, best_losses = min(rates, key=lambda rate: mean(rate[1]))
        rule = next((own for config, own in rates if math.isclose(config.multiplier, 1)), {})
        ratios = [rule[seed] / best_losses[seed] for seed in sorted(rule) if seed in best_losses]
        multipliers = tuple(
            sorted(
                config.multiplier for config in configurations if (config.optimizer, config.batch, config.recipe) == key
            )
        )
        tuned.append(Tuned(*key, best.multiplier, multipliers, Mean.of(ratios)))
    return tuned


def write_table(
    path: Path, results: Sequence[Result], configurations: Sequence[Configuration], tuned: Sequence[Tuned]
) -> dict[str, Any]:
    """Write the table as JSON, atomically, with NaN as null; returns its contents."""
    facts = _plain({
        "trials": [asdict(result) for result in results],
        "configurations": [asdict(config) for config in configurations],
        "tuned": [asdict(one) | {"is_edge": one.is_edge} for one in tuned],
    })  # fmt: skip
    write_json(path, facts)
    return dict(facts)


def _squad(run: Path) -> dict[str, Any]:
    path = run / "squad" / "squad.json"
    try:
        found = read_json(path, SETTINGS_BYTES)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}", remedy="Delete it and run the sweep again") from None
    return found if isinstance(found, dict) else {}


def _peak(run: Run) -> float:
    return run.phases[0].peak_learning_rate if run.phases else math.nan


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
