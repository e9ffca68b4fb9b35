"""Which of several plans for the same samples: the cheapest, the fastest, the best within a budget and a deadline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lambert.planner.forecast import Forecast

ALIKE = 1.1
"""Times and costs up to so many times the least count as alike."""


@dataclass(frozen=True)
class Option:
    """One batch size on one number of chips."""

    batch_sizes: tuple[int, ...]
    """Of each phase."""
    steps: int
    forecast: Forecast


@dataclass(frozen=True)
class Choice:
    """What to take."""

    cheapest: Option
    """By chip-hours, which is by cost at any price; of those that cost about as much, the one with most steps."""
    fastest: Option
    """Of those about as fast, the one with most steps."""
    within: Option | None
    """Within budget and deadline: the fastest that a budget alone allows, the cheapest where there is a deadline. None
    where nothing was asked, or nothing is within."""
    is_safe: bool
    """`within` stays within even if the prediction is as far too low as it was at worst."""


def choose(
    options: Sequence[Option], *, least_steps: int, budget: float | None = None, deadline_hours: float | None = None
) -> Choice | None:
    """Options that take fewer than `least_steps` steps are not looked at; None if there is no other.

    A budget needs a price in every forecast.
    """
    assert budget is None or all(option.forecast.cost is not None for option in options)
    enough = [option for option in options if option.steps >= least_steps]
    if not enough:
        return None
    cheapest, fastest = _least(enough, "chip_hours", "hours"), _least(enough, "hours", "chip_hours")
    if budget is None and deadline_hours is None:
        return Choice(cheapest, fastest, None, is_safe=False)
    for is_safe in (True, False):
        within = [option for option in enough if _is_within(option.forecast, budget, deadline_hours, is_safe=is_safe)]
        if within:
            measures = ("hours", "chip_hours") if deadline_hours is None else ("chip_hours", "hours")
            best = _least(within, *measures)
            return Choice(cheapest, fastest, best, is_safe=is_safe)
    return Choice(cheapest, fastest, None, is_safe=False)


def _least(options: Sequence[Option], first: str, second: str) -> Option:
    """The option that takes least, and of those that take at most a tenth more the one with most steps: a smaller batch
    learns at least as much from the same samples, and predictions are not exact to a tenth.
    """
    least = min(getattr(option.forecast, first) for option in options)
    alike = [option for option in options if getattr(option.forecast, first) <= ALIKE * least]
    return min(
        alike,
        key=lambda option: (-option.steps, getattr(option.forecast, first), getattr(option.forecast, second)),
    )


def _is_within(forecast: Forecast, budget: float | None, deadline_hours: float | None, *, is_safe: bool) -> bool:
    longest = forecast.hours_range[1] if is_safe and forecast.hours_range else forecast.hours
    if is_safe and forecast.hours_range is None:
        return False  # nobody knows how far it may be off
    cost = longest / forecast.hours * (forecast.cost or 0.0)
    return (budget is None or cost <= budget) and (deadline_hours is None or longest <= deadline_hours)
