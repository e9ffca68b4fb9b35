"""Predictions for clusters and simulated ranks as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lambert.planner.forecast import ClusterForecast, ClusterPlan
    from lambert.planner.rank_partition import RankPartition
    from lambert.planner.rank_simulation import RankSimulation
    from lambert.planner.selection import ClusterRequest, Comparison, Option

ALWAYS_SHOWN = {"compute": "compute", "fixed": "fixed", "bandwidth": "bytes", "latency": "latency"}
IF_ANY = {"micro_batches": "overhead", "optimizer": "update", "stragglers": "waiting"}


def text_line(gigabytes: float, epochs: float, samples: int) -> str:
    """A corpus that is not prepared yet."""
    from lambert.planner.corpus_size import tokens_of_text

    tokens = tokens_of_text(gigabytes * 1e9) / 1e9
    return (
        f"text      {gigabytes:g} GB are about {tokens:.3g} billion tokens, {epochs:g} epochs about {samples:,} "
        "sequences: estimated from Wikipedia, other text may differ by a fifth"
    )


def cluster_lines(plan: ClusterPlan) -> list[str]:
    """A table with a row for each number of chips, and notes."""
    cluster, forecasts = plan.cluster, plan.forecasts
    kinds = ALWAYS_SHOWN | {k: v for k, v in IF_ANY.items() if any(one.time_fractions[k] for one in forecasts)}
    lines = [
        f"cluster   {cluster.name}: {cluster.error or 'as described; nothing published to check it against'}",
        f"{'chips':>9} {'per chip':>11} {'micro-batch':>12} {'hours':>10} {'range':>17} {'strong':>8} {'weak':>8}"
        + "".join(f" {label:>8}" for label in kinds.values())
        + f" {'cost':>10}" * (forecasts[0].cost is not None),
    ]
    for one, (strong, weak) in zip(forecasts, plan.scaling, strict=True):
        per_chip = "/".join(f"{phase.sequences_per_chip:,}" for phase in one.phases)
        micro_batch = "/".join(f"{phase.micro_batch_size:,}" for phase in one.phases)
        lines.append(
            f"{one.chips:>9,} {per_chip:>11} {micro_batch:>12} {one.hours:>10,.2f} {_hours_range(one):>17} "
            f"{_percent(strong, 1):>8} {_percent(weak, 1):>8}"
            + "".join(f" {_percent(one.time_fractions[kind]):>8}" for kind in kinds)
            + ("" if one.cost is None else f" {_money(one.cost):>10}")
        )
    lines += [f"left out  {problem}" for problem in plan.problems]
    lines.append(
        f"memory    {plan.memory_bytes / 1e9:.1f} GB of a chip's {cluster.chip_memory_bytes / 1e9:.1f} GB with these "
        "micro-batches"
    )
    return lines + _cluster_notes(plan)


def _cluster_notes(plan: ClusterPlan) -> list[str]:
    cluster, forecasts = plan.cluster, plan.forecasts
    lines = []
    if beyond := [f"{one.chips:,}" for one in forecasts if one.chips > cluster.most_chips]:
        lines.append(
            f"note      {', '.join(beyond)} chips are a guess: no more than {cluster.most_chips:,} were measured"
        )
    lines.append(
        "          compute: matmuls; fixed: of a step, whatever its batch; bytes, latency: all-reduce of the gradients"
    )
    if len(forecasts) > 1:
        lines.append(
            "          strong: speed-up at the same batch over the increase in chips; weak: at the same batch per chip"
        )
    if forecasts[0].hours_range is None:
        return [*lines, "          range: the error of these hours is unknown"]
    slower_by = forecasts[0].slower_by
    narrow = f", and {slower_by:g} times as long because the rates are BERT-Large's" if slower_by > 1 else ""
    error = _percent(cluster.relative_error, 1)
    return [*lines, f"          range: true hours if the prediction is off by {error}{narrow}"]


def draw_steps(path: Path, plan: ClusterPlan, model_name: str) -> None:
    """Draw where a step's time goes into an .svg or .png file."""
    from lambert.report.picture import write_picture
    from lambert.report.pictures import StackedStep, step_picture

    labels, steps = ALWAYS_SHOWN | IF_ANY, []
    for one in plan.forecasts:
        mean = one.seconds / sum(phase.steps for phase in one.phases)
        # Times the number of chips: work stays as high, the cost of more chips grows visibly.
        parts = {label: one.time_fractions[kind] * mean * one.chips for kind, label in labels.items()}
        steps.append(StackedStep(f"{one.chips:,}", parts, f"{mean:,.3g} s a step"))
    title = f"{model_name} on {plan.cluster.name}: where a step's time goes"
    caption = plan.cluster.error or "not checked against published runs"
    write_picture(step_picture(steps, title=title, caption=caption, y="chip-seconds a step: its time × chips"), path)


def comparison_lines(comparison: Comparison, request: ClusterRequest, *, samples: int, min_steps: int) -> list[str]:
    """Every plan on every number of chips, and which to take.

    Args:
        samples: of the plans.
        min_steps: options of fewer steps are marked.
    """
    options, choice = comparison.options, comparison.choice
    unit = "cost" if any(option.forecast.cost is not None for option in options) else "chip-hours"
    lines = [
        f"choices   {samples:,} samples or the nearest whole number of batches, each batch size with its own recipe",
        f"{'chips':>9} {'batch':>13} {'steps':>9} {'hours':>9} {'range':>17} {unit:>10}",
    ]
    for option in options:
        one = option.forecast
        cost = _money(one.cost) if one.cost is not None else f"{one.chip_hours:,.1f}"
        names = {"cheapest": "cheapest", "fastest": "fastest", "within": "best within"}
        marks = [mark for name, mark in names.items() if getattr(choice, name, None) is option]
        marks += ["too few steps to learn much"] * (option.steps < min_steps)
        lines.append(
            f"{one.chips:>9,} {_batch(option):>13} {option.steps:>9,} {one.hours:>9,.2f} {_hours_range(one):>17} "
            f"{cost:>10}" + "".join(f"  {mark}" for mark in marks)
        )
    lines += [f"left out  {problem}" for problem in comparison.problems]
    lines.append(
        "          of plans within a tenth of each other the smaller batch is taken: it learns at least as much from "
        "the same samples (docs/batch_size.md)"
    )
    return lines + _choice_lines(comparison, request)


