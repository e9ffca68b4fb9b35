"""Which of several plans for the same samples: the cheapest, the fastest, the best within a budget and a deadline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.planner.cluster import Cluster, read_cluster
from lambert.planner.fit import known_cluster
from lambert.planner.forecast import ClusterForecast, forecast, workload_of
from lambert.training.config.training_config import TrainingConfig

ALIKE = 1.1
"""Times and costs up to so many times the least count as equal."""


@dataclass(frozen=True)
class ClusterRequest:
    """What a user asks of a cluster."""

    name: str
    """Known, or a TOML file."""
    chips: tuple[int, ...]
    """Numbers of chips to compare."""
    price_per_chip_hour: float | None = None
    """Replaces the description's."""
    budget: float | None = None
    deadline_hours: float | None = None

    def open(self) -> Cluster:
        """The cluster, when all of the request makes sense.

        Raises:
            UserError: the cluster is unknown, or a number is impossible.
        """
        if not self.chips:
            remedy = "Give one or more numbers of them, such as `chips` 16 64"
            raise UserError("`cluster` without `chips`", remedy=remedy)
        if wrong := [chips for chips in self.chips if chips < 1]:
            raise UserError(f"`chips` {wrong[0]}", remedy="Give whole numbers from 1 on")
        numbers = {
            "`price_per_chip_hour`": self.price_per_chip_hour, "`budget`": self.budget, "`hours`": self.deadline_hours
        }  # fmt: skip
        for option, value in numbers.items():
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{option} {value}", remedy="Give a number above 0")
        path = Path(self.name)
        cluster = read_cluster(path) if path.suffix == ".toml" or path.is_file() else known_cluster(self.name)
        if self.price_per_chip_hour is not None:
            cluster = replace(cluster, price_per_chip_hour=self.price_per_chip_hour)
        if self.budget is not None and cluster.price_per_chip_hour == 0:
            raise UserError("`budget` without a price", remedy="Give `price_per_chip_hour` in the same currency")
        return cluster


@dataclass(frozen=True)
class Option:
    """One batch size on one number of chips."""

    batch_sizes: tuple[int, ...]
    """Of each phase."""
    steps: int
    forecast: ClusterForecast

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON (docs/json.md)."""
        return {"batch_sizes": self.batch_sizes, "steps": self.steps, **self.forecast.to_dict()}


@dataclass(frozen=True)
class Choice:
    """What to take."""

    cheapest: Option
    """By chip-hours, which is by cost at any price; of those that cost about as much, the one with most steps."""
    fastest: Option
    """Of those about as fast, the one with most steps."""
    within: Option | None
    """Within budget and deadline: the fastest that a budget alone allows, the cheapest where there is a deadline. None
    where neither was given, or nothing is within."""
    is_safe: bool
    """`within` stays within even if the prediction is as far too low as it was at worst."""


@dataclass(frozen=True)
class Comparison:
    """Every plan on every number of chips."""

    options: tuple[Option, ...]
    """By batch sizes, then chips."""
    choice: Choice | None
    """None where every option has too few steps."""
    problems: tuple[str, ...]
    """Why other combinations are left out."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON (docs/json.md); what is chosen as an index into `options`."""
        chosen: dict[str, Any] = dict.fromkeys(("cheapest", "fastest", "within", "within_is_safe"))
        for name in ("cheapest", "fastest", "within"):
            option = getattr(self.choice, name, None)
            chosen[name] = None if option is None else self.options.index(option)
        if self.choice is not None and self.choice.within is not None:
            chosen["within_is_safe"] = self.choice.is_safe
        return {"options": [option.to_dict() for option in self.options], **chosen}


def compare_plans(
    cluster: Cluster, plans: Sequence[TrainingConfig], request: ClusterRequest, *, min_steps: int
) -> Comparison:
    """Every plan on every number of chips, and which to take; see `choose`."""
    options, problems = [], []
    for config in plans:
        workload = workload_of(config)
        sizes = tuple(phase.batch_size for phase in config.phases)
        for chips in request.chips:
            try:
                options.append(Option(sizes, workload.step_count, forecast(cluster, workload, chips)))
            except UserError as error:
                problems.append(error.what)
    options.sort(key=lambda option: (option.batch_sizes, option.forecast.chips))
    choice = choose(options, min_steps=min_steps, budget=request.budget, deadline_hours=request.deadline_hours)
    return Comparison(tuple(options), choice, tuple(dict.fromkeys(problems)))


def choose(
    options: Sequence[Option], *, min_steps: int, budget: float | None = None, deadline_hours: float | None = None
) -> Choice | None:
    """Options of fewer than `min_steps` steps are not considered; None if there is no other.

    A budget needs a price in every forecast.
    """
    assert budget is None or all(option.forecast.cost is not None for option in options)
    enough = [option for option in options if option.steps >= min_steps]
    if not enough:
        return None
    cheapest, fastest = _least(enough, "chip_hours", "hours"), _least(enough, "hours", "chip_hours")
    if budget is None and deadline_hours is None:
        return Choice(cheapest, fastest, None, is_safe=False)
    for is_safe in (True, False):
        within = [option for option in enough if _is_within(option.forecast, budget, deadline_hours, is_safe=is_safe)]
        if within:
            measures = ("hours", "chip_hours") if deadline_hours is None else ("chip_hours", "hours")
            return Choice(cheapest, fastest, _least(within, *measures), is_safe=is_safe)
    return Choice(cheapest, fastest, None, is_safe=False)


def _least(options: Sequence[Option], first: str, second: str) -> Option:
    """The option that takes least; of those that take at most a tenth more, the one with most steps. A smaller batch
    learns at least as much from the same samples, and predictions are not exact to a tenth.
    """
    least = min(getattr(option.forecast, first) for option in options)
    alike = [option for option in options if getattr(option.forecast, first) <= ALIKE * least]
    return min(
        alike, key=lambda option: (-option.steps, getattr(option.forecast, first), getattr(option.forecast, second))
    )


def _is_within(forecast: ClusterForecast, budget: float | None, deadline_hours: float | None, *, is_safe: bool) -> bool:
    longest = forecast.hours_range[1] if is_safe and forecast.hours_range else forecast.hours
    if is_safe and forecast.hours_range is None:
        return False  # the error is unknown
    cost = longest / forecast.hours * (forecast.cost or 0.0)
    return (budget is None or cost <= budget) and (deadline_hours is None or longest <= deadline_hours)
