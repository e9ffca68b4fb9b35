"""What other batch sizes would cost in samples and save in steps, from a run's gradient noise scale.

McCandlish et al. 2018, "An Empirical Model of Large-Batch Training" (arXiv 1812.06162), section 2: training to the same
loss at different batch sizes B takes S steps and E = B · S samples with
    (S / S_min − 1) · (E / E_min − 1) = 1,      B_crit = E_min / S_min,
which is the same as S = S_min · (1 + B_crit / B) and E = E_min · (1 + B / B_crit). The gradient noise scale stands in
for B_crit (docs/batch_size.md lists the caveats).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.runlog.reader import Run, read_run
from lambert.runlog.records import Noise
from lambert.training.config.phase_config import PhaseConfig

MIN_STEPS = 30
"""Measured steps; with fewer, the standard error itself is too uncertain."""
MAX_RELATIVE_ERROR = 0.5
"""Of a usable noise scale: two standard errors down is zero."""
WANTED_RELATIVE_ERROR = 0.2
"""The remedy says how many steps this takes."""
MAX_DOUBLINGS = 24
MARGIN = 3
"""Powers of two below and above the run's batch and the noise scale."""


@dataclass(frozen=True)
class Scale:
    """A number with its limits."""

    value: float
    low: float
    high: float
    """Infinite where there is no upper limit."""


@dataclass(frozen=True)
class Row:
    """The same loss at another batch size. The factors are relative to the run; `low` and `high` follow from the limits
    of the noise scale, the smaller one first.
    """

    batch_size: int
    samples_factor: Scale
    steps_factor: Scale
    doubling_pays: bool
    """Whether the next larger power of two costs no more than half as many samples again."""


