"""`lambert plan … --cluster NAME --chips N …`: how long the run would take on machines that are not here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambert.cli.memory import memory_of
from lambert.cli.verb import say
from lambert.errors import UserError

if TYPE_CHECKING:
    from lambert.planning.cluster import Cluster
    from lambert.planning.forecast import Forecast, PhaseWork, Work
    from lambert.planning.sweep import Choice, Option
    from lambert.training.settings import RunSettings

ALWAYS_SHOWN = {"compute": "compute", "fixed": "fixed", "bandwidth": "bytes", "latency": "latency"}
MEASURED_HIDDEN_SIZE = 1_024
IF_ANY = {"micro_batches": "overhead", "optimizer": "update", "stragglers": "waiting"}


@dataclass(frozen=True)
class ClusterRequest:
    """What a person asks of a cluster."""

    name: str
    """Known, or a TOML file."""
    chips: tuple[int, ...]
    price_per_chip_hour: float | None = None
    """In place of the description's."""
    budget: float | None = None
    deadline_hours: float | None = None
    picture: Path | None = None
    """Where the step's times are drawn."""


def open_cluster(request: ClusterRequest) -> Cluster:
    """What is asked for, before anything is printed.

    Raises:
        UserError: the cluster is not known, or another option is impossible.
    """
    from lambert.planning.cluster import read_cluster
    from lambert.planning.fit import known_cluster

    name, price = request.name, request.price_per_chip_hour
    if not request.chips:
        raise UserError("--cluster without --chips", remedy="Give one or more numbers of chips, such as --chips 16 64")
    if price is not None and not 0 < price < float("inf"):
        raise UserError(f"--price-per-chip-hour {price}", remedy="Give a number above 0")
    if request.picture is not None:
        from lambert.report.forecast_plots import check_picture

        check_picture(request.picture)
    cluster = read_cluster(Path(name)) if name.endswith(".toml") or Path(name).is_file() else known_cluster(name)
    return cluster if price is None else replace(cluster, price_per_chip_hour=price)


def show_cluster(cluster: Cluster, request: ClusterRequest, settings: RunSettings) -> list[dict[str, Any]]:
    """Print a line for each number of chips, and return them.

    Raises:
        UserError: the run cannot be done on so many chips.
    """
    from lambert.planning.forecast import forecast, strong_scaling, weak_scaling

    work = work_of(settings)
    forecasts = [forecast(cluster, work, chips) for chips in request.chips]
    base = forecasts[0]
    scalings = [(strong_scaling(base, other), weak_scaling(cluster, work, base, other.chips)) for other in forecasts]
    say(f"cluster   {cluster.name}: {cluster.error or 'as described; nothing published to check it against'}")
    kinds = {**ALWAYS_SHOWN, **{k: v for k, v in IF_ANY.items() if any(f.shares[k] for f in forecasts)}}
    say(
        f"{'chips':>9} {'per chip':>11} {'micro-batch':>12} {'hours':>10} {'range':>17} {'strong':>8} {'weak':>8}"
        + "".join(f" {label:>8}" for label in kinds.values())
        + "       cost" * (base.cost is not None)
    )
    for one, (strong, weak) in zip(forecasts, scalings, strict=True):
        per_chip, micro_batch = ("/".join(f"{size:,}" for size in of_phases) for of_phases in _sizes(one))
        shares = "".join(f" {_percent(one.shares[kind]):>8}" for kind in kinds)
        say(
            f"{one.chips:>9,} {per_chip:>11} {micro_batch:>12} {one.hours:>10,.2f} {_range(one):>17} "
            f"{_percent(strong, 1):>8} {_percent(weak, 1):>8}{shares}{_cost(one)}"
        )
    _say_notes(cluster, settings, forecasts)
    if request.picture is not None:
        _draw(request.picture, cluster, settings, forecasts)
    return [
        {**_as_json(one), "strong_scaling": strong, "weak_scaling": weak}
        for one, (strong, weak) in zip(forecasts, scalings, strict=True)
    ]


def show_choices(
    cluster: Cluster, request: ClusterRequest, plans: Sequence[RunSettings], *, least_steps: int
) -> dict[str, Any]:
    """Print every plan on every number of chips, and which to take; and return that.

    Args:
        least_steps: plans of fewer steps are shown, and not chosen.

    Raises:
        UserError: a budget without a price, or nothing can be done at all.
    """
    from lambert.planning.forecast import forecast
    from lambert.planning.sweep import Option, choose

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
    has_price = any(option.forecast.cost is not None for option in options)
    say(f"choices   {plans[0].samples:,} samples or as near as whole batches come, each batch with a recipe of its own")
    money = "cost" if has_price else "chip-hours"
    say(f"{'chips':>9} {'batch':>15} {'steps':>10} {'hours':>10} {'range':>17} {money:>11}")
    for option in options:
        one = option.forecast
        cost = _cost(one) if has_price else f" {one.chip_hours:>10,.0f}"
        marks = [name for name, value in _marks(choice) if value is option]
        marks += ["too few steps to learn much"] * (option.steps < least_steps)
        say(
            f"{one.chips:>9,} {_batch(option):>15} {option.steps:>10,} {one.hours:>10,.2f} {_range(one):>17} {cost:>11}"
            f"{'  ' + ', '.join(marks) if marks else ''}"
        )
    for what in dict.fromkeys(refused):
        say(f"left out  {what}")
    say("          how much is learnt from the same samples at another batch size is not predicted (docs/recipes.md)")
    _say_choice(request, choice)
    return {"options": [_option_as_json(option) for option in options], **_choice_as_json(options, choice)}


