"""`lambert plan … --noise-from RUN`: what other batch sizes would cost, from the gradient noise that RUN measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import inf, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambert.cli.subcommand import say
from lambert.errors import UserError

if TYPE_CHECKING:
    from lambert.planning.batch_size import Row, Scale
    from lambert.runlog.reader import Run
    from lambert.runlog.records import Noise


def measured_noise(folder: Path) -> Run:
    """The run, whose journal holds measurements.

    Raises:
        UserError: it does not, or cannot be read.
    """
    from lambert.runlog.reader import read_run

    run = read_run(folder)
    if not run.noise:
        raise UserError(
            f"{run.folder} has measured no gradient noise",
            remedy="Give one with some hundred steps, each of several micro-batches (a --micro-batch-size below the "
            "batch size) or of several processes, without --shard",
        )
    return run


def show_batch_sizes(
    phases: Sequence[Mapping[str, Any]], run: Run, *, model: str | None = None
) -> list[dict[str, Any]]:
    """Print the trade for each phase of a plan, and return it.

    Args:
        model: the plan's, where it has a name.

    Raises:
        UserError: no phase's noise scale is known well enough.
    """
    shown, problem = [], None
    for number, phase in enumerate(phases, start=1):
        noise = run.last_noise(number) or run.noise[-1]
        try:
            shown.append(_show_phase(number, phase, run, noise))
        except UserError as error:
            problem = error
            say(f"batch     phase {number}: {error.what[0].lower()}{error.what[1:]}")
            shown.append({"phase": number, "problem": str(error)})
    measured_model = run.header.get("model")
    if None not in (model, measured_model) and measured_model != model:
        say(f"note      the noise was measured with the model {measured_model!r}, and the plan is for {model!r}")
    if problem is not None and all("problem" in phase for phase in shown):
        raise problem
    return shown


def _show_phase(number: int, phase: Mapping[str, Any], run: Run, noise: Noise) -> dict[str, Any]:
    from lambert.planning.batch_size import largest_that_pays, noise_scale, table

    scale = noise_scale(noise.noise_scale, noise.standard_error, steps=noise.steps)
    batch_size, samples, steps = phase["batch_size"], phase["samples"], phase["steps"]
    rows = table(batch_size, scale)
    limits = [largest_that_pays(value) for value in (scale.value, scale.low, scale.high)]
    _say_origin(number, phase, run, noise, scale)
    say(f"{'batch':>12} {'samples':>16} {'times as many':>22} {'steps':>12} {'times as many':>22}")
    for row in rows:
        own = "  the plan's" if row.batch_size == batch_size else ""
        end = "  the last doubling that pays" if row.batch_size == limits[0] else ""
        say(
            f"{row.batch_size:>12,} {samples * row.samples_factor.value:>16,.0f} {_interval(row.samples_factor):>22} "
            f"{steps * row.steps_factor.value:>12,.0f} {_interval(row.steps_factor):>22}{own}{end}"
        )
    say(
        "          to the same loss. Doubling pays while it costs at most half as many samples again, and so saves "
        "at least a"
    )
    up_to, low, high = map(_limit, limits)
    say(f"          quarter of the steps: up to a batch of {up_to}; with the uncertainty, {low} to {high}")
    return {
        "phase": number,
        "noise_scale": {**asdict(scale), "high": None if scale.high == inf else scale.high},
        "standard_error": noise.standard_error,
        "measured_steps": noise.steps,
        "measured_in_phase": noise.phase,
        "measured_at_batch": noise.large_batch,
        "largest_that_pays": dict(zip(("value", "low", "high"), limits, strict=True)),
        "batches": [_as_json(row, samples, steps) for row in rows],
    }


def _say_origin(number: int, phase: Mapping[str, Any], run: Run, noise: Noise, scale: Scale) -> None:
    high = "any number" if scale.high == inf else f"{scale.high:,.0f}"
    say(
        f"batch     phase {number}: noise scale {scale.value:,.0f} sequences ({scale.low:,.0f} to {high}, two standard "
        f"errors), from {noise.steps} steps of {run.folder}, phase {noise.phase}, batch {noise.large_batch:,}"
    )
    measured = [other for other in run.noise if other.phase == noise.phase]
    earlier = [measured[len(measured) * quarter // 4] for quarter in (1, 2, 3)]
    told = ", ".join("unknown" if isnan(other.noise_scale) else f"{other.noise_scale:,.0f}" for other in earlier)
    say(f"          a quarter, a half and three quarters into that phase it was {told}")
    lengths = {other.number: other.sequence_length for other in run.phases}
    length = lengths.get(noise.phase)
    if length is not None and length != phase["sequence_length"]:
        say(f"note      it was measured at {length} tokens, and this phase has {phase['sequence_length']}")


def _interval(factor: Scale) -> str:
    value, low, high = (f"{number:.3g}" if number < 1_000 else f"{number:,.0f}" for number in asdict(factor).values())
    return f"{value} ({low} to {high})"


def _limit(batch_size: int | None) -> str:
    return "any batch" if batch_size is None else f"{batch_size:,}"


def _as_json(row: Row, samples: int, steps: int) -> dict[str, Any]:
    return {
        "batch_size": row.batch_size,
        "samples": samples * row.samples_factor.value,
        "steps": steps * row.steps_factor.value,
        "samples_factor": asdict(row.samples_factor),
        "steps_factor": asdict(row.steps_factor),
        "doubling_pays": row.doubling_pays,
    }
