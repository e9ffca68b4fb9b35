"""`lambert plan … --cluster NAME --chips N …`: how long the run would take on machines that are not here."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambert.cli.memory import memory_of
from lambert.cli.verb import say
from lambert.errors import UserError

if TYPE_CHECKING:
    from lambert.planning.cluster import Cluster, Gradient, StepTime
    from lambert.training.settings import RunSettings

KINDS = ("compute", "fixed", "bandwidth", "latency")
MEMORY_SHARE = 0.9
"""Of a chip's memory that a micro-batch may fill."""


def show_cluster(settings: RunSettings, name: str, chip_counts: tuple[int, ...]) -> list[dict[str, Any]]:
    """Print a line for each number of chips, and return them.

    Raises:
        UserError: the cluster is not known, or the run cannot be done on so many chips.
    """
    cluster, gradient = _cluster(name), _gradient(settings)
    if not chip_counts:
        raise UserError("--cluster without --chips", remedy="Give one or more numbers of chips, such as --chips 16 64")
    rows = [_row(settings, cluster, gradient, chips, chip_counts[0]) for chips in chip_counts]
    has_price = cluster.price_per_chip_hour > 0
    say(f"cluster   {cluster.name}: {cluster.error or 'as described; nothing published to check it against'}")
    say(
        f"{'chips':>9} {'per chip':>11} {'micro-batch':>12} {'hours':>10} {'strong':>8} {'weak':>8}"
        f" {'compute':>9} {'fixed':>7} {'bytes':>7} {'latency':>8}{'  cost' * has_price}"
    )
    for row in rows:
        shares = [f"{row['shares'][kind]:.0%}".replace("%", " %") for kind in KINDS]
        sizes = (row["sequences_per_chip"], row["micro_batch_sizes"])
        batches, micro = ("/".join(f"{size:,}" for size in of_phases) for of_phases in sizes)
        strong, weak = (f"{row[kind]:.1%}".replace("%", " %") for kind in ("strong_scaling", "weak_scaling"))
        cost = f"  {row['cost']:,.0f}" if has_price else ""
        say(
            f"{row['chips']:>9,} {batches:>11} {micro:>12} {row['hours']:>10,.2f} {strong:>8} {weak:>8}"
            f" {shares[0]:>9} {shares[1]:>7} {shares[2]:>7} {shares[3]:>8}{cost}"
        )
    beyond = [f"{chips:,}" for chips in chip_counts if chips > cluster.most_chips]
    if beyond:
        say(f"note      {', '.join(beyond)} chips are a guess: no more than {cluster.most_chips:,} were measured")
    say("          strong: speed-up at the same batch over the increase in chips; weak: at the same batch a chip")
    return rows


def _cluster(name: str) -> Cluster:
    from lambert.planning.cluster import read_cluster
    from lambert.planning.fit import known_cluster

    return read_cluster(Path(name)) if name.endswith(".toml") or Path(name).is_file() else known_cluster(name)


def _gradient(settings: RunSettings) -> Gradient:
    import torch

    from lambert.model.heads import BertForPreTraining
    from lambert.planning.cluster import Gradient
    from lambert.training.setup import parameter_count

    with torch.device("meta"):
        tensors = sum(1 for _ in BertForPreTraining(settings.model).parameters())
    # Query, key and value are one tensor here; on the clusters that were measured they were three.
    return Gradient(parameter_count(settings.model), tensors + 4 * settings.model.layers)


def _row(settings: RunSettings, cluster: Cluster, gradient: Gradient, chips: int, base: int) -> dict[str, Any]:
    micro_batches = [_micro_batch(settings, cluster, index, chips) for index in range(len(settings.phases))]
    own, own_times = _seconds(settings, cluster, gradient, chips)
    first, _ = _seconds(settings, cluster, gradient, base)
    # At the same batch a chip: a batch that grows with the chips takes as many fewer steps.
    scaled, _ = _seconds(settings, cluster, gradient, chips, batch_factor=chips / base)
    parts = list(zip(settings.phases, own_times, strict=True))
    totals = {kind: sum(phase.step_count * getattr(time, kind) for phase, time in parts) for kind in KINDS}
    return {
        "chips": chips,
        "sequences_per_chip": [-(-phase.batch_size // chips) for phase in settings.phases],
        "micro_batch_sizes": micro_batches,
        "hours": own / 3_600,
        "step_seconds": [asdict(time) for time in own_times],
        "shares": {kind: total / own for kind, total in totals.items()},
        "strong_scaling": first * base / (own * chips),
        "weak_scaling": first * base / (scaled * chips),
        "cost": own / 3_600 * chips * cluster.price_per_chip_hour or None,
    }


def _seconds(
    settings: RunSettings, cluster: Cluster, gradient: Gradient, chips: int, *, batch_factor: float = 1.0
) -> tuple[float, list[StepTime]]:
    """Of the whole run, and of a step of each phase, where batches are so many times larger and steps fewer."""
    from lambert.batches.masking import maximum_predictions
    from lambert.model.flops import training_flops
    from lambert.planning.cluster import step_time

    seconds, times = 0.0, []
    for phase in settings.phases:
        length = phase.sequence_length
        flops = training_flops(
            settings.model, tokens=length, sequences=1, masked_words=maximum_predictions(length)
        )  # of a full row
        time = step_time(
            cluster, chips, gradient, sequences_per_chip=batch_factor * phase.batch_size / chips,
            flops_per_sequence=flops, sequence_length=length,
        )  # fmt: skip
        seconds += phase.step_count / batch_factor * time.total
        times.append(time)
    return seconds, times


def _micro_batch(settings: RunSettings, cluster: Cluster, index: int, chips: int) -> int:
    """Sequences at once on a chip: as many as memory holds, by halves of what it has to do.

    Raises:
        UserError: there are more chips than sequences, or not even one sequence fits.
    """
    phase = settings.phases[index]
    if not 1 <= chips <= phase.batch_size:
        raise UserError(
            f"{chips:,} chips for a batch of {phase.batch_size:,} sequences",
            remedy="Give a number of chips from 1 to the batch size, or a larger --batch-size",
        )
    size = -(-phase.batch_size // chips)
    while memory_of(settings, index, size) > MEMORY_SHARE * cluster.chip_memory_bytes:
        if size == 1:
            raise UserError(
                f"one sequence of {phase.sequence_length} tokens needs {memory_of(settings, index, 1) / 1e9:.1f} GB, a "
                f"chip of {cluster.name} has {cluster.chip_memory_bytes / 1e9:.1f} GB",
                remedy="Choose a smaller --model, or chips with more memory",
            )
        size = -(-size // 2)
    return size