def work_of(settings: RunSettings) -> Work:
    """The run as `planning` knows it, in plain numbers."""
    import torch

    from lambert.model.heads import BertForPreTraining
    from lambert.planning.forecast import Work
    from lambert.planning.step_time import Gradient
    from lambert.training.setup import parameter_count

    with torch.device("meta"):
        tensors = sum(1 for _ in BertForPreTraining(settings.model).parameters())
    # Query, key and value are one tensor here; on the clusters that were measured they were three.
    gradient = Gradient(parameter_count(settings.model), tensors + 4 * settings.model.layers)
    return Work(tuple(_phase_work(settings, index) for index in range(len(settings.phases))), gradient)


def _phase_work(settings: RunSettings, index: int) -> PhaseWork:
    from lambert.batches.masking import maximum_predictions
    from lambert.model.flops import training_flops
    from lambert.planning.forecast import PhaseWork

    phase = settings.phases[index]
    length = phase.sequence_length
    return PhaseWork(
        sequence_length=length,
        batch_size=phase.batch_size,
        steps=phase.step_count,
        flops_per_sequence=training_flops(
            settings.model, tokens=length, sequences=1, masked_words=maximum_predictions(length)
        ),
        memory_bytes=lambda size: memory_of(settings, index, size),
    )


def _say_notes(cluster: Cluster, settings: RunSettings, forecasts: Sequence[Forecast]) -> None:
    beyond = [f"{one.chips:,}" for one in forecasts if one.chips > cluster.most_chips]
    if beyond:
        say(f"note      {', '.join(beyond)} chips are a guess: no more than {cluster.most_chips:,} were measured")
    if cluster.error_share and settings.model.hidden_size < MEASURED_HIDDEN_SIZE:
        say("note      rates were measured on BERT-Large: narrower models reach less of them and take longer")
    say("          strong: speed-up at the same batch over the increase in chips; weak: at the same batch a chip")
    if cluster.error_share:
        say(f"          range: true hours if the prediction is off by {_percent(cluster.error_share, 1)}")
    else:
        say("          range: nobody knows how far these hours are off")


def _say_choice(request: ClusterRequest, choice: Choice | None) -> None:
    if choice is None:
        say("choice    none: every plan has too few steps to learn much; take smaller batches or more samples")
        return
    say(f"cheapest  {_told(choice.cheapest)}")
    say(f"fastest   {_told(choice.fastest)}")
    limits = [f"a budget of {request.budget:,.0f}"] if request.budget is not None else []
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
    cost = "" if one.cost is None else f", {one.cost:,.0f} in money"
    between = "" if one.hours_range is None else f" ({_range(one)})"
    return f"batch {_batch(option)} on {one.chips:,} chips: {one.hours:,.2f} hours{between}{cost}"


def _batch(option: Option) -> str:
    return "/".join(f"{size:,}" for size in dict.fromkeys(option.batch_sizes))


def _sizes(one: Forecast) -> tuple[list[int], list[int]]:
    return [phase.sequences_per_chip for phase in one.phases], [phase.micro_batch_size for phase in one.phases]


def _range(one: Forecast) -> str:
    return "unknown" if one.hours_range is None else "{:,.2f} to {:,.2f}".format(*one.hours_range)


def _cost(one: Forecast) -> str:
    return "" if one.cost is None else f" {one.cost:>10,.0f}"


def _percent(share: float, digits: int = 0) -> str:
    return f"{share:.{digits}%}".replace("%", " %")


def _as_json(one: Forecast) -> dict[str, Any]:
    sequences, micro_batches = _sizes(one)
    return {
        "chips": one.chips,
        "sequences_per_chip": sequences,
        "micro_batch_sizes": micro_batches,
        "hours": one.hours,
        "hours_range": one.hours_range,
        "step_seconds": [asdict(phase.step) for phase in one.phases],
        "shares": one.shares,
        "cost": one.cost,
    }


def _option_as_json(option: Option) -> dict[str, Any]:
    return {"batch_sizes": option.batch_sizes, "steps": option.steps, **_as_json(option.forecast)}


def _choice_as_json(options: Sequence[Option], choice: Choice | None) -> dict[str, Any]:
    places: dict[str, Any] = {"cheapest": None, "fastest": None, "within": None, "within_is_safe": None}
    if choice is not None:
        chosen = {"cheapest": choice.cheapest, "fastest": choice.fastest, "within": choice.within}
        places.update({name: None if one is None else options.index(one) for name, one in chosen.items()})
        places["within_is_safe"] = None if choice.within is None else choice.is_safe
    return places


def _draw(path: Path, cluster: Cluster, settings: RunSettings, forecasts: Sequence[Forecast]) -> None:
    from lambert.report.forecast_plots import StackedStep, step_picture, write_picture

    labels, steps = {**ALWAYS_SHOWN, **IF_ANY}, []
    for one in forecasts:
        mean = one.seconds / sum(phase.steps for phase in one.phases)
        # Times the number of chips: what is work stays as high, what more chips cost is seen to grow.
        parts = {label: one.shares[kind] * mean * one.chips for kind, label in labels.items()}
        steps.append(StackedStep(f"{one.chips:,}", parts, f"{mean:,.3g} s a step"))
    title = f"{settings.model_name} on {cluster.name}: where a step's time goes"
    caption = cluster.error or "not checked against published runs"
    write_picture(step_picture(steps, title=title, caption=caption, y="chip-seconds a step: its time × chips"), path)
    say(f"picture   {path}")