def _choice_lines(comparison: Comparison, request: ClusterRequest) -> list[str]:
    choice = comparison.choice
    if choice is None:
        return ["choice    none: every plan has too few steps to learn much; take smaller batches or more samples"]
    lines = [f"cheapest  {_option(choice.cheapest)}", f"fastest   {_option(choice.fastest)}"]
    limits = [f"a budget of {_money(request.budget)}"] if request.budget is not None else []
    limits += [f"{request.deadline_hours:,g} hours"] if request.deadline_hours is not None else []
    if not limits:
        return lines
    if choice.within is None:
        found = "none; a smaller --model, fewer samples or other --chips are needed"
        return [*lines, f"within    {' and '.join(limits)}: {found}"]
    which = "the fastest" if request.deadline_hours is None else "the cheapest"
    doubt = "also at the far end of the range" if choice.is_safe else "only if the prediction is not too low"
    return [*lines, f"within    {' and '.join(limits)}, {which}: {_option(choice.within)}; {doubt}"]


def _option(option: Option) -> str:
    one = option.forecast
    cost = "" if one.cost is None else f", for {_money(one.cost)}"
    between = "" if one.hours_range is None else f" ({_hours_range(one)})"
    chips = f"{one.chips:,} chip{'s' * (one.chips > 1)}"
    return f"batch {_batch(option)} on {chips}: {one.hours:,.2f} hours{between}{cost}"


def _batch(option: Option) -> str:
    return "/".join(f"{count:,}" for count in dict.fromkeys(option.batch_sizes))


def _hours_range(one: ClusterForecast) -> str:
    return "unknown" if one.hours_range is None else "{:,.2f} to {:,.2f}".format(*one.hours_range)


def _money(amount: float) -> str:
    return f"{amount:,.2f}" if amount < 100 else f"{amount:,.0f}"


def _percent(fraction: float, digits: int = 0) -> str:
    return f"{fraction:.{digits}%}".replace("%", " %")


def rank_simulation_lines(simulation: RankSimulation, *, has_corpus: bool) -> list[str]:
    """Batch partitioning, memory and collectives of the simulated ranks."""
    lines = [f"dry run   {simulation.ranks:,} simulated ranks in one process: no timing, no values, no NCCL"]
    for partition in simulation.partitions:
        lines += _partition_lines(partition, "examples of the corpus" if has_corpus else "samples")
    phases, state = simulation.replicated_phases(), simulation.memory[0].state_bytes
    lines.append(
        f"whole     a copy in every rank: {_size(state)} of weights, gradients and moments, about "
        f"{_size(max(phase['memory_bytes'] for phase in phases))} with a micro-batch's activations"
    )
    lines += _traffic_lines(phases)
    model = simulation.sharded
    if model is None:
        return [*lines, f"sharded   not possible: {simulation.sharded_problem}"]
    phases, whole = simulation.sharded_phases(model), sum(model.parameters)
    state, total = (max(phase[name] for phase in phases) for name in ("state_bytes", "memory_bytes"))
    lines += [
        f"sharded   {min(model.parameters):,} to {max(model.parameters):,} parameters a rank, {whole:,} in all",
        f"          {_size(state)} of weights, gradients and moments, about {_size(total)} with activations",
        f"          and {_size(model.gathered_bytes)} of weights gathered at a time",
    ]
    if max(partition.most for partition in simulation.partitions) > 1:
        lines.append(f"          gradients stay whole ({_size(4 * whole)}) until the last of a rank's micro-batches")
    return lines + _traffic_lines(phases)


def _partition_lines(partition: RankPartition, things: str) -> list[str]:
    each = f"{partition.most:,} a rank"
    if partition.least != partition.most:
        each = (
            f"{partition.ranks_with_most:,} of {partition.ranks:,} ranks do {partition.most:,}, the others "
            f"{partition.least:,}: {_percent(partition.idle_fraction)} of all ranks' time is waiting"
        )
    lines = [f"phase {partition.phase}   {partition.micro_batches:,} micro-batches, {each}"]
    if not partition.problems:
        lines.append(
            f"          {len(partition.checked_steps):,} of {partition.steps:,} steps partitioned over all ranks: each "
            f"of a batch's {partition.batch_size:,} {things} goes to exactly one"
        )
    return lines


def _traffic_lines(phases: Sequence[dict[str, Any]]) -> list[str]:
    """A step of each phase, in a rank with the most micro-batches; one line where all are equal."""
    traffic = [(phase["collectives"], phase["ring_bytes"]) for phase in phases]
    are_equal = all(one == traffic[0] for one in traffic)
    lines = []
    for number, (collectives, ring_bytes) in enumerate(traffic[:1] if are_equal else traffic, start=1):
        listed = " and ".join(
            f"{total['number']:,} {kind}{'s' * (total['number'] > 1)} ({_size(total['bytes'])})"
            for kind, total in collectives.items()
        )
        of_phase = "" if are_equal else f" of phase {number}"
        lines.append(f"          a step{of_phase}: {listed}; a rank sends {_size(ring_bytes)} in a ring")
    return lines


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
