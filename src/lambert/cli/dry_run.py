"""`lambert plan … --dry-run RANKS`: what each rank would hold, send and get, from one process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lambert.cli.memory import memory_parts
from lambert.cli.subcommand import say, warn

if TYPE_CHECKING:
    from lambert.corpus.store import Corpus
    from lambert.planner.rank_shares import Shares
    from lambert.planner.rank_simulation import Collective, DryRun, ShardedModel, Traffic
    from lambert.training.config.training_config import RunSettings


def show_dry_run(settings: RunSettings, corpus: Corpus | None, ranks: int) -> dict[str, Any]:
    """Print what is found and return it as JSON; `exit_code` 1 where samples are not cut to the ranks exactly.

    Raises:
        UserError: the run cannot be done on so many ranks.
    """
    from lambert.planner.rank_simulation import dry_run
    from lambert.planning.hardware import inspect_hardware

    found = dry_run(settings, corpus, ranks, memory_bytes=inspect_hardware().memory_available_bytes)
    say(f"dry run   {ranks:,} ranks in one process: no time, no values, no word of NCCL")
    for shares in found.shares:
        _say_shares(shares, "examples of the corpus" if corpus is not None else "samples")
    most = [shares.most for shares in found.shares]
    estimates = [memory_parts(settings, index, size) for index, size in enumerate(settings.micro_batch_sizes)]
    activations = [estimate.activation_bytes for estimate in estimates]
    replicated, model = _replicated(found, estimates[0].state_bytes, activations, most), found.sharded
    if model is None:
        say(f"sharded   not so: {found.sharded_problem}")
    for problem in found.problems:
        warn(f"{problem}; this is a fault of lambert, please report it")
    results = {
        "ranks": ranks,
        "samples": [{**asdict(shares), "idle_share": shares.idle_share} for shares in found.shares],
        "replicated": replicated,
        "sharded": None if model is None else _sharded(model, ranks, activations, most),
        "sharded_problem": found.sharded_problem,
    }
    return {"dry_run": results, **({"exit_code": 1} if found.problems else {})}


def _say_shares(shares: Shares, things: str) -> None:
    each = f"{shares.most:,} a rank"
    if shares.least != shares.most:
        waiting = f"{shares.idle_share:.0%}".replace("%", " %")
        each = (
            f"{shares.ranks_with_most:,} of {shares.ranks:,} ranks do {shares.most:,}, the others {shares.least:,}: "
            f"{waiting} of all ranks' time is waiting"
        )
    say(f"phase {shares.phase}   {shares.micro_batches:,} micro-batches, {each}")
    if not shares.problems:
        say(
            f"          {len(shares.cut_steps):,} of {shares.steps:,} steps cut to all ranks: each of a batch's "
            f"{shares.batch_size:,} {things} goes to exactly one"
        )


def _replicated(found: DryRun, state: int, activations: Sequence[int], most: Sequence[int]) -> dict[str, Any]:
    say(
        f"whole     a copy in every rank: {_size(state)} of weights, gradients and moments, about "
        f"{_size(state + max(activations))} with a micro-batch's activations"
    )
    phases = _say_traffic(found.replicated, found.ranks, most)
    for phase, kept in zip(phases, activations, strict=True):
        phase["memory_bytes"] = state + kept
    return {"state_bytes": state, "phases": phases}


def _sharded(model: ShardedModel, ranks: int, activations: Sequence[int], most: Sequence[int]) -> dict[str, Any]:
    least, largest, whole = min(model.parameters), max(model.parameters), sum(model.parameters)
    states = [model.state_bytes(count) for count in most]
    totals = [state + kept + model.gathered_bytes for state, kept in zip(states, activations, strict=True)]
    say(f"sharded   {least:,} to {largest:,} parameters a rank, {whole:,} in all")
    say(
        f"          {_size(max(states))} of weights, gradients and moments, about {_size(max(totals))} with activations"
    )
    say(f"          and {_size(model.gathered_bytes)} of weights gathered at a time")
    if max(most) > 1:
        say(f"          gradients stay whole ({_size(4 * whole)}) until the last of a rank's micro-batches")
    phases = _say_traffic(model.traffic, ranks, most)
    for phase, state, total in zip(phases, states, totals, strict=True):
        phase |= {"state_bytes": state, "memory_bytes": total}
    return {
        "parameters_least": least,
        "parameters_most": largest,
        "parameters": whole,
        "gathered_bytes": model.gathered_bytes,
        "phases": phases,
    }


def _say_traffic(traffic: Traffic, ranks: int, most: Sequence[int]) -> list[dict[str, Any]]:
    """Of a step of each phase, in a rank with the most micro-batches; one line where all are alike."""
    phases = [_totals(traffic.of_step(count), ranks) for count in most]
    alike = all(phase == phases[0] for phase in phases)
    for number, phase in enumerate(phases[:1] if alike else phases, start=1):
        listed = " and ".join(
            f"{total['number']:,} {kind}{'s' if total['number'] > 1 else ''} ({_size(total['bytes'])})"
            for kind, total in phase["collectives"].items()
        )
        of_phase = "" if alike else f" of phase {number}"
        say(f"          a step{of_phase}: {listed}; a rank sends {_size(phase['ring_bytes'])} in a ring")
    return phases


def _totals(collectives: Sequence[Collective], ranks: int) -> dict[str, Any]:
    totals: dict[str, dict[str, int]] = {}
    for one in collectives:
        total = totals.setdefault(one.kind, {"number": 0, "bytes": 0})
        total["number"] += 1
        total["bytes"] += one.whole_bytes
    return {"collectives": totals, "ring_bytes": round(sum(one.ring_bytes(ranks) for one in collectives))}


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
