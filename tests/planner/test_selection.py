"""Which plan to take: by time, by cost, within a budget and a deadline."""

from __future__ import annotations

import pytest

from lambert.planner.forecast import ClusterForecast, PhaseForecast
from lambert.planner.selection import Option, choose
from lambert.planner.step_time import StepTime


def option(chips: int, hours: float, *, price: float = 1.0, error: float = 0.0, steps: int = 1_000) -> Option:
    step = StepTime(hours * 3_600, 0, 0, 0, 0, 0, 0)
    return Option((256,), steps, ClusterForecast(chips, (PhaseForecast(1, 1, 1, step),), price, error))


FEW, SOME, MANY = option(1, 10.0), option(4, 4.0), option(16, 2.0)  # 10, 16 and 32 chip-hours
ALL = [SOME, FEW, MANY]


def test_cheapest_and_fastest() -> None:
    choice = choose(ALL, min_steps=400)
    assert choice is not None
    assert (choice.cheapest, choice.fastest, choice.within) == (FEW, MANY, None)


@pytest.mark.parametrize(
    ("budget", "deadline", "best"),
    [
        (20.0, None, SOME),  # the fastest that the money buys
        (40.0, None, MANY),
        (None, 5.0, SOME),  # the cheapest in time
        (None, 20.0, FEW),
        (40.0, 5.0, SOME),  # with both, the cheapest
        (12.0, 5.0, None),
        (5.0, None, None),
    ],
)
def test_the_best_within(budget: float | None, deadline: float | None, best: Option | None) -> None:
    choice = choose(ALL, min_steps=0, budget=budget, deadline_hours=deadline)
    assert choice is not None and choice.within is best
    assert not choice.is_safe  # nobody knows how far these predictions are off


def test_what_stays_within_at_the_far_end_of_the_range_goes_first() -> None:
    """±20 %: 16 may be 20 of a budget of 18, 10 may be 12.5."""
    doubtful = [option(1, 10.0, error=0.2), option(4, 4.0, error=0.2)]
    choice = choose(doubtful, min_steps=0, budget=18.0)
    assert choice is not None and choice.within is doubtful[0] and choice.is_safe
    choice = choose(doubtful, min_steps=0, budget=11.0)
    assert choice is not None and choice.within is doubtful[0] and not choice.is_safe
    choice = choose(doubtful, min_steps=0, budget=20.0)
    assert choice is not None and choice.within is doubtful[1] and choice.is_safe


def test_of_plans_alike_the_smaller_batch_is_taken() -> None:
    """A tenth more time is not worth four times fewer steps; a fifth more is."""
    small, middle, large = option(8, 2.4, steps=64_000), option(8, 2.1, steps=16_000), option(8, 2.0, steps=4_000)
    choice = choose([large, middle, small], min_steps=400, budget=100.0)
    assert choice is not None
    assert choice.fastest is choice.cheapest is choice.within is middle


def test_too_few_steps_are_not_chosen() -> None:
    hasty = option(64, 0.1, steps=399)
    choice = choose([*ALL, hasty], min_steps=400, budget=100.0)
    assert choice is not None and choice.fastest is MANY and choice.within is MANY
    assert choose([hasty], min_steps=400) is None