@dataclass(frozen=True)
class BatchSizeAdvice:
    """Other batch sizes for one phase of a plan; without `scale` and `rows` where the noise scale is too uncertain."""

    phase: int
    """From 1."""
    config: PhaseConfig
    noise: Noise
    """The measurement that is used."""
    earlier_scales: tuple[float, ...]
    """Noise scale a quarter, a half and three quarters into the measured phase; NaN where unknown."""
    measured_length: int | None
    """Tokens of a sequence in the measured phase; None where not recorded."""
    scale: Scale | None = None
    rows: tuple[Row, ...] = ()
    problem: UserError | None = None

    @property
    def largest_that_pays(self) -> dict[str, int | None]:
        """Largest batch size reached by doublings that pay, for the noise scale and its limits; None: no limit."""
        assert self.scale is not None
        return {name: largest_that_pays(value) for name, value in asdict(self.scale).items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON (docs/json.md)."""
        if self.scale is None:
            return {"phase": self.phase, "problem": str(self.problem)}
        high = None if math.isinf(self.scale.high) else self.scale.high
        samples, steps = self.config.samples, self.config.step_count
        return {
            "phase": self.phase,
            "noise_scale": {**asdict(self.scale), "high": high},
            "standard_error": self.noise.standard_error,
            "measured_steps": self.noise.steps,
            "measured_in_phase": self.noise.phase,
            "measured_at_batch": self.noise.large_batch,
            "largest_that_pays": self.largest_that_pays,
            "batches": [
                asdict(row) | {"samples": samples * row.samples_factor.value, "steps": steps * row.steps_factor.value}
                for row in self.rows
            ],
        }


def read_noise(folder: Path) -> Run:
    """The run in `folder`, which must have measured its gradient noise.

    Raises:
        UserError: it has not, or cannot be read.
    """
    run = read_run(folder)
    if not run.noise:
        raise UserError(
            f"{run.folder} has measured no gradient noise",
            remedy="Give one with some hundred steps, each of several micro-batches (a `micro_batch_size` below the "
            "batch size) or of several processes, without `shard`",
        )
    return run


def advise_batch_sizes(phases: Sequence[PhaseConfig], run: Run) -> tuple[BatchSizeAdvice, ...]:
    """Other batch sizes for each phase of a plan, from the gradient noise of `run`, which measured some.

    A phase that the run did not measure takes its last measurement.

    Raises:
        UserError: the noise scale is too uncertain for every phase.
    """
    advice = tuple(_advise(number, phase, run) for number, phase in enumerate(phases, start=1))
    problems = [one.problem for one in advice if one.problem is not None]
    if len(problems) == len(advice):
        raise problems[-1]
    return advice


def _advise(number: int, phase: PhaseConfig, run: Run) -> BatchSizeAdvice:
    noise = run.last_noise(number) or run.noise[-1]
    measured = [other for other in run.noise if other.phase == noise.phase]
    earlier = tuple(measured[len(measured) * quarter // 4].noise_scale for quarter in (1, 2, 3))
    length = {other.number: other.sequence_length for other in run.phases}.get(noise.phase)
    try:
        scale = noise_scale(noise.noise_scale, noise.standard_error, steps=noise.steps)
    except UserError as error:
        return BatchSizeAdvice(number, phase, noise, earlier, length, problem=error)
    return BatchSizeAdvice(number, phase, noise, earlier, length, scale, tuple(table(phase.batch_size, scale)))


def noise_scale(value: float | None, standard_error: float | None, *, steps: int) -> Scale:
    """The noise scale with two standard errors either way, where it is certain enough to be used.

    The limits are those of its inverse, because its noisy part, the signal, is the divisor.

    Args:
        value, standard_error: sequences; None where the signal was not above zero.
        steps: measured steps behind it.

    Raises:
        UserError: too few steps, or too uncertain; says how many it would take.
    """
    if steps < MIN_STEPS:
        raise UserError(
            f"the noise scale rests on {steps} measured steps, and {MIN_STEPS} are the least",
            remedy="Let the run go on, or give one with more steps in this phase",
        )
    if value is None or not 0 < value < math.inf:
        raise UserError(
            f"after {steps} measured steps the gradient's signal has not come out above its noise",
            remedy=f"Give a run with more steps (four times as many, {4 * steps:,}, halve the error) or a larger batch",
        )
    relative = math.inf if standard_error is None else standard_error / value
    if not relative <= MAX_RELATIVE_ERROR:
        # An unknown error is larger than the value: leaving out a single step makes the signal negative.
        needed = steps_needed(steps, relative if math.isfinite(relative) else 1.0)
        raise UserError(
            f"the noise scale, about {value:,.0f} sequences, is too uncertain after {steps} measured steps (its "
            f"standard error is {_percent(relative)} of it, {_percent(MAX_RELATIVE_ERROR)} is the most)",
            remedy=f"Give a run in which it rests on some {needed:,} steps ({_percent(WANTED_RELATIVE_ERROR)}), or one "
            "with a larger batch",
        )
    low, rest = value / (1 + 2 * relative), 1 - 2 * relative
    return Scale(value, low, value / rest if rest > 0 else math.inf)


def steps_needed(steps: int, relative_error: float, *, wanted: float = WANTED_RELATIVE_ERROR) -> int:
    """Measured steps until the error is `wanted`: it falls as 1 / √steps."""
    return math.ceil(steps * (relative_error / wanted) ** 2)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.0f} %" if math.isfinite(fraction) else "more than 100 %"


def samples_factor(batch_size: float, other: float, scale: float) -> float:
    """Samples at `batch_size` over those at `other` to the same loss, E(B) / E(B₀) = (B_crit + B) / (B_crit + B₀)."""
    return (1 + batch_size / scale) / (1 + other / scale)


def largest_that_pays(scale: float) -> int | None:
    """The largest power of two that is reached from 1 by doublings that pay; None without limit.

    A doubling pays if it costs at most half as many samples again, and so saves at least a quarter of the steps:
    E(2B) / E(B) = 1 + B / (B_crit + B), so up to B = B_crit.
    """
    if math.isinf(scale):
        return None
    return 2 ** (math.floor(math.log2(scale)) + 1) if scale >= 1 else 1


def table(batch_size: int, scale: Scale) -> list[Row]:
    """Powers of two around the run's batch size and the noise scale, and the batch size itself, ascending."""
    ends = (min(batch_size, scale.value), max(batch_size, scale.value))
    first = max(0, math.floor(math.log2(max(ends[0], 1))) - MARGIN)
    last = min(math.ceil(math.log2(max(ends[1], 1))) + MARGIN, first + MAX_DOUBLINGS)
    sizes = sorted({2**power for power in range(first, last + 1)} | {batch_size})
    return [_row(size, batch_size, scale) for size in sizes]


def _row(size: int, batch_size: int, scale: Scale) -> Row:
    of_limits = [samples_factor(size, batch_size, limit) for limit in (scale.value, scale.low, scale.high)]
    samples = Scale(of_limits[0], min(of_limits[1:]), max(of_limits[1:]))
    steps = Scale(*(factor * batch_size / size for factor in (samples.value, samples.low, samples.high)))
    return Row(size, samples, steps, doubling_pays=size <= scale.value)
