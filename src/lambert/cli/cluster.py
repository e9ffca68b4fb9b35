"""`lambert plan … --cluster NAME --chips N …`: how long the run would take on machines that are not here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambert.cli.memory import memory_of
from lambert.cli.subcommand import say
from lambert.errors import UserError

if TYPE_CHECKING:
    from lambert.planner.cluster import Cluster
    from lambert.planner.forecast import Forecast, PhaseWork, Work
    from lambert.training.config.training_config import TrainingConfig

ALWAYS_SHOWN = {"compute": "compute", "fixed": "fixed", "bandwidth": "bytes", "latency": "latency"}
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
    from lambert.planner.cluster import read_cluster
    from lambert.planner.fit import known_cluster

    name, price = request.name, request.price_per_chip_hour
    if not request.chips:
        raise UserError("--cluster without --chips", remedy="Give one or more numbers of chips, such as --chips 16 64")
    if wrong := [chips for chips in request.chips if chips < 1]:
        raise UserError(f"--chips {wrong[0]}", remedy="Give whole numbers from 1 on")
    if price is not None and not 0 < price < float("inf"):
        raise UserError(f"--price-per-chip-hour {price}", remedy="Give a number above 0")
    for what, value in (("--budget", request.budget), ("--hours", request.deadline_hours)):
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"{what} {value}", remedy="Give a number above 0")
    if request.picture is not None:
        from lambert.report.picture import check_picture

        check_picture(request.picture)
    cluster = read_cluster(Path(name)) if name.endswith(".toml") or Path(name).is_file() else known_cluster(name)
    if price is not None:
        cluster = replace(cluster, price_per_chip_hour=price)
    if request.budget is not None and cluster.price_per_chip_hour == 0:
        raise UserError("--budget without a price", remedy="Give --price-per-chip-hour in the same currency")
    return cluster


def show_cluster(cluster: Cluster, request: ClusterRequest, settings: TrainingConfig) -> list[dict[str, Any]]:
    """Print a line for each number of chips, and return them; what cannot be done is left out.

    Raises:
        UserError: the run cannot be done on any of these numbers.
    """
    from lambert.planner.forecast import forecast, strong_scaling, weak_scaling

    work, forecasts, refused = work_of(settings), [], []
    for chips in request.chips:
        try:
            forecasts.append(forecast(cluster, work, chips))
        except UserError as error:
            refused.append(error)
    if not forecasts:
        raise refused[0]
    base = forecasts[0]
    scalings = [(strong_scaling(base, other), weak_scaling(cluster, work, base, other.chips)) for other in forecasts]
    say(f"cluster   {cluster.name}: {cluster.error or 'as described; nothing published to check it against'}")
    kinds = {**ALWAYS_SHOWN, **{k: v for k, v in IF_ANY.items() if any(f.shares[k] for f in forecasts)}}
    say(
        f"{'chips':>9} {'per chip':>11} {'micro-batch':>12} {'hours':>10} {'range':>17} {'strong':>8} {'weak':>8}"
        + "".join(f" {label:>8}" for label in kinds.values())
        + f" {'cost':>10}" * (base.cost is not None)
    )
    for one, (strong, weak) in zip(forecasts, scalings, strict=True):
        per_chip, micro_batch = ("/".join(f"{size:,}" for size in of_phases) for of_phases in _sizes(one))
        shares = "".join(f" {_percent(one.shares[kind]):>8}" for kind in kinds)
        say(
            f"{one.chips:>9,} {per_chip:>11} {micro_batch:>12} {one.hours:>10,.2f} {hours_range(one):>17} "
            f"{_percent(strong, 1):>8} {_percent(weak, 1):>8}{shares}"
            + ("" if one.cost is None else f" {money(one.cost):>10}")
        )
    for refusal in refused:
        say(f"left out  {refusal}")
    _say_memory(cluster, settings, forecasts)
    _say_notes(cluster, forecasts)
    if request.picture is not None:
        _draw(request.picture, cluster, settings, forecasts)
    return [
        {**forecast_as_json(one), "strong_scaling": strong, "weak_scaling": weak}
        for one, (strong, weak) in zip(forecasts, scalings, strict=True)
    ]


def samples_of_text(gigabytes: float, epochs: float, any_length: TrainingConfig) -> int:
    """Sequences in so many passes over so much text, which it tells.

    Args:
        any_length: the run at any number of samples: how its phases share them is all that counts.

    Raises:
        UserError: a number is impossible.
    """
    from lambert.planner import corpus_size

    total = sum(phase.samples for phase in any_length.phases)
    shares = [(phase.sequence_length, phase.samples / total) for phase in any_length.phases]
    samples = corpus_size.samples_of_text(gigabytes * 1e9, epochs, shares)
    pieces = corpus_size.tokens_of_text(gigabytes * 1e9) / 1e9
    say(
        f"text      {gigabytes:g} GB are about {pieces:.3g} billion word pieces, {epochs:g} passes about {samples:,} "
        "sequences: Wikipedia's figures, other text may differ by a fifth"
    )
    return samples


def work_of(settings: TrainingConfig) -> Work:
    """The run as `planning` knows it, in plain numbers."""
    import torch

    from lambert.model.heads import BertForPreTraining
    from lambert.planner.forecast import MEASURED_HIDDEN_SIZE, NARROW_MODELS_SLOWER_BY, Work
    from lambert.planner.step_time import Gradient
    from lambert.training.config.resolve import parameter_count

    with torch.device("meta"):
        tensors = sum(1 for _ in BertForPreTraining(settings.model).parameters())
    # Query, key and value are one tensor here; on the clusters that were measured they were three.
    gradient = Gradient(parameter_count(settings.model), tensors + 4 * settings.model.layers)
    phases = tuple(_phase_work(settings, index) for index in range(len(settings.phases)))
    is_narrow = settings.model.hidden_size < MEASURED_HIDDEN_SIZE
    return Work(phases, gradient, NARROW_MODELS_SLOWER_BY if is_narrow else 1.0)


def _phase_work(settings: TrainingConfig, index: int) -> PhaseWork:
    from lambert.data.masking import maximum_predictions
    from lambert.model.flops import training_flops
    from lambert.planner.forecast import PhaseWork

    phase = settings.phases[index]
    length = phase.sequence_length
    return PhaseWork(
        sequence_length=length,
        batch_size=phase.batch_size,
        steps=phase.step_count,
        flops_per_sequence=training_flops(
            settings.model, tokens=length, sequences=1, masked_tokens=maximum_predictions(length)
        ),
        memory_bytes=lambda size: memory_of(settings, index, size),
    )


def _say_memory(cluster: Cluster, settings: TrainingConfig, forecasts: Sequence[Forecast]) -> None:
    """How full a chip is, by arithmetic, where it is fullest."""
    most = max(memory_of(settings, index, size) for one in forecasts for index, size in enumerate(_sizes(one)[1]))
    say(f"memory    {most / 1e9:.1f} GB of a chip's {cluster.chip_memory_bytes / 1e9:.1f} GB with these micro-batches")


def _say_notes(cluster: Cluster, forecasts: Sequence[Forecast]) -> None:
    beyond = [f"{one.chips:,}" for one in forecasts if one.chips > cluster.most_chips]
    if beyond:
        say(f"note      {', '.join(beyond)} chips are a guess: no more than {cluster.most_chips:,} were measured")
    say("          compute: the products; fixed: of a step, whatever its batch; bytes, latency: summing gradients")
    if len(forecasts) > 1:
        say("          strong: speed-up at the same batch over the increase in chips; weak: at the same batch a chip")
    if forecasts[0].hours_range is None:
        say("          range: nobody knows how far these hours are off")
        return
    slower_by = forecasts[0].slower_by
    narrow = f", and {slower_by:g} times as long because the rates are BERT-Large's" if slower_by > 1 else ""
    say(f"          range: true hours if the prediction is off by {_percent(cluster.error_share, 1)}{narrow}")


def _sizes(one: Forecast) -> tuple[list[int], list[int]]:
    return [phase.sequences_per_chip for phase in one.phases], [phase.micro_batch_size for phase in one.phases]


def hours_range(one: Forecast) -> str:
    """Where the true hours lie, for people."""
    return "unknown" if one.hours_range is None else "{:,.2f} to {:,.2f}".format(*one.hours_range)


def money(amount: float) -> str:
    """An amount in any currency, for people."""
    return f"{amount:,.2f}" if amount < 100 else f"{amount:,.0f}"


def _percent(share: float, digits: int = 0) -> str:
    return f"{share:.{digits}%}".replace("%", " %")


def forecast_as_json(one: Forecast) -> dict[str, Any]:
    """Keys: docs/json.md."""
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


def _draw(path: Path, cluster: Cluster, settings: TrainingConfig, forecasts: Sequence[Forecast]) -> None:
    from lambert.report.picture import write_picture
    from lambert.report.pictures import StackedStep, step_picture

    labels, steps = {**ALWAYS_SHOWN, **IF_ANY}, []
    for one in forecasts:
        mean = one.seconds / sum(phase.steps for phase in one.phases)
        # Times the number of chips: what is work stays as high, what more chips cost is seen to grow.
        parts = {label: one.shares[kind] * mean * one.chips for kind, label in labels.items()}
        steps.append(StackedStep(f"{one.chips:,}", parts, f"{mean:,.3g} s per step"))
    title = f"{settings.model_name} on {cluster.name}: where a step's time goes"
    caption = cluster.error or "not checked against published runs"
    write_picture(step_picture(steps, title=title, caption=caption, y="chip-seconds per step: step time × chips"), path)
    say(f"picture   {path}")
