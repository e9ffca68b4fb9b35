"""`lambert plan --cluster … --try-batch-sizes …`: which batch on how many chips, within a budget and a deadline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lambert.cli.cluster import ClusterRequest, forecast_as_json, hours_range, money, work_of
from lambert.cli.subcommand import say
from lambert.errors import UserError

if TYPE_CHECKING:
    from lambert.planner.cluster import Cluster
    from lambert.planner.selection import Choice, Option
    from lambert.training.config.training_config import RunSettings


def show_choices(
    cluster: Cluster, request: ClusterRequest, plans: Sequence[RunSettings], *, least_steps: int
) -> dict[str, Any]:
    """Print every plan on every number of chips, and which to take; and return that.

    Args:
        least_steps: plans of fewer steps are shown, and not chosen.
    """
    from lambert.planner.forecast import forecast
    from lambert.planner.selection import Option, choose

    options, refused = [], []
    for settings in plans:
        work = work_of(settings)
        sizes = tuple(phase.batch_size for phase in settings.phases)
        for chips in request.chips:
            try:
                options.append(Option(sizes, work.step_count, forecast(cluster, work, chips)))
            except UserError as error:
                refused.append(error.what)
    options.sort(key=lambda option: (option.batch_sizes, option.forecast.chips))
    choice = choose(options, least_steps=least_steps, budget=request.budget, deadline_hours=request.deadline_hours)
    say(f"choices   {plans[0].samples:,} samples or as near as whole batches come, each batch with a recipe of its own")
    unit = "cost" if any(option.forecast.cost is not None for option in options) else "chip-hours"
    say(f"{'chips':>9} {'batch':>13} {'steps':>9} {'hours':>9} {'range':>17} {unit:>10}")
    for option in options:
        one = option.forecast
        cost = money(one.cost) if one.cost is not None else f"{one.chip_hours:,.1f}"
        marks = [name for name, value in _marks(choice) if value is option]
        marks += ["too few steps to learn much"] * (option.steps < least_steps)
        say(
            f"{one.chips:>9,} {_batch(option):>13} {option.steps:>9,} {one.hours:>9,.2f} {hours_range(one):>17} "
            f"{cost:>10}" + "".join(f"  {mark}" for mark in marks)
        )
    for what in dict.fromkeys(refused):
        say(f"left out  {what}")
    say(
        "          of plans within a tenth of each other the smaller batch is taken: it learns at least as much from "
        "the same samples (docs/batch_size.md)"
    )
    _say_choice(request, choice)
    return {"options": [_option_as_json(option) for option in options], **_choice_as_json(options, choice)}


def _say_choice(request: ClusterRequest, choice: Choice | None) -> None:
    if choice is None:
        say("choice    none: every plan has too few steps to learn much; take smaller batches or more samples")
        return
    say(f"cheapest  {_told(choice.cheapest)}")
    say(f"fastest   {_told(choice.fastest)}")
    limits = [f"a budget of {money(request.budget)}"] if request.budget is not None else []
    limits += [f"{request.deadline_hours:,g} hours"] if request.deadline_hours is not None else []
    if not limits:
        return
    if choice.within is None:
        say(f"within    {' and '.join(limits)}: none; a smaller --model, fewer samples or other --chips are needed")
        return
    which = "the fastest" if request.deadline_hours is None else "the cheapest"
    doubt = "also at the far end of the range" if choice.is_safe else "only if the prediction is not too low"
    say(f"within    {' and '.join(limits)}, {which}: {_told(choice.within)}; {doubt}")


def _marks(choice: Choice | None) -> list[tuple[str, Option | None]]:
    if choice is None:
        return []
    return [("cheapest", choice.cheapest), ("fastest", choice.fastest), ("best within", choice.within)]


def _told(option: Option) -> str:
    one = option.forecast
    cost = "" if one.cost is None else f", for {money(one.cost)}"
    between = "" if one.hours_range is None else f" ({hours_range(one)})"
    chips = f"{one.chips:,} chip{'s' * (one.chips > 1)}"
    return f"batch {_batch(option)} on {chips}: {one.hours:,.2f} hours{between}{cost}"


def _batch(option: Option) -> str:
    return "/".join(f"{size:,}" for size in dict.fromkeys(option.batch_sizes))


def _option_as_json(option: Option) -> dict[str, Any]:
    return {"batch_sizes": option.batch_sizes, "steps": option.steps, **forecast_as_json(option.forecast)}


def _choice_as_json(options: Sequence[Option], choice: Choice | None) -> dict[str, Any]:
    places: dict[str, Any] = {"cheapest": None, "fastest": None, "within": None, "within_is_safe": None}
    if choice is not None:
        chosen = {"cheapest": choice.cheapest, "fastest": choice.fastest, "within": choice.within}
        places.update({name: None if one is None else options.index(one) for name, one in chosen.items()})
        places["within_is_safe"] = None if choice.within is None else choice.is_safe
    return places
